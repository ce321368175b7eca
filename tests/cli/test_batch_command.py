"""`piapi-async batch` and `piapi-async ledger`, in this process and in virtual time; and how JOBS is read."""

import asyncio
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.ground import CAT, Ground
from support.strategies import JSON

from piapi_async import errors, events, flux
from piapi_async._fingerprint import content_of
from piapi_async._process import new_owner
from piapi_async.batch._outcomes import Failed, Succeeded
from piapi_async.cli._batch_progress import SHOWN, Tally
from piapi_async.cli._batch_report import report_rows
from piapi_async.cli._interrupt import TOGETHER
from piapi_async.cli._jobs_file import COLUMNS, KINDS, JobsFile, MistakeError, Order
from piapi_async.emulator import Constant, Emulator
from piapi_async.ledger import SQLiteLedger
from piapi_async.task import TaskInfo, TaskStatus

LINK = "https://example.com/a.jpg"
SAME = "the same command, 'piapi-async batch jobs.jsonl ...'"
GOES_ON = f"run {SAME} again: it continues from here, and pays for nothing twice"
FLIES = f"2 tasks in flight at the service: they may go on and be billed; {SAME}, picks them up"


pytestmark = pytest.mark.usefixtures("heed_ctrl_c")


def bears(count: int, **more: Any) -> str:
    """A file of jobs, `jobs.jsonl`, for so many bears."""
    lines = [json.dumps({"prompt": f"bear {n}", "image": LINK, **more}) for n in range(count)]
    Path("jobs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return "jobs.jsonl"


def summed(result: Result) -> dict[str, Any]:
    """The summary for machines."""
    (only,) = result.stdout.splitlines()
    found: dict[str, Any] = json.loads(only)
    return found


class TestBatch:
    """A batch from its file to its pictures."""

    def test_saves_and_sums_up(self, ground: Ground, tmp_path: Path) -> None:
        """All pictures are in the folder, the ledger is beside them, and stdout has the summary alone."""
        result = ground("batch", bears(5), "--out", "new/out")
        facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        assert result.exit_code == 0
        assert (facts["jobs"], facts["completed"], facts["pictures"]) == ("5", "5", "5")
        assert facts["usd"].startswith("0.0075 ")
        assert facts["ledger"] == "new/out/ledger.db"
        assert len(list((tmp_path / "new/out").glob("*.png"))) == len(ground.emulator.tasks) == 5
        assert result.stderr.splitlines()[-1].split("s  ")[1].startswith("5 of 5 jobs, ")

    def test_the_same_command_goes_on(self, ground: Ground) -> None:
        """Started again it submits nothing, and gives the same summary."""
        first = summed(ground("batch", bears(3), "--json"))
        again = summed(ground("batch", "jobs.jsonl", "--json"))
        assert len(ground.emulator.charges) == 3
        assert {**first, "seconds": 0} == {**again, "seconds": 0}
        assert (first["completed"], first["pictures"], first["usd"], first["stopped"]) == (3, 3, 0.0045, None)

    def test_options_reach_the_batch(self, ground: Ground) -> None:
        """The ledger is where it was wanted, and the webhook and the number in flight are heeded."""
        options = ["--ledger", "deep/my.db", "--webhook", "https://example.com/hook", "--max-in-flight", "1"]
        told = summed(ground("batch", bears(2), "--json", *options, "--max-pixels", "100000"))
        first, second = ground.emulator.tasks.values()
        assert (told["completed"], told["ledger"]) == (2, "deep/my.db")
        assert Path("deep/my.db").exists()
        assert first.config["webhook_config"]["endpoint"].startswith("https://example.com/hook?piapi_attempt=")
        assert first.ended_at is not None
        assert second.created_at >= first.ended_at

    def test_csv_with_a_pattern(self, ground: Ground) -> None:
        """A pattern makes a job of each file, beside JOBS; numbers are numbers, and empty cells are not given."""
        for name in ("b", "a", "c"):
            Path("work/photos").mkdir(parents=True, exist_ok=True)
            Path(f"work/photos/{name}.jpg").write_bytes(Path(CAT).read_bytes() + name.encode())
        Path("work/jobs.csv").write_text(
            f"prompt,image,denoise,batch_size,lora\nmany,photos/*.jpg,,2,\none,{LINK},0.5,,mjv6:0.8\n", encoding="utf-8"
        )
        result = ground("batch", "work/jobs.csv", "--json", "--out", "out")
        tasks = sorted(ground.emulator.tasks.values(), key=lambda task: task.task_type)
        assert result.exit_code == 0
        assert (summed(result)["jobs"], summed(result)["pictures"]) == (4, 7)
        assert [task.input.get("batch_size") for task in tasks] == [2, 2, 2, None]
        assert (tasks[3].task_type, tasks[3].input["denoise"]) == ("img2img-lora", 0.5)
        assert tasks[3].input["lora_settings"] == [{"lora_type": "mjv6", "lora_strength": 0.8}]

    def test_results_are_no_sources(self, ground: Ground) -> None:
        """A pattern that would find the results, too, gives the same jobs again, and nothing is paid twice."""
        Path("photos").mkdir()
        shutil.copy(CAT, "photos")
        Path("jobs.jsonl").write_text(json.dumps({"prompt": "a", "image": "**/*.[jp][pn]g"}), encoding="utf-8")
        for _ in range(2):
            result = ground("batch", "jobs.jsonl", "--out", "out", "--json")
            assert (result.exit_code, summed(result)["jobs"]) == (0, 1)
        assert result.stderr.count("warning: image '**/*.[jp][pn]g' leaves out what is in out") == 1
        assert len(ground.emulator.charges) == 1

    def test_results_are_no_sources_in_folders_either(self, ground: Ground) -> None:
        """So it is when `--name` puts them into folders, also for those of a run that did not."""
        Path("photos").mkdir()
        shutil.copy(CAT, "photos")
        Path("jobs.jsonl").write_text(json.dumps({"prompt": "a", "image": "**/*.[jp][pn]g"}), encoding="utf-8")
        for _ in range(2):
            result = ground("batch", "jobs.jsonl", "--out", "out", "--name", "{date}/{task_id}", "--json")
            assert (result.exit_code, summed(result)["jobs"]) == (0, 1)
            shutil.copy(CAT, "out")
        assert len(ground.emulator.charges) == 1

    def test_names_and_sidecars(self, ground: Ground, tmp_path: Path) -> None:
        """`--name` and `--sidecar` are those of the other commands; a name has to tell the tasks apart."""
        result = ground("batch", bears(2), "--out", "out", "--name", "{model}/{task_id}", "--sidecar")
        assert result.exit_code == 0
        made = sorted((tmp_path / "out").glob("Qubico-flux1-schnell/*"))
        assert [path.suffix for path in made] == [".json", ".png"] * 2
        assert json.loads(made[0].read_text(encoding="utf-8"))["request"]["input"]["prompt"].startswith("bear ")
        result = ground("batch", "jobs.jsonl", "--out", "new", "--name", "{date}-{n}")
        told = "error: --name must be a template with {task_id} in a batch, got '{date}-{n}'\n"
        assert (result.exit_code, result.stderr) == (2, told)

    def test_keys(self, ground: Ground) -> None:
        """A line may name its job."""
        Path("jobs.ndjson").write_text(
            json.dumps({"prompt": "a", "image": LINK, "key": "first bear"}), encoding="utf-8"
        )
        assert ground("batch", "jobs.ndjson").exit_code == 0
        exported = ground("ledger", "export", "ledger.db").stdout
        assert json.loads(exported)["key"] == "first bear"

    @pytest.mark.parametrize("count", [1, 3])
    def test_stdin(self, ground: Ground, count: int) -> None:
        """JOBS may come through a pipe, which says what it is."""
        lines = Path(bears(count)).read_text(encoding="utf-8")
        result = ground("batch", "-", "--format", "jsonl", "--json", stdin=lines)
        assert (result.exit_code, summed(result)["completed"]) == (0, count)

    def test_stdin_without_a_format(self, ground: Ground) -> None:
        """Without an ending the format has to be given."""
        result = ground("batch", "-", stdin="{}")
        told = "error: --format must be given for -; endings that tell are .jsonl, .ndjson, .json, .csv\n"
        assert (result.exit_code, result.stderr) == (2, told)

    def test_a_pipe_is_read_more_than_once(self, ground: Ground) -> None:
        """What cannot be read from the front again is kept."""
        reading_end, writing_end = os.pipe()
        os.write(writing_end, Path(bears(2)).read_bytes())
        os.close(writing_end)
        result = ground("batch", f"/dev/fd/{reading_end}", "--format", "jsonl", "--json")
        os.close(reading_end)
        assert (result.exit_code, summed(result)["completed"]) == (0, 2)

    def test_dry_run(self, ground: Ground) -> None:
        """Nothing is sent and nothing is made, and the price is said."""
        result = ground("batch", bears(40), "--dry-run", "--out", "out")
        assert result.stdout == "40 jobs, about 0.0600 USD if all are new, by the prices of 2026-09-22\n"
        told = summed(ground("batch", bears(1, batch_size=4), "--dry-run", "--json"))
        assert told == {"jobs": 1, "usd": 0.006}
        assert not ground.emulator.tasks
        assert not Path("out").exists()

    def test_dry_run_makes_the_checks_of_the_real_run(self, ground: Ground) -> None:
        """A picture that the batch would refuse is a mistake of its line, and so is an option; nothing is made."""
        cat = Path(CAT).read_bytes()
        Path("half.jpg").write_bytes(cat[: len(cat) // 2])
        Path("whole.jpg").write_bytes(cat)
        lines = [{"prompt": "a", "image": name} for name in ("whole.jpg", "half.jpg", "whole.jpg", "half.jpg")]
        Path("jobs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        result = ground("batch", "jobs.jsonl", "--dry-run", "--out", "out")
        assert (result.exit_code, result.stdout) == (2, "")
        told = result.stderr.splitlines()
        assert [line.partition(" must be ")[0] for line in told] == [
            "error: jobs.jsonl:2: image 'half.jpg'",
            "error: jobs.jsonl:4: image 'half.jpg'",
        ]
        assert all("must be a whole picture" in line for line in told)
        for options in (["--webhook", "nonsense"], ["--name", "{date}"], ["--max-pixels", "0"]):
            real = ground("batch", bears(1), "--out", "real", *options)
            result = ground("batch", bears(1), "--dry-run", "--out", "out", *options)
            assert (result.exit_code, result.stderr) == (2, real.stderr)
        assert ground("batch", bears(1), "--dry-run", "--out", "out").exit_code == 0
        assert not Path("out").exists()
        assert not ground.emulator.tasks

    @pytest.mark.parametrize("options", [["--dry-run"], []])
    def test_all_mistakes_are_told_before_anything_is_paid(self, ground: Ground, options: list[str]) -> None:
        """Each wrong line is named with what is allowed; the exit code is 2 and nothing was sent."""
        Path("jobs.csv").write_text(f"prompt,image,denoise\na,{LINK},7\nb,{LINK},\nc,,\nd,x.jpg,\n", encoding="utf-8")
        result = ground("batch", "jobs.csv", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.splitlines() == [
            "error: jobs.csv:2: denoise must be a finite number > 0 and <= 1, got 7",
            "error: jobs.csv:4: image is missing; task type 'img2img' needs it",
            "error: jobs.csv:5: image 'x.jpg' is neither a file nor an http(s) URL",
        ]
        assert not ground.emulator.tasks

    def test_many_mistakes(self, ground: Ground) -> None:
        """Of many mistakes twenty are shown, and the number of the others."""
        result = ground("batch", bears(30, denoise=0))
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 21
        assert result.stderr.splitlines()[-1] == "error: and 10 more"

    def test_a_key_given_twice(self, ground: Ground) -> None:
        """Two jobs cannot have one name."""
        result = ground("batch", bears(2, key="k"))
        assert result.stderr == "error: jobs.jsonl:2: key 'k' is that of line 1 already\n"

    def test_no_jobs(self, ground: Ground) -> None:
        """A file without jobs is a mistake."""
        Path("jobs.csv").write_text("prompt,image\n\n", encoding="utf-8")
        result = ground("batch", "jobs.csv")
        assert (result.exit_code, result.stderr) == (2, "error: jobs.csv:1: it holds no jobs\n")

    def test_missing_file(self, ground: Ground) -> None:
        """A file that is not there is one line."""
        result = ground("batch", "jobs.csv")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)

    def test_a_warning_is_shown_once(self, ground: Ground) -> None:
        """What ten lines warn of is told once."""
        result = ground("batch", bears(10, lora="animee"), "--dry-run")
        assert result.exit_code == 0
        assert result.stderr.count("warning: lora_type 'animee' is not among") == 1

    def test_live_on_a_terminal(self, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal there are a bar and a line instead of lines."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TTY_INTERACTIVE", "1")
        result = ground("batch", bears(3))
        assert result.exit_code == 0
        assert "━" in result.stderr
        assert "of 3 jobs, " in result.stderr


class TestTrouble:
    """What is said and left when a batch does not end well."""

    def test_a_task_fails(self, ground: Ground) -> None:
        """The job and its reason are one line, and the exit code is 1."""
        ground.faults.next("create", "task-fails", reason="no bears today")
        result = ground("batch", bears(3), "--json", "--report", "report.html")
        (told,) = [line for line in result.stderr.splitlines() if line.startswith("job ")]
        assert result.exit_code == 1
        assert told.endswith("failed: no bears today")
        assert (summed(result)["failed"], summed(result)["completed"], summed(result)["not_sent"]) == (1, 2, 0)
        assert "no bears today" in Path("report.html").read_text(encoding="utf-8")

    def test_a_lost_answer_is_reconciled(self, ground: Ground) -> None:
        """By default the task of a submit whose answer was lost is looked for, and nothing is paid twice."""
        ground.faults.next("create", "cut-after-accept")
        result = ground("batch", bears(3), "--json")
        assert (result.exit_code, summed(result)["completed"]) == (0, 3)
        assert len(ground.emulator.charges) == 3

    def test_a_doubt_is_left(self, ground: Ground) -> None:
        """Skipped, it is said where to look, in the words of the command line; the next run finds the task."""
        ground.faults.next("create", "cut-after-accept")
        result = ground("batch", bears(3), "--json", "--on-doubt", "skip")
        ends = "1 job in doubt, each may have a task that is billed; 'piapi-async ledger show ledger.db' tells which"
        assert (result.exit_code, summed(result)["in_doubt"]) == (1, 1)
        assert result.stderr.splitlines()[-1] == ends
        assert "run again with --on-doubt reconcile" in result.stderr
        assert "3 of 3 jobs" in result.stderr
        assert "1 in doubt" in result.stderr

    def test_no_credit(self, ground: Ground) -> None:
        """Where going on has no point the batch stops, says why, and that the same command goes on."""
        ground.emulator = Emulator(credits=45_000, durations=Constant(1.0))
        result = ground("batch", bears(9), "--json", "--max-in-flight", "1", "--report", "report.html")
        told = result.stderr.splitlines()
        assert result.exit_code == 1
        assert told[-2].startswith("error: the batch stopped: ")
        assert told[-1] == f"5 of 9 jobs not sent; {GOES_ON}"
        assert summed(result)["stopped"]
        assert "stopped" in Path("report.html").read_text(encoding="utf-8")
        ground.emulator = Emulator(seed=1, durations=Constant(1.0))
        assert summed(ground("batch", "jobs.jsonl", "--json"))["completed"] == 9
        assert len(ground.emulator.charges) == 6

    @pytest.mark.parametrize("at_once", ["1", "8"])
    def test_spend_limit(self, ground: Ground, at_once: str) -> None:
        """--max-spend is for all that the ledger ever recorded; what it stops was not sent; a higher one goes on."""
        told = ground("batch", bears(12), "--max-spend", "0.003", "--max-in-flight", at_once, "--report", "r.html")
        facts = dict(line.rsplit(maxsplit=1) for line in told.stdout.splitlines() if not line.startswith("usd"))
        lines = told.stderr.splitlines()
        assert (told.exit_code, len(ground.emulator.tasks)) == (1, 2)
        assert (facts["jobs"], facts["completed"], facts["not sent"]) == ("12", "2", "10")
        assert "failed" not in told.stdout + told.stderr
        assert not [line for line in lines if line.startswith("job ")]
        assert ", 10 not sent" in lines[-4]
        assert "--max-spend 0.003 are spent" in lines[-2]
        higher = f"run {SAME} with a higher --max-spend"
        assert lines[-1] == f"10 of 12 jobs not sent; {higher}: it continues from here, and pays for nothing twice"
        assert (report_states()["completed"], report_states()["not_sent"]) == (2, 10)
        assert ground("batch", "jobs.jsonl", "--max-spend", "0.018").exit_code == 0
        assert len(ground.emulator.charges) == 12

    def test_pictures_that_cannot_be_fetched(self, ground: Ground) -> None:
        """A job whose pictures could not be saved failed: nothing is in flight."""
        with ground.faults.always("result", "404"):
            told = summed(ground("batch", bears(1), "--json"))
        assert {name: told[name] for name in COUNTS if told[name]} == {"failed": 1}

    def test_doubts_of_another_file(self, ground: Ground) -> None:
        """What another file's run left in doubt in the same ledger is none of this one's."""
        ground.faults.next("create", "cut-after-accept")
        ground("batch", bears(1, key="another"), "--on-doubt", "skip")
        told = summed(ground("batch", bears(2), "--on-doubt", "skip", "--deadline", "0", "--json"))
        assert {name: told[name] for name in COUNTS if told[name]} == {"not_sent": 2}

    def test_all_counts_add_up(self, ground: Ground) -> None:
        """Whatever became of the jobs: screen, summary, advice and report say the same, and all jobs are in it."""
        ground.faults.next("create", "task-fails", reason="no bears")
        ground.faults.next("create", "404")
        ground.faults.next("create", "cut-after-accept")
        options = ["--on-doubt", "skip", "--deadline", "14", "--max-in-flight", "1", "--report", "r.html", "--json"]
        result = ground("batch", bears(9), *options)
        told = summed(result)
        counts = {name: told[name] for name in COUNTS}
        assert sum(counts.values()) == told["jobs"] == 9
        assert all(counts.values())
        assert report_states() == counts
        screen = next(line for line in reversed(result.stderr.splitlines()) if " not sent" in line and " s  " in line)
        done = counts["completed"] + counts["failed"] + counts["in_doubt"]
        assert f"{done} of 9 jobs" in screen
        for name in COUNTS[1:]:
            assert f"{counts[name]} {name.replace('_', ' ')}" in screen

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--max-spend", "-1"], "--max-spend must be US dollars >= 0"),
            (["--max-in-flight", "0"], "'--max-in-flight'"),
            (["--webhook", "me"], "endpoint must be an http(s) URL, got 'me'"),
        ],
    )
    def test_misuse(self, ground: Ground, options: list[str], told: str) -> None:
        """What cannot be asked for is one line and exit code 2, and nothing is submitted."""
        result = ground("batch", bears(1), *options)
        (only,) = result.stderr.splitlines()
        assert (result.exit_code, result.stdout, ground.emulator.tasks) == (2, "", {})
        assert told in only

    def test_deadline(self, ground: Ground) -> None:
        """When time is up what is in flight is still in flight, not failed, and what was not begun was not sent."""
        result = ground("batch", bears(3), "--deadline", "2", "--max-in-flight", "2", "--json")
        told = summed(result)
        assert result.exit_code == 1
        assert {name: told[name] for name in COUNTS[1:]} == {"failed": 0, "in_doubt": 0, "in_flight": 2, "not_sent": 1}

    def test_a_file_that_changes_meanwhile(self, ground: Ground) -> None:
        """A line that is no job any longer stops the batch: it is summed up, and the same command goes on."""
        for name in ("1.jpg", "2.jpg"):
            shutil.copy(CAT, name)
        lines = [{"prompt": "a", "image": name} for name in ("1.jpg", "2.jpg")]
        Path("jobs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        ground.timers.append((1.0, Path("2.jpg").unlink))
        result = ground("batch", "jobs.jsonl", "--json", "--max-in-flight", "1")
        told = summed(result)
        assert (result.exit_code, told["completed"], told["not_sent"]) == (1, 1, 1)
        assert told["stopped"] == "jobs.jsonl:2: image '2.jpg' is neither a file nor an http(s) URL"
        shutil.copy(CAT, "2.jpg")
        assert summed(ground("batch", "jobs.jsonl", "--json"))["completed"] == 2
        assert len(ground.emulator.charges) == 2

    def test_a_folder_that_cannot_be_made(self, ground: Ground) -> None:
        """Where no ledger can be, nothing is submitted."""
        Path("file").touch()
        result = ground("batch", bears(1), "--out", "file/out")
        assert (result.exit_code, result.stderr) == (1, "error: file/out: Not a directory\n")
        assert not ground.emulator.tasks


class TestCtrlC:
    """The first Ctrl-C ends a batch, the second lets go, the third leaves."""

    def test_once(self, ground: Ground) -> None:
        """What is in flight is waited for, the summary is written, and the same command does the rest."""
        ground.interrupt(after=2.0)
        result = ground("batch", bears(5), "--max-in-flight", "2", "--json", "--report", "report.html")
        told = result.stderr.splitlines()
        assert (result.exit_code, summed(result)["completed"], summed(result)["not_sent"]) == (130, 2, 3)
        assert told[0].startswith("stopping: no more jobs are begun; ")
        assert told[-2:] == ["interrupted", f"3 of 5 jobs not sent; {GOES_ON}"]
        assert Path("report.html").read_text(encoding="utf-8").count('"not_sent"') >= 3
        assert ground("batch", "jobs.jsonl").exit_code == 0
        assert len(ground.emulator.charges) == 5

    def test_when_all_is_in_flight(self, ground: Ground) -> None:
        """Where nothing was left to begin, the batch is done all the same."""
        ground.interrupt(after=2.0)
        assert ground("batch", bears(2)).exit_code == 0

    def test_twice(self, ground: Ground) -> None:
        """The second lets go at once, and sums up; the ledger has the tasks, and nothing is paid twice."""
        ground.interrupt(after=2.0)
        ground.interrupt(after=2.0 + 1.1 * TOGETHER)
        result = ground("batch", bears(5), "--max-in-flight", "2", "--json", "--report", "report.html")
        told = summed(result)
        assert (result.exit_code, ground.left, told["report"]) == (130, [], None)
        assert (told["in_flight"], told["not_sent"]) == (2, 3)
        assert not Path("report.html").exists()
        assert result.stderr.splitlines()[-3:] == ["interrupted", FLIES, f"3 of 5 jobs not sent; {GOES_ON}"]
        assert ground("batch", "jobs.jsonl").exit_code == 0
        assert len(ground.emulator.charges) == 5

    def test_what_was_spent_when_it_let_go(self, ground: Ground) -> None:
        """The sum is the ledger's at the end, also where the second Ctrl-C came before it was looked at again."""
        ground.interrupt(after=0.6)
        ground.interrupt(after=0.7)
        told = summed(ground("batch", bears(3), "--json"))

        async def spent() -> float:
            async with SQLiteLedger(told["ledger"]) as ledger:
                return await ledger.spent()

        assert told["usd"] == asyncio.run(spent()) > 0

    def test_thrice(self, ground: Ground) -> None:
        """The third leaves without tidying up, and says that a submit may have been under way."""
        ground.faults.next("create", "stall")
        for after in (1.0, 2.0, 3.0):
            ground.interrupt(after=after)
        result = ground("batch", bears(1), "--json")
        assert (result.exit_code, ground.left, summed(result)["in_doubt"]) == (130, [130], 1)
        assert result.stderr.splitlines()[-1].startswith("1 job in doubt, each may have a task that is billed; ")

    @pytest.mark.parametrize("apart", [0.0, 0.9 * TOGETHER])
    def test_twice_in_a_moment(self, ground: Ground, apart: float) -> None:
        """Two within half a second are one: `timeout -s INT` signals the process and its group."""
        ground.interrupt(after=2.0)
        ground.interrupt(after=2.0 + apart)
        result = ground("batch", bears(5), "--max-in-flight", "2", "--json")
        assert (result.exit_code, ground.left, summed(result)["completed"]) == (130, [], 2)
        assert result.stderr.count("stopping: no more jobs are begun") == 1

    def test_handler_is_given_back(self, ground: Ground) -> None:
        """After a batch that was interrupted, Ctrl-C is what it was."""
        ground.interrupt(after=2.0)
        ground("batch", bears(2))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
class TestAskedToEnd:
    """SIGTERM and SIGHUP let go at once, in good order."""

    def test_once(self, ground: Ground, number: signal.Signals) -> None:
        """Waits end, all is summed up, the exit code tells the signal, and the same command does the rest."""
        ground.interrupt(number, after=2.0)
        result = ground("batch", bears(5), "--max-in-flight", "2", "--json")
        assert (result.exit_code, ground.left, summed(result)["in_flight"]) == (128 + number, [], 2)
        said = [f"ended by {number.name}", FLIES, f"3 of 5 jobs not sent; {GOES_ON}"]
        assert result.stderr.splitlines()[-3:] == said
        assert signal.getsignal(number) is signal.SIG_DFL
        assert ground("batch", "jobs.jsonl").exit_code == 0
        assert len(ground.emulator.charges) == 5

    def test_after_ctrl_c(self, ground: Ground, number: signal.Signals) -> None:
        """Where Ctrl-C has the batch wait for what is in flight, it ends the waiting."""
        ground.interrupt(after=2.0)
        ground.interrupt(number, after=2.2)
        assert ground("batch", bears(5), "--max-in-flight", "2").exit_code == 128 + number
        assert ground.left == []

    def test_while_a_submit_is_under_way(self, ground: Ground, number: signal.Signals) -> None:
        """The answer is waited for, so that nothing is in doubt."""
        ground.faults.next("create", "slow-headers", seconds=3)
        ground.interrupt(number, after=1.0)
        assert ground("batch", bears(1)).exit_code == 128 + number
        told = ground("ledger", "show", "ledger.db").stdout.split()
        assert told[told.index("submitted") + 1] == "1"
        assert "doubt" not in told

    def test_twice(self, ground: Ground, number: signal.Signals) -> None:
        """A second one leaves without tidying up."""
        ground.faults.next("create", "stall")
        ground.interrupt(number, after=1.0)
        ground.interrupt(number, after=2.0)
        assert ground("batch", bears(1)).exit_code == 128 + number
        assert ground.left[0] == 128 + number

    @pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_twice_in_a_moment(self, ground: Ground, number: signal.Signals, second: signal.Signals) -> None:
        """Two within half a second are one, whichever they are: systemd may send SIGHUP right after SIGTERM."""
        ground.faults.next("create", "slow-headers", seconds=3)
        ground.interrupt(number, after=1.0)
        ground.interrupt(second, after=1.0 + 0.9 * TOGETHER)
        assert (ground("batch", bears(1)).exit_code, ground.left) == (128 + number, [])
        assert "doubt" not in ground("ledger", "show", "ledger.db").stdout

    def test_that_is_ignored(self, ground: Ground, number: signal.Signals) -> None:
        """A signal that the process ignores, as it does SIGHUP under `nohup`, changes nothing."""
        before = signal.signal(number, signal.SIG_IGN)
        try:
            ground.interrupt(number, after=0.5)
            assert ground("batch", bears(1)).exit_code == 0
        finally:
            signal.signal(number, before)


COUNTS = ("completed", "failed", "in_doubt", "in_flight", "not_sent")


def report_states() -> dict[str, int]:
    """How many rows of the report `r.html` are in which state."""
    found = Counter(re.findall(r'"state":"(\w+)"', Path("r.html").read_text(encoding="utf-8")))
    return dict(found)


class TestReport:
    """The rows of the report."""

    def test_rows(self, ground: Ground) -> None:
        """Each job has its row, in the file's order: inputs as given, outputs, cost, and what is known of a failure."""
        shutil.copy(CAT, "edges.jpg")
        lines = [
            {"prompt": "a", "image": LINK},
            {"prompt": "a", "image": LINK},
            {"prompt": "c", "control": "canny:edges.jpg", "lora": {"lora_type": "mjv6", "image": LINK}, "key": "k"},
            {"prompt": "d", "task_type": "txt2img", "width": 64},
        ]
        Path("jobs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        assert ground("batch", "jobs.jsonl", "--report", "r.html").exit_code == 0
        with Path("jobs.jsonl").open("rb") as file:
            jobs = JobsFile(file=file, name="jobs", format="jsonl", folder=Path(), out=Path("out"))
            first, second, third, fourth = report_rows(jobs, ledger=Path("ledger.db"), reasons={})
        assert second.key == f"{first.key}-2"
        assert (first.inputs, first.usd, first.state, len(first.outputs)) == ([LINK], 0.0015, "completed", 1)
        assert (third.key, third.inputs) == ("k", [Path("edges.jpg"), LINK])
        assert third.settings["lora_settings"] == [{"lora_type": "mjv6"}]
        assert (fourth.settings, fourth.inputs, fourth.reason) == ({"width": 64}, [], "")
        assert first.seconds is not None

    def test_reasons_of_former_runs(self, ground: Ground) -> None:
        """What failed or is in doubt from before is told by the ledger; what was refused now, by this run."""
        ground.faults.next("create", "task-fails", reason="no bears")
        ground.faults.next("create", "cut-after-accept")
        ground.faults.next("create", "404")
        ground("batch", bears(4), "--on-doubt", "skip", "--max-in-flight", "1")
        with Path("jobs.jsonl").open("rb") as file:
            jobs = JobsFile(file=file, name="jobs", format="jsonl", folder=Path(), out=Path("out"))
            planned = list(report_rows(jobs, ledger=Path("ledger.db"), reasons={}))[2]
            rows = list(report_rows(jobs, ledger=Path("ledger.db"), reasons={planned.key: "refused so"}))
        assert [row.state for row in rows] == ["failed", "in_doubt", "not_sent", "completed"]
        assert rows[0].reason.endswith("failed: no bears")
        assert rows[2].reason == "refused so"
        assert "may be billed" in rows[1].reason
        assert (planned.state, planned.reason) == ("not_sent", "")

    def test_a_file_that_changed(self, tmp_path: Path) -> None:
        """A line that is no longer a job is a row that says so."""
        jobs = JobsFile(file=io.BytesIO(b"nonsense"), name="jobs", format="jsonl", folder=Path(), out=Path("out"))
        (row,) = report_rows(jobs, ledger=tmp_path / "ledger.db", reasons={})
        assert (row.state, row.reason[:15]) == ("refused", "jobs:1: no JSON")
        with pytest.raises(MistakeError, match="jobs:1: no JSON"):
            list(jobs.orders())


class TestTally:
    """The display, with a clock of its own."""

    def test_lines_come_now_and_then(self) -> None:
        """Where nothing lives a line comes for a tenth of the jobs, a second apart at least, or after ten seconds."""
        tally, clock = tallied(total=100)
        for _ in range(20):
            tally.take(failure(errors.PiAPIError("no")))
        assert "of 100" not in told(tally)
        clock.now = 1.0
        tally.take(failure(errors.PiAPIError("no")))
        assert told(tally).count("21 of 100 jobs") == 1
        clock.now = 5.0
        tally.take(failure(errors.PiAPIError("no")))
        assert "22 of 100" not in told(tally)
        clock.now = 11.0
        tally.take(failure(errors.PiAPIError("no")))
        assert told(tally).count("of 100 jobs") == 2

    def test_many_failures(self) -> None:
        """Some failures are shown, and then that there are more; those with a key keep their reasons."""
        tally, _ = tallied(total=1000)
        for number in range(SHOWN + 5):
            tally.take(failure(errors.PiAPIError("no"), key=f"key {number}"))
        lines = told(tally).splitlines()
        assert lines[0] == "job key 0: no"
        assert len(lines) == SHOWN + 1
        assert lines[-1].startswith("more failures are not shown here")
        assert len(tally.reasons) == SHOWN + 5

    def test_time_left(self) -> None:
        """The rate is made from what was done in this run, and what is left has hours."""
        tally, clock = tallied(total=1000)
        clock.now = 10.0
        info = TaskInfo(task_id="a", status=TaskStatus.COMPLETED)
        tally.take(Succeeded(key="a", request=flux.Txt2Img(prompt="a"), info=info))
        assert list(tally.facts())[:2] == ["1 of 1,000 jobs", "0.0000 USD spent"]
        tally.take(failure(errors.PiAPIError("no")))
        assert list(tally.facts())[:3] == ["2 of 1,000 jobs", "6 a minute", "2:46:20 left"]
        tally(events.Polled(info=info))
        tally.take(Succeeded(key="b", request=flux.Txt2Img(prompt="a"), info=info))
        assert "12 a minute" in list(tally.facts())

    def test_in_flight(self) -> None:
        """A task is in flight until it is over or let go."""
        tally, _ = tallied(total=1)
        tally(events.WaitAbandoned(task_id="a"))
        tally(events.PollFailed(task_id="a", error=errors.PiAPIError("no")))
        assert "0 in flight" in list(tally.facts())

    @given(
        outcomes=st.lists(st.sampled_from(["completed", "failed", "in_doubt", "in_flight", "goes_on"]), max_size=9),
        left=st.lists(st.sampled_from(["in_doubt", "in_flight"]), max_size=9),
        rest=st.integers(0, 9),
        following=st.integers(0, 9),
        at_work=st.integers(1, 9),
        is_settled=st.booleans(),
    )
    def test_counts_add_up(
        self, *, outcomes: list[str], left: list[str], rest: int, following: int, at_work: int, is_settled: bool
    ) -> None:
        """Whatever became of the jobs, the counts add up to all of them, in the summary and on the screen."""
        tally, _ = tallied(total=len(outcomes) + rest)
        for number, outcome in enumerate(outcomes):
            tally.take(OUTCOMES[outcome](f"k{number}"))
        for number in range(following):
            tally(events.Polled(info=TaskInfo(task_id=f"t{number}", status=TaskStatus.PENDING)))
        if is_settled:
            going_on = {f"k{number}": "in_flight" for number, it in enumerate(outcomes) if it == "goes_on"}
            tally.settle({**going_on, **{f"left {number}": state for number, state in enumerate(left)}})
        counts = tally.standing(at_work=at_work)
        of_outcomes = Counter(outcomes)
        of_outcomes["in_flight" if is_settled else "failed"] += of_outcomes.pop("goes_on", 0)
        assert set(counts) == set(COUNTS)
        assert sum(counts.values()) == tally.total
        assert min(counts.values()) >= 0
        assert all(counts[name] >= number for name, number in of_outcomes.items())
        assert (counts["completed"], counts["failed"]) == (of_outcomes["completed"], of_outcomes["failed"])
        if is_settled:
            assert counts["not_sent"] == max(0, rest - len(left))
            facts = list(tally.facts())
            done = tally.total - counts["in_flight"] - counts["not_sent"]
            assert facts[0] == f"{done:,} of {tally.total} job{'s' * (tally.total != 1)}"
            assert f"{counts['in_flight']} in flight" in facts
            assert (f"{counts['not_sent']} not sent" in facts) is (counts["not_sent"] > 0)


class _Clock:
    """A time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def tallied(*, total: int) -> tuple[Tally, _Clock]:
    """A display that writes into memory."""
    clock = _Clock()
    return Tally(Console(file=io.StringIO(), get_time=clock, width=200), total=total), clock


def told(tally: Tally) -> str:
    """What it wrote."""
    file = tally._console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def failure(error: Exception, *, key: str | None = None) -> Failed:
    """An outcome without a task."""
    return Failed(key=key, request=flux.Txt2Img(prompt="a"), error=error)


def success(key: str) -> Succeeded:
    """An outcome without pictures."""
    info = TaskInfo(task_id=key, status=TaskStatus.COMPLETED)
    return Succeeded(key=key, request=flux.Txt2Img(prompt="a"), info=info)


OUTCOMES: dict[str, Callable[[str], Succeeded | Failed]] = {
    "completed": success,
    "failed": lambda key: failure(errors.PiAPIError("no"), key=key),
    "goes_on": lambda key: failure(errors.PiAPIError("no", task_id=f"of {key}"), key=key),
    "in_flight": lambda key: failure(errors.WaitTimeoutError("slow"), key=key),
    "in_doubt": lambda key: failure(
        errors.SubmissionInDoubtError("lost", key=key, request=flux.Txt2Img(prompt="a"), since=1.0), key=key
    ),
}


class TestLedger:
    """`piapi-async ledger`."""

    def test_show(self, ground: Ground) -> None:
        """Jobs by their states, what they cost, and what is in doubt since when, for people and for machines."""
        ground.faults.next("create", "cut-after-accept")
        ground("batch", bears(3), "--on-doubt", "skip")
        shown = ground("ledger", "show", "ledger.db")
        facts = [line.split() for line in shown.stdout.splitlines()]
        assert shown.exit_code == 0
        assert facts[:4] == [["jobs", "3"], ["in", "doubt", "1"], ["completed", "2"], ["USD", "0.0045"]]
        assert " (bear 0)" in shown.stdout.splitlines()[4]
        assert shown.stdout.splitlines()[5].startswith("  why: the answer to its submit was lost: lost the connection")
        assert shown.stdout.splitlines()[6].endswith("a task may exist and may be billed")
        machine = json.loads(ground("ledger", "show", "ledger.db", "--json").stdout)
        (doubt,) = machine["in_doubt"]
        assert (machine["jobs"]["completed"], machine["unsaved"], doubt["attempts"]) == (2, 0, 1)
        assert doubt["since"].startswith("20")

    def test_why_a_doubt_stays(self, ground: Ground) -> None:
        """After `--on-doubt reconcile` each doubt says why it stays; once it is settled nothing says so any longer."""
        ground.emulator.set(history_lag=200.0)
        ground.faults.next("create", "cut-after-accept")
        ground.faults.next("create", "cut-before-accept")
        ground("batch", bears(2), "--max-in-flight", "1", "--on-doubt", "skip")
        ground("batch", bears(2))
        doubts = json.loads(ground("ledger", "show", "ledger.db", "--json").stdout)["in_doubt"]
        assert [doubt["why"] for doubt in doubts] == [
            "no task of it is listed, which does not prove that there is none"
        ] * 2
        ground.emulator.set(history_lag=0.0)
        told = ground("batch", bears(2), "--report", "r.html")
        assert told.exit_code == 1
        lines = [json.loads(line) for line in ground("ledger", "export", "ledger.db").stdout.splitlines()]
        assert [(line["state"], line["error"]) for line in lines] == [
            ("completed", None),
            ("in_doubt", doubts[1]["why"]),
        ]
        reason = "no task of it is listed, which does not prove that there is none: a task may exist and may be billed"
        with Path("jobs.jsonl").open("rb") as file:
            jobs = JobsFile(file=file, name="jobs", format="jsonl", folder=Path(), out=Path("out"))
            assert [row.reason for row in report_rows(jobs, ledger=Path("ledger.db"), reasons={})] == ["", reason]

    def test_what_a_killed_batch_left(self, ground: Ground) -> None:
        """What a process was submitting when it was killed is in doubt; what one that lives submits now is not."""
        bear = asyncio.run(content_of(flux.Txt2Img(prompt="a bear")))
        code = "from piapi_async._process import new_owner; print(new_owner())"
        gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

        async def submit(key: str, *, owner: str) -> None:
            async with SQLiteLedger("ledger.db") as ledger:
                await ledger.claim(bear, key=key, owner=owner, save=True)
                await ledger.send(key, owner=owner, token=None, points=1, limit=None)

        asyncio.run(submit("old", owner=gone))
        asyncio.run(submit("new", owner=new_owner()))
        told = json.loads(ground("ledger", "show", "ledger.db", "--json").stdout)
        assert told["jobs"]["submitting"] == 2
        (doubt,) = told["in_doubt"]
        assert (doubt["key"], doubt["why"]) == ("old", "the process that submitted it ended before the answer came")

    def test_many_doubts(self, ground: Ground) -> None:
        """Of many doubts twenty are shown."""
        with ground.faults.always("create", "cut-after-accept"):
            ground("batch", bears(23), "--on-doubt", "skip")
        assert "in doubt: and 3 more" in ground("ledger", "show", "ledger.db").stdout.splitlines()

    def test_nothing_in_doubt(self, ground: Ground) -> None:
        """An empty ledger has no jobs."""
        Path("ledger.db").touch()
        assert ground("ledger", "show", "ledger.db").stdout == "jobs        0\nUSD         0.0000\n"

    def test_no_ledger(self, ground: Ground) -> None:
        """A file that is none is one line."""
        result = ground("ledger", "show", bears(3))
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)

    def test_help(self, ground: Ground) -> None:
        """Alone it says what there is."""
        assert "forget" in ground("ledger").stdout

    def test_export(self, ground: Ground) -> None:
        """JSON lines and CSV hold the same jobs."""
        ground("batch", bears(3))
        lines = [json.loads(line) for line in ground("ledger", "export", "ledger.db").stdout.splitlines()]
        text = ground("ledger", "export", "ledger.db", "--format", "csv").stdout
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [line["input"]["prompt"] for line in lines] == ["bear 0", "bear 1", "bear 2"]
        assert [(row["key"], json.loads(row["input"])) for row in rows] == [(it["key"], it["input"]) for it in lines]
        assert [json.loads(row["paths"]) for row in rows] == [it["paths"] for it in lines]

    def test_forget(self, ground: Ground) -> None:
        """A job that was forgotten is submitted and paid for again; the sum keeps what it cost."""
        ground("batch", bears(1, key="k"))
        result = ground("ledger", "forget", "ledger.db", "k")
        assert (result.exit_code, result.stdout) == (
            0,
            "forgot k; the same request is a new job now, and is paid for again\n",
        )
        assert summed(ground("batch", "jobs.jsonl", "--json"))["usd"] == 0.003
        assert len(ground.emulator.charges) == 2

    def test_forget_what_may_be_billed(self, ground: Ground) -> None:
        """What is in flight or in doubt is forgotten by force only, and then nothing of the call was done."""
        ground.faults.next("create", "cut-after-accept")
        ground("batch", bears(1, key="doubt"), "--on-doubt", "skip")
        ground("batch", bears(1, key="flight"), "--deadline", "1")
        for key, what in (("doubt", "in doubt"), ("flight", "in flight")):
            result = ground("ledger", "forget", "ledger.db", key)
            assert (result.exit_code, result.stdout) == (2, "")
            assert result.stderr.startswith(f"error: job '{key}' is {what}: its task may be billed, ")
        assert ground("ledger", "forget", "ledger.db", "nope").stderr == "error: the ledger has no job 'nope'\n"
        assert ground("ledger", "forget", "ledger.db", "doubt", "flight", "--force").exit_code == 0
        assert ground("ledger", "show", "ledger.db").stdout.splitlines()[0] == "jobs        0"


# How JOBS is read.


def reading(content: bytes, *, format: str = "jsonl", folder: Path = Path()) -> JobsFile:  # noqa: A002 - as the option
    """Jobs that are in memory."""
    return JobsFile(file=io.BytesIO(content), name="jobs", format=format, folder=folder, out=folder / "out")


def read(content: bytes, **more: Any) -> Sequence[Order | MistakeError]:
    """All that it holds; what it warns of does not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(reading(content, **more).read())


def wrong(content: bytes, **more: Any) -> str:
    """The only mistake."""
    (found,) = read(content, **more)
    assert isinstance(found, MistakeError)
    return str(found)


def line(**fields: Any) -> bytes:
    """A line with a prompt and an image, and these."""
    given = {"prompt": "a bear", "image": LINK, **fields}
    return json.dumps({name: value for name, value in given.items() if value is not ...}).encode()


@given(content=st.binary(max_size=300), format=st.sampled_from(["jsonl", "csv"]))
def test_any_bytes(content: bytes, format: str) -> None:  # noqa: A002 - as the option
    """Whatever a file holds, each line is a job or one sentence with its number, and nothing else happens."""
    check_lines(read(content, format=format), lines=content.count(b"\n") + 1)


WORDS = st.sampled_from(
    ["a", "canny:x", "mjv6:0.5", "photos/*", "[", "\0*", "img2img", LINK, "data:,", "k" * 300, "\ud800"]
)
OBJECTS = st.dictionaries(st.sampled_from([*COLUMNS, "lora_type", "odd"]), WORDS | JSON, max_size=5)


@given(objects=st.lists(st.dictionaries(st.sampled_from(COLUMNS), WORDS | OBJECTS | JSON, max_size=6), max_size=4))
def test_any_objects(objects: list[dict[str, Any]]) -> None:
    """Whatever the fields hold, the same."""
    content = "\n".join(map(json.dumps, objects)).encode()
    check_lines(read(content), lines=len(objects))


@given(
    rows=st.lists(st.lists(WORDS | st.text(max_size=9), min_size=3, max_size=3), max_size=4),
    names=st.permutations(COLUMNS),
)
def test_any_cells(rows: list[list[str]], names: list[str]) -> None:
    """Whatever the cells hold, the same."""
    text = io.StringIO()
    csv.writer(text).writerows([names[:3], *rows])
    content = text.getvalue().encode(errors="surrogatepass")
    check_lines(read(content, format="csv"), lines=content.count(b"\n") + 1)


def check_lines(found: Sequence[Order | MistakeError], *, lines: int) -> None:
    """Every line is told at most once as a mistake, by a number that is one, in one line."""
    for item in found:
        if isinstance(item, MistakeError):
            name, number, why = str(item).split(":", 2)
            assert name == "jobs"
            assert 1 <= int(number) <= lines
            assert why.strip().isprintable()
        else:
            assert 1 <= item.number <= lines


REQUESTS: dict[str, dict[str, Any]] = {
    "img2img": {"image": LINK, "denoise": 0.5, "batch_size": 2, "negative_prompt": "blur"},
    "img2img-lora": {"image": LINK, "lora": flux.LoRA("mjv6", strength=0.8), "steps": 20},
    "controlnet-lora": {"control_net": flux.ControlNet("canny", image=LINK), "guidance_scale": 2.5},
    "txt2img": {"width": 512, "height": 256, "model": flux.DEV},
    "txt2img-lora": {"lora": flux.LoRA("mjv6")},
    "fill-inpaint": {"image": LINK},
    "fill-outpaint": {"image": LINK, "left": 10},
    "redux-variation": {"image": LINK, "service_mode": "public"},
    "kontext": {"image": LINK, "seed": -1, "steps": 40},
}


@pytest.mark.parametrize("format", ["jsonl", "csv"])
@pytest.mark.parametrize("task_type", REQUESTS)
def test_every_kind(task_type: str, format: str) -> None:  # noqa: A002 - as the option
    """Each request of the family can be written in either format."""
    request = KINDS[task_type](prompt="a bear", **REQUESTS[task_type])
    fields = {name: spelt(value) for name, value in {"prompt": "a bear", **REQUESTS[task_type]}.items()}
    fields["task_type"] = task_type
    text = io.StringIO()
    writer = csv.DictWriter(text, fields)
    writer.writeheader()
    writer.writerow(fields)
    content = text.getvalue() if format == "csv" else json.dumps(fields)
    (order,) = read(content.encode(), format=format)
    assert isinstance(order, Order)
    assert order.request == request
    assert set(REQUESTS) == set(KINDS)


def spelt(value: Any) -> Any:
    """A LoRA or a ControlNet as one text."""
    if isinstance(value, flux.LoRA):
        return value.lora_type if value.strength is None else f"{value.lora_type}:{value.strength}"
    return f"{value.control_type}:{value.image}" if isinstance(value, flux.ControlNet) else value


def test_objects_for_parts(tmp_path: Path) -> None:
    """A LoRA and a ControlNet may be objects, whose pictures are beside the file too."""
    shutil.copy(CAT, tmp_path / "edges.jpg")
    control = {"control_type": "canny", "image": "edges.jpg", "strength": 0.5, "return_preprocessed_image": True}
    content = line(image=None, control_net=control, lora={"lora_type": "mjv6", "strength": None})
    (order,) = read(content, folder=tmp_path)
    assert isinstance(order, Order)
    net = flux.ControlNet("canny", image=tmp_path / "edges.jpg", strength=0.5, return_preprocessed_image=True)
    assert order.request == flux.ControlNetLora(prompt="a bear", control_net=net, lora=flux.LoRA("mjv6"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            b"{",
            "no JSON: Expecting property name enclosed in double quotes at column 2; each line must be one whole JSON",
        ),
        (b"[]", "a line must be a JSON object, got []"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"prompt": "\xff"}', "it is no UTF-8 text"),
        (b'{"prompt": NaN}', "NaN is no JSON"),
        (b'{"prompt": "a", "prompt": "b"}', "'prompt' is given twice"),
        (line(style="oil"), "'style' is no field of task type 'img2img'; allowed are prompt, "),
        (line(steps=3), "'steps' is no field of task type 'img2img'"),
        (line(prompt=...), "prompt is missing; task type 'img2img' needs it"),
        (line(task_type="video"), "task_type must be one of img2img, "),
        (line(task_type=3), "task_type must be one of img2img, "),
        (line(model="sdxl"), "model must be "),
        (line(model=3), "model must be "),
        (line(key=""), "key must be a printable string that is not blank, got ''"),
        (line(key=3), "key must be a string, got 3"),
        (line(image=3), "image must be a file, an http(s) URL or a data URI, got 3"),
        (line(image="data:text/plain,a"), "image must be "),
        (line(image="none/*.jpg"), "image 'none/*.jpg' finds no file"),
        (line(lora=":1"), "lora must be NAME or NAME:STRENGTH, such as mjv6 or mjv6:0.8, got ':1'"),
        (line(lora="mjv6:strong"), "lora must be NAME or NAME:STRENGTH, such as mjv6 or mjv6:0.8, got 'mjv6:strong'"),
        (line(control="canny:a.png"), "control_net image 'a.png' is neither a file nor an http(s) URL"),
        (line(control_net={"control_type": "canny", "image": 3}), "control_net image must be a file, "),
        (line(images="a.png"), "'images' is no field of task type 'img2img' (did you mean 'image'?); allowed are "),
        (line(lora=3), "lora must be a text or an object, got 3"),
        (line(lora={"strength": 1}), "lora_type is missing; lora needs it"),
        (line(lora={"name": "a"}), "'name' is no field of lora; allowed are lora_type, strength, image"),
        (line(control="canny"), "control_net 'canny' is not TYPE:IMAGE; write for example canny:edges.png"),
        (line(control_net=3), "control_net must be a text or an object, got 3"),
        (line(control="a:b", control_net="a:b"), "control and control_net are two names of the same; give one"),
    ],
)
def test_what_is_no_job(content: bytes, why: str) -> None:
    """Each mistake has its sentence, and the line's number."""
    assert wrong(b"\n" + content + b"\n\n").startswith(f"jobs:2: {why}")


@pytest.mark.parametrize(
    ("content", "where", "why"),
    [
        (
            b"prompt,style\na,b\n",
            1,
            "the first line must name the columns, and 'style' is none; allowed are key, task_type, ",
        ),
        (
            b"Prompt,image\na,b\n",
            1,
            "the first line must name the columns, and 'Prompt' is none (did you mean 'prompt'?); ",
        ),
        (b"prompt;image\na;b\n", 1, "its columns must be separated by ',', got ';' in 'prompt;image'"),
        (b"bear\n", 1, "the first line must name the columns, and 'bear' is none; allowed are "),
        (
            b"prompt,image\na, b,c\n",
            2,
            "it has 3 cells, and the first line has 2 names; a text with a comma in it must ",
        ),
        (b"prompt,prompt\na,b\n", 1, "column 'prompt' is there twice"),
        (b"\xff,prompt\n", 1, "it is no UTF-8 text"),
        (b"prompt,image\n\n'a\n", 3, "it has 1 cells, and the first line has 2 names"),
        (b'prompt,image\n"a\nb"c,d\n', 2, "no CSV: "),
        (b"prompt,image\n\xff,b\n", 2, "it is no UTF-8 text"),
        (b"prompt,image,denoise\na,https://example.com/a.jpg,nan\n", 2, "denoise must be a finite number > 0"),
    ],
)
def test_what_is_no_row(content: bytes, where: int, why: str) -> None:
    """The same for CSV; a mistake in the first line is the only one."""
    assert wrong(content, format="csv").startswith(f"jobs:{where}: {why}")


def test_spreadsheets_write_a_mark_first() -> None:
    """A byte order mark is no part of the first name."""
    (order,) = read(f"\ufeffprompt , image\r\n a ,{LINK}\r\n".encode(), format="csv")
    assert isinstance(order, Order)
    assert order.request == flux.Img2Img(prompt="a", image=LINK)


def test_pictures_are_beside_the_file(tmp_path: Path) -> None:
    """A path begins at the file's folder, a file's own name is no pattern, and only pictures are taken."""
    shutil.copy(CAT, tmp_path / "a[1].jpg")
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    (order,) = read(line(image="a[1].jpg"), folder=tmp_path)
    assert isinstance(order, Order)
    assert order.request == flux.Img2Img(prompt="a bear", image=tmp_path / "a[1].jpg")
    assert "image 'a.txt' is no picture (PNG, " in wrong(line(image="a.txt"), folder=tmp_path)
    assert wrong(line(image="b.jpg"), folder=tmp_path).endswith(f" URL; files are looked for in {tmp_path}")


def test_patterns(tmp_path: Path) -> None:
    """A pattern finds files in order; it has no key, and does not find the results of an earlier run."""
    for name in ("c", "a", "b"):
        (tmp_path / "deep" / name).mkdir(parents=True)
        shutil.copy(CAT, tmp_path / "deep" / name / "x.jpg")
    found = read(line(image="**/*.jpg"), folder=tmp_path)
    assert [Path(str(it.request.input["image"])).parent.name for it in found if isinstance(it, Order)] == [
        "a",
        "b",
        "c",
    ]
    assert "cannot be that of all files of the pattern" in wrong(line(image="**/*.jpg", key="k"), folder=tmp_path)
    (tmp_path / "out").mkdir()
    shutil.copy(CAT, tmp_path / "out")
    assert len(read(line(image="**/*.jpg"), folder=tmp_path)) == 3
    with pytest.warns(UserWarning, match="leaves out what is in .*out, where the results go"):
        assert len(list(reading(line(image="**/*.jpg"), folder=tmp_path).read())) == 3
    assert "out, where the results go; choose another --out" in wrong(line(image="*/*.jpg"), folder=tmp_path)


def test_reading_again_gives_the_same() -> None:
    """A file is read from the front each time."""
    jobs = reading(line() + b"\n" + line(key="k"))
    assert [attrs.asdict(order, recurse=False) for order in jobs.orders()] == [
        attrs.asdict(order, recurse=False) for order in jobs.orders()
    ]
