"""Files that are whole or not there, and what killed processes leave behind of them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.raw_server import PNG, RawServer, Received, answer

from piapi_async import Picture, Session, _atomic
from piapi_async._asyncio import Clock

PART = """
import signal, sys
from pathlib import Path
from piapi_async import _atomic
with _atomic.temporary(Path(sys.argv[1])) as (path, file):
    print(path, flush=True)
    signal.pause()
"""


def parts(directory: Path) -> list[str]:
    """The names of the hidden files."""
    return sorted(path.name for path in directory.iterdir() if path.suffix == ".part")


def left_behind(directory: Path) -> str:
    """The name of a part whose process was killed."""
    with subprocess.Popen([sys.executable, "-c", PART, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = Path(process.stdout.readline().strip()).name
        process.kill()
    return name


pytestmark = pytest.mark.skipif(not hasattr(signal, "pause"), reason="needs signals and process ids of POSIX")


async def test_parts_of_dead_processes_are_swept(tmp_path: Path) -> None:
    """The next download into a directory removes what a killed process left there, and nothing else."""
    name = left_behind(tmp_path)
    others = [".0123456789abcdef.part", "a.part", ".piapi_async-x.part", f"{name}.txt", name.removeprefix(".")]
    for other in others:
        (tmp_path / other).write_bytes(b"mine")
    assert name in parts(tmp_path)
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        path = await session.download(f"{server.url}/a.png", tmp_path)
        assert sorted(one.name for one in tmp_path.iterdir()) == sorted([*others, path.name])
        again = left_behind(tmp_path)
        await session.download(f"{server.url}/b.png", tmp_path)
    assert again in parts(tmp_path)  # a session looks once


@pytest.fixture
def living(tmp_path: Path) -> Iterator[str]:
    """The name of a part that another process is writing."""
    command = [sys.executable, "-c", PART, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip()).name
        process.kill()


async def test_parts_of_living_processes_stay(tmp_path: Path, living: str) -> None:
    """What another process is writing, or this one is, is left alone, however old it looks."""
    came = asyncio.Event()

    async def stalling(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(PNG, headers={"Content-Length": "999"}))
        came.set()
        await asyncio.Event().wait()

    async with RawServer(stalling) as server, Session("k", base_url=server.url) as session:
        doing = asyncio.ensure_future(session.download(f"{server.url}/a.png", tmp_path))
        await came.wait()
        here = parts(tmp_path)
        assert len(here) == 2
        (own,) = (name for name in here if name != living)
        os.utime(tmp_path / own, (0, 0))
        _atomic.sweep(tmp_path, now=Clock().now())
        assert parts(tmp_path) == here
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
    assert parts(tmp_path) == [living]


@pytest.mark.parametrize(("hours", "stays"), [(1, True), (23, True), (25, False)])
async def test_parts_of_other_machines_are_swept_when_they_are_old(
    tmp_path: Path, hours: float, *, stays: bool
) -> None:
    """Whether a process elsewhere lives cannot be told: its part goes when nobody has written to it for a day."""
    part = tmp_path / ".piapi_async-0123456789ab-99999999-1-0123456789abcdef.part"
    part.touch()
    then = Clock().now() - 3600 * hours
    os.utime(part, (then, then))
    _atomic.sweep(tmp_path, now=Clock().now())
    assert part.exists() is stays


def test_part_of_a_process_id_that_is_used_again_is_swept(tmp_path: Path) -> None:
    """A process that has the number of a dead one is not taken for it."""
    name = left_behind(tmp_path)
    machine, _, _, token = name.removeprefix(".piapi_async-").split("-")
    (tmp_path / name).rename(tmp_path / f".piapi_async-{machine}-{os.getpid()}-1-{token}")
    _atomic.sweep(tmp_path, now=0)
    assert parts(tmp_path) == []


def test_sweeping_needs_no_permission(tmp_path: Path) -> None:
    """A directory that is gone, or may not be read, is no reason for a download to fail."""
    _atomic.sweep(tmp_path / "gone", now=0)
    assert Picture(PNG).save(tmp_path / "a.png").read_bytes() == PNG
