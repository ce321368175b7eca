"""`piapi-async batch` on a folder of local pictures, as people start it: each run in an interpreter of its own."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fresh import PATIENCE, ROUNDS, emulator_process

from piapi_async.ledger import JobState, SQLiteLedger

COMMAND = [sys.executable, "-W", "error", "-m", "piapi_async"]
SLOW = "--seconds 3 --queue-delay 0 --concurrency 1000 --max-pixels 1024"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty local pictures, PNG and JPEG, half of these on their side; and `jobs.jsonl`, one line for all of them."""
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    for number in range(40):
        file = io.BytesIO()
        picture = Image.effect_noise((160, 120), 40).convert("RGB")
        if number % 2:
            picture.save(file, "PNG")
        else:
            picture.save(file, "JPEG", exif=on_its_side if number % 4 else Image.Exif())
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number:02}.{'png' if number % 2 else 'jpg'}").write_bytes(file.getvalue())
    line = {"prompt": "a bear", "image": "photos/*.*"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(line), encoding="utf-8")
    return tmp_path


def batch(folder: Path, env: Mapping[str, str], *options: str) -> "subprocess.Popen[str]":
    """The command, begun."""
    command = [*COMMAND, "batch", "jobs.jsonl", "--out", "out", "--json", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **env}, stdout=pipe, stderr=pipe, text=True)


def ended(process: "subprocess.Popen[str]") -> tuple[int, dict[str, Any], str]:
    """Its exit code, its summary, and what it said."""
    out, said = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in said, said[-4000:]
    assert out, said[-4000:]
    return process.returncode, json.loads(out), said


def state(env: Mapping[str, str]) -> dict[str, Any]:
    """What the emulator says of itself."""
    with urllib.request.urlopen(f"{env['PIAPI_BASE_URL']}/_emulator/state") as told:
        found: dict[str, Any] = json.load(told)
    return found


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_batch_over_local_pictures(emulator: dict[str, str], folder: Path, _round: int) -> None:
    """A first run over forty local pictures completes and saves all of them."""
    code, summary, said = ended(batch(folder, emulator))
    assert (code, summary["completed"], summary["pictures"]) == (0, 40, 40), said
    assert len(list((folder / "out").glob("*.png"))) == 40


@pytest.mark.parametrize("_round", range(ROUNDS))
@pytest.mark.parametrize("head", [b"GIF89a", b"II*\x00"])
def test_one_broken_picture_fails_alone(emulator: dict[str, str], folder: Path, head: bytes, _round: int) -> None:
    """A file that only begins as a picture fails its own job, in one line, and the other forty complete."""
    (folder / "photos" / "odd.png").write_bytes(head + b"and nothing that could be decoded" * 10)
    code, summary, said = ended(batch(folder, emulator, "--max-in-flight", "41"))
    assert (code, summary["completed"], summary["failed"]) == (1, 40, 1), said
    (line,) = [line for line in said.splitlines() if "odd.png" in line]
    assert "unforeseen" not in line


def test_what_is_not_a_picture_at_all_is_told_before_anything_is_paid(emulator: dict[str, str], folder: Path) -> None:
    """A file of something else is named with its line, exit code 2, and nothing is sent."""
    before = state(emulator)["charges"]
    (folder / "photos" / "odd.png").write_bytes(b"no picture at all")
    process = batch(folder, emulator)
    out, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, len(said.splitlines())) == (2, "", 1)
    assert "odd.png" in said
    assert state(emulator)["charges"] == before


def submitted(ledger: Path) -> int:
    """How many jobs have a task that is not over, once the ledger is there."""

    async def counted() -> int:
        async with SQLiteLedger(ledger) as opened:
            return (await opened.counts())[JobState.SUBMITTED]

    return asyncio.run(counted()) if ledger.exists() else 0


@pytest.fixture(scope="module")
def slow_emulator() -> Iterator[dict[str, str]]:
    """An emulator whose tasks take a while, so that a run can be killed in between."""
    with emulator_process(*SLOW.split()) as variables:
        yield variables


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_killed_midway_it_goes_on(slow_emulator: dict[str, str], folder: Path, _round: int) -> None:
    """Killed without warning while tasks are in flight, the same command completes all jobs, and pays once for each."""
    before = state(slow_emulator)["charges"]
    process = batch(folder, slow_emulator, "--max-in-flight", "20")
    deadline = time.monotonic() + PATIENCE
    # A POST under way would be looked for in the history for two minutes; twenty are in flight, and none is under way.
    while submitted(folder / "out" / "ledger.db") < 20:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, summary, said = ended(batch(folder, slow_emulator, "--max-in-flight", "40"))
    assert (code, summary["completed"], summary["jobs"]) == (0, 40, 40), said
    assert len(list((folder / "out").glob("*.png"))) == 40
    after = state(slow_emulator)["charges"]
    assert (after, before) == (before + 40, before)
