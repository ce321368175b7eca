"""The command line, in this process: an emulator lives in the event loop of each command, whose time jumps."""

import asyncio
import base64
import functools
import io
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image as Picture
from support import raw_server
from support.ground import CAT, Ground
from support.strategies import DEEP

from piapi_async import __main__ as entry
from piapi_async import events
from piapi_async._text import one_line
from piapi_async.account import Account
from piapi_async.cli import img2img, program
from piapi_async.cli._errors import Program, spoken
from piapi_async.cli._interrupt import Interrupted, Setting, run
from piapi_async.cli._summary import Fates
from piapi_async.cli._task import as_json, balance, summary
from piapi_async.errors import AuthenticationError, Hint, UnexpectedResponseError, WaitTimeoutError
from piapi_async.task import Image, TaskInfo, TaskStatus

PNG = b"\x89PNG\r\n\x1a\n"


pytestmark = pytest.mark.usefixtures("heed_ctrl_c")


def line(result: Result) -> str:
    """What stands on stderr, which must be one line."""
    (only,) = result.stderr.splitlines()
    return only


class TestImg2Img:
    """`piapi-async img2img`."""

    def test_saves_and_prints(self, ground: Ground, tmp_path: Path) -> None:
        """The picture is in the folder, its path alone on stdout, and the task's id on stderr from the beginning."""
        result = ground("img2img", CAT, "a bear", "--out", "new/folder")
        path = Path(result.stdout.strip())
        assert result.exit_code == 0
        assert path == Path("new/folder") / f"{ground.task.task_id}.png"
        assert (tmp_path / path).read_bytes().startswith(PNG)
        assert line_with(result.stderr, "submitted").startswith(f"task {ground.task.task_id} submitted")

    def test_lines_on_no_terminal(self, ground: Ground) -> None:
        """Without a terminal there is one line for each new status, and none for a poll that shows nothing new."""
        result = ground("img2img", CAT, "a bear")
        assert [text.split()[-1] for text in result.stderr.splitlines()[1:]] == ["processing", "completed"]

    def test_live_on_a_terminal(self, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal one line lives instead, and is gone at the end."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TTY_INTERACTIVE", "1")
        result = ground("img2img", CAT, "a bear")
        assert result.exit_code == 0
        assert "completed, 3 polls" in result.stderr
        assert result.stderr.rstrip().endswith("\x1b[2K")

    def test_sends_all_options(self, ground: Ground) -> None:
        """Every option reaches the service, numbers as numbers, and the short name of a model stands for the long."""
        options = "--negative-prompt blur --denoise 0.5 --guidance-scale 3 --batch-size 2 --model schnell"
        options += " --service-mode public --webhook https://example.com/hook"
        result = ground("img2img", CAT, "a bear", *options.split())
        task = ground.task
        sent = {name: task.input[name] for name in ("negative_prompt", "denoise", "guidance_scale", "batch_size")}
        assert result.exit_code == 0
        assert (task.model, task.task_type) == ("Qubico/flux1-schnell", "img2img")
        assert sent == {"negative_prompt": "blur", "denoise": 0.5, "guidance_scale": 3.0, "batch_size": 2}
        assert task.config["service_mode"] == "public"
        assert task.config["webhook_config"]["endpoint"] == "https://example.com/hook"
        assert len(result.stdout.splitlines()) == 2

    @pytest.mark.parametrize("model", ["dev", "Qubico/flux1-dev"])
    def test_model_names(self, ground: Ground, model: str) -> None:
        """A model may be named with or without its family."""
        assert ground("img2img", CAT, "a bear", "--model", model).exit_code == 0
        assert ground.task.model == "Qubico/flux1-dev"

    @pytest.mark.parametrize(
        ("options", "task_type"),
        [
            (["--lora", "anime"], "img2img-lora"),
            (["--lora", "anime:0.5"], "img2img-lora"),
            (["--control", f"canny:{CAT}"], "controlnet-lora"),
            (["--control", "depth:https://example.com/a.png", "--lora", "anime:1"], "controlnet-lora"),
        ],
    )
    def test_task_type_follows(self, ground: Ground, options: list[str], task_type: str) -> None:
        """The task type follows from --lora and --control."""
        assert ground("img2img", "https://example.com/a.jpg", "a bear", *options).exit_code == 0
        assert ground.task.task_type == task_type

    def test_strength(self, ground: Ground) -> None:
        """NAME:STRENGTH gives the LoRA its strength."""
        ground("img2img", CAT, "a bear", "--lora", "anime:0.5")
        assert ground.task.input["lora_settings"] == [{"lora_type": "anime", "lora_strength": 0.5}]

    def test_unknown_lora_warns_calmly(self, ground: Ground) -> None:
        """An unknown LoRA is sent, and one line warns of it."""
        result = ground("img2img", CAT, "a bear", "--lora", "animee")
        assert result.exit_code == 0
        assert result.stderr.splitlines()[0].startswith("warning: lora_type 'animee' is not among the names")

    def test_on_the_emulator(self, ground: Ground) -> None:
        """--emulator needs no service and no key."""
        result = ground("img2img", CAT, "a bear", "--emulator")
        assert result.exit_code == 0
        assert Path(result.stdout.strip()).exists()
        assert not ground.emulator.tasks

    def test_each_on_an_emulator_of_its_own(self, ground: Ground) -> None:
        """Two commands on the emulator leave two pictures, neither in the other's place."""
        paths = [ground("img2img", CAT, "a bear", "--emulator").stdout for _ in range(2)]
        assert len(set(paths)) == 2

    def test_json(self, ground: Ground) -> None:
        """--json prints one line with all there is to tell: ids, times, cost, links and files."""
        result = ground("img2img", CAT, "a bear", "--json", "--batch-size", "2")
        (only,) = result.stdout.splitlines()
        told = json.loads(only)
        assert (told["task_id"], told["status"], told["points"]) == (ground.task.task_id, "completed", 30000)
        assert (told["model"], told["task_type"], told["usd"]) == ("Qubico/flux1-schnell", "img2img", 0.003)
        assert [Path(file).read_bytes()[:8] for file in told["files"]] == [PNG, PNG]
        assert all(link.startswith(ground.emulator.url) for link in told["images"])
        assert told["created_at"] < told["started_at"] < told["ended_at"]

    def test_spend_limit(self, ground: Ground) -> None:
        """--max-spend refuses what may cost more, before anything is submitted."""
        result = ground("img2img", CAT, "a bear", "--model", "dev", "--max-spend", "0.01")
        assert (result.exit_code, ground.emulator.tasks) == (1, {})
        assert "costs about 0.0150 USD" in line(result)

    def test_no_pillow(self, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
        """--emulator without Pillow says how to get it."""
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
        result = ground("img2img", CAT, "a bear", "--emulator")
        assert result.exit_code == 2
        assert line(result) == "error: pictures need Pillow: pip install pillow"

    def test_folder_that_cannot_be_made(self, ground: Ground, tmp_path: Path) -> None:
        """Where no folder can be made nothing is submitted, as it would be paid for in vain."""
        (tmp_path / "file").touch()
        result = ground("img2img", CAT, "a bear", "--out", "file/folder")
        assert (result.exit_code, line(result)) == (1, "error: file/folder: Not a directory")
        assert not ground.emulator.tasks

    def test_save_fails(self, ground: Ground) -> None:
        """When the picture cannot be saved, the line tells how to get it: it is paid for."""
        ground.faults.next("result", "404", times=4)  # a picture that is seconds old is asked for four times
        result = ground("img2img", CAT, "a bear")
        end = f"is completed and paid for, 'piapi-async task wait {ground.task.task_id} --out DIR' saves its pictures"
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].endswith(end)

    def test_retry_is_told(self, ground: Ground) -> None:
        """A submit that is tried again is told, once."""
        ground.faults.next("create", "429")
        result = ground("img2img", CAT, "a bear")
        assert result.exit_code == 0
        assert result.stderr.count("submit again in") == 1

    def test_lost_answer(self, ground: Ground) -> None:
        """A submit in doubt is one line, told once, and the exit code is 1."""
        ground.faults.next("create", "cut-after-accept")
        result = ground("img2img", CAT, "a bear")
        assert result.exit_code == 1
        assert "may exist and may be billed" in line(result)

    def test_task_fails(self, ground: Ground) -> None:
        """A failed task gives exit code 1 and the service's reason."""
        ground.faults.next("create", "task-fails", reason="no\nmemory \x1b[31m")
        result = ground("img2img", CAT, "a bear")
        told = f"error: task {ground.task.task_id} failed: no memory \N{REPLACEMENT CHARACTER}[31m"
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, told)


def line_with(text: str, word: str) -> str:
    """The only line that holds the word."""
    (found,) = (text_line for text_line in text.splitlines() if word in text_line)
    return found


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nope"], "No such command 'nope'; see 'piapi-async --help'"),
        (["img2img"], "Missing argument 'IMAGE'; see 'piapi-async img2img --help'"),
        (["img2img", "nope.png", "x"], "'nope.png' is neither a file nor an http(s) URL"),
        (["img2img", CAT, " "], "error: PROMPT must be a text that is not blank, got ' '"),
        (["img2img", CAT, "x", "--denoise", "7"], "error: --denoise must be a finite number > 0 and <= 1, got 7.0"),
        (["img2img", CAT, "x", "--denoise", "much"], "'much' is not a number"),
        (["img2img", CAT, "x", "--model", "sdxl"], "'sdxl' is not one of schnell, dev, dev-advanced"),
        (["img2img", CAT, "x", "--lora", ":1"], "':1' names no LoRA"),
        (["img2img", CAT, "x", "--lora", "anime:"], "'' is not a number"),
        (["img2img", CAT, "x", "--control", "canny"], "'canny' is not TYPE:IMAGE"),
        (["img2img", CAT, "x", "--lora", "anime", "--batch-size", "2"], "works without --lora and --control only"),
        (["img2img", CAT, "x", "--webhook", "me"], "endpoint must be an http(s) URL, got 'me'"),
        (["img2img", CAT, "x", "--timeout", "-1"], "'-1' is less than 0 seconds"),
        (["img2img", __file__, "x"], "must be a picture"),
        (["task", "get", "."], "task_id must be a task's id, got '.'"),
    ],
)
def test_misuse(ground: Ground, args: list[str], told: str) -> None:
    """What cannot be asked for is one line on stderr that names it, exit code 2, and nothing is submitted."""
    result = ground(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert line(result).startswith("error: ")
    assert told in line(result)
    assert not ground.emulator.tasks


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the line says where keys are made, in the words of the command line."""
    monkeypatch.delenv("PIAPI_API_KEY", raising=False)
    result = CliRunner().invoke(program, ["task", "get", "x"])
    told = "error: no API key: set PIAPI_API_KEY; keys are made at https://piapi.ai/workspace"
    assert (result.exit_code, line(result)) == (2, told)


@pytest.mark.parametrize("args", [[], ["task"]])
def test_help_alone(args: list[str]) -> None:
    """A command group alone shows its help."""
    result = CliRunner().invoke(program, args)
    assert (result.exit_code, result.stdout[:18]) == (0, "Usage: piapi-async")


def test_version() -> None:
    """--version is the package's."""
    from piapi_async import __version__

    assert CliRunner().invoke(program, ["--version"]).stdout == f"piapi-async {__version__}\n"


class TestTask:
    """`piapi-async task`."""

    def test_get(self, ground: Ground) -> None:
        """`get` prints one fact a line."""
        task_id = ground.submitted()
        lines = ground("task", "get", task_id).stdout.splitlines()
        facts = dict(text.split(maxsplit=1) for text in lines)
        assert list(facts) == ["task", "status", "model", "type", "created", "started", "ended", "cost", "picture"]
        assert (facts["task"], facts["status"]) == (task_id, "completed")
        assert facts["cost"] == "15,000 points (0.0015 USD)"
        assert facts["created"].endswith(" UTC")
        assert facts["picture"].startswith("http://127.0.0.1:")

    def test_get_failed(self, ground: Ground) -> None:
        """A poll of a failed task is a success: exit code 0, and the reason among the facts."""
        ground.faults.next("create", "task-fails", reason="no memory")
        ground("img2img", CAT, "a bear")
        result = ground("task", "get", ground.task.task_id)
        assert result.exit_code == 0
        assert "error    no memory" in result.stdout.splitlines()

    def test_get_pending(self, ground: Ground) -> None:
        """Facts that do not exist yet have no line."""
        result = ground("task", "get", ground.pending())
        assert [text.split()[0] for text in result.stdout.splitlines()] == [
            "task", "status", "model", "type", "created", "cost",
        ]  # fmt: skip

    def test_get_json(self, ground: Ground) -> None:
        """--json is what the service sent."""
        task_id = ground.submitted()
        sent = json.loads(ground("task", "get", task_id, "--json").stdout)
        assert (sent["task_id"], sent["status"]) == (task_id, "completed")
        assert sent["logs"] == []

    def test_json_that_is_nested_too_deep(self) -> None:
        """What is nested too deep to be printed is an error of the service, not a traceback."""
        raw: dict[str, object] = functools.reduce(lambda inner, _: {"a": inner}, range(DEEP), {})
        with pytest.raises(UnexpectedResponseError, match=r"^task t is nested too deep to be printed$"):
            as_json(TaskInfo(task_id="t", status=TaskStatus.COMPLETED, raw=raw))

    def test_json_without_secrets(self) -> None:
        """The webhook's secret is not printed, wherever it stands; one that is empty is."""
        raw = {"config": {"webhook_config": {"secret": "s3cret"}}, "list": [{"secret": ""}]}
        info = TaskInfo(task_id="a", status=TaskStatus.PENDING, raw=raw)
        shown = {"config": {"webhook_config": {"secret": "***"}}, "list": [{"secret": ""}]}
        assert json.loads(as_json(info)) == shown

    def test_pictures_inside_the_answer(self) -> None:
        """A picture inside the answer is not poured over the terminal, nor is a cost that nobody told."""
        info = TaskInfo(task_id="a", status=TaskStatus.COMPLETED, images=(Image("data:image/png;base64,AAAA"),))
        assert summary(info).splitlines() == [
            "task     a",
            "status   completed",
            "picture  inside the answer; 'piapi-async task wait a --out DIR' saves its pictures",
        ]

    def test_get_unknown(self, ground: Ground) -> None:
        """A task the service does not know is one line and exit code 1."""
        result = ground("task", "get", "nope")
        assert result.exit_code == 1
        assert "task not found" in line(result)

    def test_wait_prints_links(self, ground: Ground) -> None:
        """`wait` goes on to the end and prints the links."""
        task_id = ground.pending()
        result = ground("task", "wait", task_id)
        assert (result.exit_code, ground.task.status) == (0, "completed")
        assert result.stdout.startswith(ground.emulator.url)

    def test_wait_saves(self, ground: Ground) -> None:
        """`wait --out` saves the pictures and prints the files."""
        task_id = ground.submitted()
        result = ground("task", "wait", task_id, "--out", "pictures")
        assert result.stdout == f"pictures/{task_id}.png\n"
        assert Path(result.stdout.strip()).exists()

    def test_wait_json(self, ground: Ground) -> None:
        """`wait --json` tells the links, and that nothing was saved."""
        task_id = ground.submitted()
        told = json.loads(ground("task", "wait", task_id, "--json").stdout)
        assert (told["task_id"], told["files"], len(told["images"])) == (task_id, None, 1)

    def test_wait_times_out(self, ground: Ground) -> None:
        """At the time limit the line says which command resumes the wait."""
        task_id = ground.pending()
        result = ground("task", "wait", task_id, "--timeout", "1")
        told = f"error: task {task_id} still processing after 1 s; resume with 'piapi-async task wait {task_id}'"
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, told)

    def test_cancel(self, ground: Ground) -> None:
        """`cancel` cancels a pending task and shows it."""
        task_id = ground.pending()
        result = ground("task", "cancel", task_id)
        assert result.exit_code == 0
        assert "status   canceled" in result.stdout.splitlines()

    def test_cancel_refused(self, ground: Ground) -> None:
        """A cancel the service refuses is one line and exit code 1."""
        task_id = ground.submitted()
        result = ground("task", "cancel", task_id)
        assert result.exit_code == 1
        assert "only a pending task can be canceled" in line(result)


class TestCtrlC:
    """What Ctrl-C says."""

    def test_while_waiting(self, ground: Ground) -> None:
        """The task goes on; its id, and the command that finds it again, are said once."""
        ground.interrupt(after=3.0)
        result = ground("img2img", CAT, "a bear")
        again = f"'piapi-async task wait {ground.task.task_id}' finds it again"
        told = ["interrupted", f"task {ground.task.task_id} goes on and may be billed; {again}"]
        assert (result.exit_code, result.stdout) == (130, "")
        assert result.stderr.splitlines()[-2:] == told
        assert ground.left == []

    def test_on_cancel_cancel(self, ground: Ground) -> None:
        """With --on-cancel cancel a pending task is cancelled, and that is said."""
        ground.interrupt(after=0.5)
        result = ground("img2img", CAT, "a bear", "--on-cancel", "cancel")
        assert (result.exit_code, ground.task.status) == (130, "canceled")
        assert result.stderr.splitlines()[-2:] == ["interrupted", f"task {ground.task.task_id} was cancelled"]

    def test_on_cancel_refused(self, ground: Ground) -> None:
        """Where the service refuses to cancel, the task is said to go on."""
        ground.interrupt(after=3.0)
        result = ground("img2img", CAT, "a bear", "--on-cancel", "cancel")
        assert f"task {ground.task.task_id} could not be cancelled, goes on and may be billed" in result.stderr

    def test_task_seen_to_fail(self) -> None:
        """A task whose end was seen is not said to go on."""
        fates = Fates(print)
        fates(events.Polled(info=TaskInfo(task_id="a", status=TaskStatus.FAILED)))
        assert list(fates.farewell(at_rest=True)) == ["task a is failed; 'piapi-async task get a' tells more"]

    def test_while_submitting(self, ground: Ground) -> None:
        """During a submit the answer is awaited, with a word about it, and the task is not lost."""
        ground.faults.next("create", "slow-headers", seconds=5.0)
        ground.interrupt(after=1.0)
        result = ground("img2img", CAT, "a bear")
        told = result.stderr.splitlines()
        assert result.exit_code == 130
        assert told[0].startswith("stopping; ")
        assert told[1].startswith(f"task {ground.task.task_id} submitted")
        assert told[2] == "interrupted"
        assert told[3].startswith(f"task {ground.task.task_id} goes on")

    def test_answer_never_comes(self, ground: Ground) -> None:
        """When the answer does not come within 10 s, the doubt is said, once."""
        ground.faults.next("create", "stall")
        ground.interrupt(after=1.0)
        result = ground("img2img", CAT, "a bear")
        assert result.exit_code == 130
        assert result.stderr.count("may exist and may be billed") == 1
        assert ground.left == []

    def test_twice(self, ground: Ground) -> None:
        """A second Ctrl-C leaves at once, and says that a submit was under way."""
        ground.faults.next("create", "stall")
        ground.interrupt(after=1.0)
        ground.interrupt(after=2.0)
        result = ground("img2img", CAT, "a bear")
        told = "a submit was under way: a task may exist and may be billed; look at https://piapi.ai/workspace"
        assert (result.exit_code, ground.left) == (130, [130])
        assert result.stderr.splitlines()[-2:] == ["interrupted", told]

    def test_before_anything(self, ground: Ground) -> None:
        """Where nothing was sent, that is said."""
        ground.faults.next("create", "429", retry_after=30)
        ground.interrupt(after=5.0)
        result = ground("img2img", CAT, "a bear")
        assert result.stderr.splitlines()[-2:] == ["interrupted", "nothing was submitted"]

    def test_while_saving(self, ground: Ground) -> None:
        """A completed task whose pictures were not saved yet is said to be completed, and how to save them."""
        ground.faults.next("result", "stall")
        ground.interrupt(after=30.0)
        result = ground("img2img", CAT, "a bear")
        saves = f"'piapi-async task wait {ground.task.task_id} --out DIR' saves its pictures"
        assert result.stderr.splitlines()[-1] == f"task {ground.task.task_id} is completed; {saves}"

    def test_on_the_emulator(self, ground: Ground) -> None:
        """With --emulator nothing goes on and nothing was paid."""
        ground.interrupt(after=2.0)
        result = ground("img2img", CAT, "a bear", "--emulator")
        told = "the emulator is gone, and its tasks with it; nothing was paid"
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, told)

    def test_task_wait(self, ground: Ground) -> None:
        """A task that was not seen yet is known by its id all the same."""
        ground.faults.next("get", "stall")
        ground.interrupt(after=1.0)
        result = ground("task", "wait", "3f2a")
        assert result.stderr.splitlines()[-1].startswith("task 3f2a goes on and may be billed")

    def test_task_get(self, ground: Ground) -> None:
        """A poll leaves nothing behind."""
        ground.faults.next("get", "stall")
        ground.interrupt(after=1.0)
        result = ground("task", "get", "3f2a")
        assert (result.exit_code, line(result)) == (130, "interrupted")

    def test_task_cancel(self, ground: Ground) -> None:
        """After a cancel whose answer did not come, the line says how to find out."""
        ground.faults.next("cancel", "stall")
        ground.interrupt(after=1.0)
        told = ["interrupted", "'piapi-async task get 3f2a' tells whether the task was cancelled"]
        assert ground("task", "cancel", "3f2a").stderr.splitlines() == told

    def test_error_while_stopping(self, ground: Ground) -> None:
        """What goes wrong while the work stops does not take the place of what Ctrl-C has to say."""

        async def stubborn() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise OSError("the disk is full") from None

        ground.interrupt(after=1.0)
        with pytest.raises(Interrupted, match="interrupted"):
            run(stubborn(), setting=ground.setting, say=print)

    def test_end_that_comes_first(self) -> None:
        """A process that is asked to end before its work has begun does none of it."""

        class Runner(asyncio.Runner):
            def run(self, *others: Any, **more: Any) -> Any:
                signal.raise_signal(signal.SIGTERM)
                return super().run(*others, **more)

        async def work() -> None:
            done.append("something")

        done: list[str] = []
        with pytest.raises(Interrupted) as caught:
            run(work(), setting=Setting(runner=Runner), say=print)
        assert (caught.value.number, done) == (signal.SIGTERM, [])

    def test_stop_that_comes_first(self) -> None:
        """Work that ends by itself hears of a Ctrl-C that came before it had begun, once it has."""

        class Runner(asyncio.Runner):
            def run(self, *others: Any, **more: Any) -> Any:
                signal.raise_signal(signal.SIGINT)
                return super().run(*others, **more)

        async def work() -> list[str]:
            stop = asyncio.Event()
            stops.append(stop)
            await stop.wait()
            return ["done"]

        def stop() -> None:
            stops[0].set()

        stops: list[asyncio.Event] = []
        assert run(work(), setting=Setting(runner=Runner), say=print, on_interrupt=stop) == ["done"]

    def test_outside_the_loop(self) -> None:
        """Ctrl-C while no coroutine runs gives 130 and one line."""

        def interrupted() -> None:
            raise KeyboardInterrupt

        result = CliRunner().invoke(Program("x", callback=interrupted, invoke_without_command=True))
        assert (result.exit_code, result.stderr.split()) == (130, ["interrupted"])


class TestEmulator:
    """`piapi-async emulator`."""

    def test_runs_until_ctrl_c(self, ground: Ground) -> None:
        """It prints the two variables, and Ctrl-C is its normal end."""
        ground.interrupt(after=60.0)
        result = ground("emulator", "--seconds", "2", "--concurrency", "3", "--seed", "5")
        url, key = result.stdout.splitlines()
        assert result.exit_code == 0
        assert url.startswith("export PIAPI_BASE_URL=http://127.0.0.1:")
        assert key == "export PIAPI_API_KEY=emulator-key"
        assert result.stderr.splitlines()[-1] == "the emulator is gone, and its tasks with it"

    def test_no_pillow(self, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without Pillow it runs all the same, and warns that there will be no pictures."""
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
        ground.interrupt(after=1.0)
        result = ground("emulator")
        assert result.exit_code == 0
        assert result.stderr.startswith("warning: pictures need Pillow")

    def test_port_taken(self, ground: Ground) -> None:
        """A port that is taken is one line and exit code 1."""
        ground.submitted()
        runner = ground._runner()
        port = ground.emulator.url.rpartition(":")[2]
        result = CliRunner().invoke(program, ["emulator", "--port", port])
        runner.close()
        assert result.exit_code == 1
        assert "address already in use" in line(result)


class TestEntry:
    """`piapi_async.__main__`."""

    @pytest.fixture(autouse=True)
    def _restore(self) -> Iterator[None]:
        handler = signal.getsignal(signal.SIGINT)
        yield
        signal.signal(signal.SIGINT, handler)

    def run(self) -> int:
        """Run the script; its exit code."""
        with pytest.raises(SystemExit) as left:
            entry.main()
        assert isinstance(left.value.code, int)
        return left.value.code

    def test_script(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """The script takes the process's arguments, and once it is over Ctrl-C does no harm."""
        monkeypatch.setattr(sys, "argv", ["piapi-async", "--version"])
        assert self.run() == 0
        assert capsys.readouterr().out.startswith("piapi-async ")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    def test_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`python -m piapi_async` is the same."""
        monkeypatch.setattr(sys, "argv", ["piapi-async", "nope"])
        monkeypatch.delitem(sys.modules, "piapi_async.__main__")
        with pytest.raises(SystemExit, match="2"):
            runpy.run_path(entry.__file__, run_name="__main__")

    @pytest.mark.parametrize("missing", ["click", "rich"])
    def test_without_the_extra(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
    ) -> None:
        """Without the extra it is one sentence with the install command, and exit code 2."""
        for name in [*sys.modules]:
            if name.startswith(("piapi_async.cli", "piapi_async._cli", f"{missing}.")):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, missing, None)
        assert self.run() == 2
        assert capsys.readouterr().err == f"{entry.MISSING}\n"

    def test_another_import_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An import that fails for another reason is not blamed on the extra."""
        monkeypatch.setitem(sys.modules, "piapi_async.cli", None)
        with pytest.raises(ImportError, match=r"piapi_async\.cli"):
            entry.main()

    def test_early_ctrl_c(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C before the command line is up gives 130 and no traceback."""

        def interrupted(_args: list[str]) -> int:
            raise KeyboardInterrupt

        monkeypatch.setitem(sys.modules, "piapi_async.cli", SimpleNamespace(program=SimpleNamespace(run=interrupted)))
        assert self.run() == 130


def test_spoken_joins_notes() -> None:
    """An error's notes belong to its line, and what it advises in Python is said as a command."""
    error = WaitTimeoutError("task a still pending")
    error.add_note("task a may go on; session.task('a').wait() goes on watching")
    assert spoken(error) == "task a still pending; task a may go on; 'piapi-async task wait a' goes on watching"


def test_spoken_words_the_advice_for_the_command_line() -> None:
    """What to do about an error is said with the command line's own options, after the fact."""
    error = AuthenticationError("PiAPI answered 403: plan", hint=Hint.CHECK_UPLOAD_PLAN)
    assert spoken(error).startswith("PiAPI answered 403: plan; ")
    assert "--local-images" in spoken(error)
    assert "local_images=" not in spoken(error)
    error = AuthenticationError("PiAPI answered 401: key", hint=Hint.CHECK_KEY)
    assert spoken(error) == str(error)


def test_one_line_is_harmless() -> None:
    """Text from a server cannot act on the terminal."""
    assert one_line(" a\r\n\tb\x1b[2J\u202e ") == "a b\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("words", "task_type", "size"),
    [
        (["txt2img", "a lake", "--width", "64", "--height", "48"], "txt2img", (64, 48)),
        (["txt2img", "a lake", "--width", "64", "--height", "48", "--lora", "anime"], "txt2img-lora", (64, 48)),
        (["inpaint", CAT, "a hat"], "fill-inpaint", None),
        (["outpaint", CAT, "a garden", "--left", "300", "--top", "200"], "fill-outpaint", None),
        (["variation", CAT, "a cat"], "redux-variation", None),
        (["kontext", CAT, "in snow", "--width", "64", "--height", "48", "--seed", "1"], "kontext", (64, 48)),
    ],
)
def test_a_command_for_each_of_the_family(
    ground: Ground, words: list[str], task_type: str, size: tuple[int, int] | None
) -> None:
    """The task is of its type, and its picture is on disk, of the size that was asked for."""
    result = ground(*words, "--out", "family")
    assert result.exit_code == 0, result.stderr
    assert ground.task.task_type == task_type
    with Picture.open(result.stdout.strip()) as picture:
        assert size in (None, picture.size)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["outpaint", CAT, "a garden"], "one of left, right, top and bottom must be above 0"),
        (["kontext", CAT, "in snow", "--steps", "41"], "steps must be a whole number >= 1 and <= 40, got 41"),
        (["txt2img", "a lake", "--width", "2000", "--height", "2000"], "must give at most 1048576 pixels"),
        (["txt2img", "a lake", "--lora", "anime", "--batch-size", "2"], "--batch-size works without --lora only"),
    ],
)
def test_a_command_of_the_family_refuses_before_it_pays(ground: Ground, words: list[str], said: str) -> None:
    """Wrong input is exit code 2 and one sentence; no task is made."""
    result = ground(*words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert not ground.emulator.tasks


def test_account_prints_what_the_service_tells(ground: Ground) -> None:
    """Plan, balance, and how many tasks at once."""
    lines = dict(line.split(maxsplit=1) for line in ground("account").stdout.splitlines())
    assert lines["plan"] == ground.emulator.options.plan
    assert lines["balance"].endswith(" USD")
    assert lines["used"] == "0 points"


def test_an_account_that_tells_nothing_prints_nothing() -> None:
    """What the service does not say is left out."""
    assert balance(Account()) == ""


def test_account_for_machines(ground: Ground) -> None:
    """`account --json` prints the facts under the names that `Account` has for them."""
    told = json.loads(ground("account", "--json").stdout)
    assert told.keys() == {
        "plan",
        "balance_usd",
        "points_remaining",
        "points_frozen",
        "points_used",
        "max_concurrent_tasks",
    }
    assert told["plan"] == "pro"


def test_account_of_an_emulator() -> None:
    """`account --emulator` needs no key."""
    result = CliRunner().invoke(program, ["account", "--emulator"])
    assert (result.exit_code, result.stdout.split()[0]) == (0, "plan")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["img"], ["plain,img2img"]),
        (["img2img", "cat"], ["file,cat"]),
        (["img2img", "--model", ""], ["plain,schnell", "plain,dev", "plain,dev-advanced"]),
        (["txt2img", "--lora", "mj"], ["plain,mjv6"]),
    ],
)
def test_the_shell_completes(words: list[str], offered: list[str]) -> None:
    """Commands, files, models and LoRAs are completed by the shell, as the README sets it up."""
    asked = {
        "COMP_WORDS": " ".join(["piapi-async", *words]),
        "COMP_CWORD": str(len(words)),
        "_PIAPI_ASYNC_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-m", "piapi_async"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == offered


def test_upload_prints_the_link(ground: Ground) -> None:
    """`upload` prints a link that the next command takes in place of a picture."""
    link = ground("upload", CAT).stdout.strip()
    assert link.startswith(ground.emulator.url)
    assert json.loads(ground("upload", CAT, "--json").stdout).keys() == {"url"}
    assert ground("img2img", link, "a bear").exit_code == 0
    assert ground.task.input["image"] == link


def test_local_pictures_travel_as_asked(ground: Ground) -> None:
    """`--local-images upload` sends a link."""
    assert ground("img2img", CAT, "a bear", "--local-images", "upload").exit_code == 0
    assert ground.task.input["image"].startswith(ground.emulator.url)
    assert [one.endpoint for one in ground.emulator.requests][:2] == ["upload", "create"]


def test_local_pictures_are_scaled_down(ground: Ground) -> None:
    """`--max-pixels` sends a smaller picture."""
    assert ground("img2img", CAT, "a bear", "--max-pixels", "10000").exit_code == 0
    head, data = ground.task.input["image"].split(",")
    picture = Picture.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/jpeg;base64"
    assert 9000 < picture.width * picture.height <= 10000


def test_files_are_named_as_asked(ground: Ground, tmp_path: Path) -> None:
    """`--name` makes folders and names, `--sidecar` tells what was asked; `task wait` has them too."""
    result = ground("img2img", CAT, "a bear", "--name", "{task_type}/{n:02}", "--sidecar")
    assert result.stdout.strip() == "img2img/01.png"
    told = json.loads((tmp_path / "img2img" / "01.json").read_text())
    assert told["request"]["input"]["prompt"] == "a bear"
    task_id = ground.task.task_id
    assert ground("task", "wait", task_id, "--out", "again", "--name", "{model}").stdout.strip() == (
        "again/Qubico-flux1-schnell.png"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--max-spend", "-1"], "error: --max-spend must be US dollars >= 0, or None for no limit, got -1.0"),
        (["--max-spend", "0"], "and 0.0000 USD of --max-spend 0 are spent or in flight; nothing was sent"),
        (["--max-pixels", "0"], "error: --max-pixels must be a whole number >= 1, got 0"),
    ],
)
def test_options_of_the_session_have_their_own_names(ground: Ground, words: list[str], told: str) -> None:
    """An error about what the session was made with names the option, not the argument in Python."""
    assert told in line(ground("img2img", CAT, "a bear", *words))


def test_a_picture_that_is_too_large_is_told(ground: Ground, tmp_path: Path) -> None:
    """The way to make a picture smaller is told in the words of the command line."""
    (tmp_path / "large.png").write_bytes(raw_server.PNG + bytes(11 * 2**20))
    told = line(ground("img2img", "large.png", "a bear"))
    assert "of at most 10485760 bytes, got 11534404; --max-pixels makes pictures smaller" in told


def test_names_without_files_are_refused(ground: Ground) -> None:
    """`task wait` without `--out` writes no files, and says so where it is told how to name them."""
    for words in (["--name", "a"], ["--sidecar"]):
        result = ground("task", "wait", "3f2a", *words)
        assert (result.exit_code, line(result).partition(";")[0]) == (2, "error: --name and --sidecar need --out")


def test_a_name_that_is_a_directory_is_told(ground: Ground, tmp_path: Path) -> None:
    """Where a directory has the name of a picture, the error tells that name, not the hidden one."""
    task_id = ground.submitted()
    (tmp_path / f"{task_id}.png").mkdir()
    result = ground("task", "wait", task_id, "--out", ".")
    assert result.exit_code == 1
    assert f"error: {task_id}.png: " in result.stderr


def test_a_bad_name_is_refused_before_anything_is_paid(ground: Ground) -> None:
    """A template that leads elsewhere is one line and exit code 2, and nothing is submitted."""
    result = ground("img2img", CAT, "a bear", "--name", "../{n}")
    assert (result.exit_code, ground.emulator.tasks) == (2, {})
    assert "--name" in line(result)


def test_what_the_shell_is_offered() -> None:
    """An argument that is a picture offers files, an option with known names those that begin so."""
    context = click.Context(img2img)
    params = {param.name: param for param in img2img.params}
    (file,) = params["image"].shell_complete(context, "ca")
    assert (file.type, file.value) == ("file", "ca")
    assert [item.value for item in params["model"].shell_complete(context, "dev")] == ["dev", "dev-advanced"]


def test_a_film_is_uploaded_as_one(ground: Ground, tmp_path: Path) -> None:
    """`upload` takes the other files that PiAPI's upload takes by their endings."""
    (tmp_path / "film.MP4").write_bytes(b"not looked into")
    link = ground("upload", "film.MP4").stdout.strip()
    assert link.startswith(ground.emulator.url)
    assert link.endswith(".mp4")
