"""The command line as people start it: processes, signals, and a machine without the extra."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import piapi_async

pytestmark = pytest.mark.usefixtures("heed_ctrl_c")

CAT = str(Path(piapi_async.__file__).parent / "assets" / "cat.jpg")
COMMAND = [sys.executable, "-m", "piapi_async"]
PATIENCE = 20.0


@contextmanager
def started(*args: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command under way; it is over when this is left."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*COMMAND, *args], stdout=pipe, stderr=pipe, text=True, env={**os.environ, **(env or {})}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[str], word: str) -> str:
    """The next line on stderr that holds a word."""
    assert process.stderr is not None
    return next(line for line in process.stderr if word in line)


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Press Ctrl-C; the exit code and the rest of stderr."""
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE)
    return process.returncode, told


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[subprocess.Popen[str], Mapping[str, str]]]:
    """`piapi-async emulator`, and the environment it prints."""
    with started("emulator", "--seconds", "600") as process:
        assert process.stdout is not None
        exports = [process.stdout.readline().removeprefix("export ").strip().partition("=") for _ in range(2)]
        yield process, {name: value for name, _, value in exports}


def test_ctrl_c_while_waiting(server: tuple[subprocess.Popen[str], Mapping[str, str]], tmp_path: Path) -> None:
    """Ctrl-C during a wait ends with 130 and the id, which `task get` knows, and without a traceback."""
    _, env = server
    with started("img2img", CAT, "a bear", "--out", str(tmp_path), env=env) as process:
        task_id = read(process, "submitted").split()[1]
        code, told = interrupt(process)
    again = f"'piapi-async task wait {task_id}' finds it again"
    assert (code, told) == (130, f"interrupted\ntask {task_id} goes on and may be billed; {again}\n")
    with started("task", "get", task_id, env=env) as process:
        shown, _ = process.communicate(timeout=PATIENCE)
    assert shown.startswith(f"task     {task_id}\n")


def test_ctrl_c_twice(server: tuple[subprocess.Popen[str], Mapping[str, str]], tmp_path: Path) -> None:
    """Ctrl-C pressed several times in a row leaves no traceback either."""
    _, env = server
    with started("img2img", CAT, "a bear", "--out", str(tmp_path), env=env) as process:
        read(process, "submitted")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        code, told = interrupt(process)
    assert code == 130
    assert "Traceback" not in told
    assert "Exception" not in told


def test_a_batch_that_timeout_ends(server: tuple[subprocess.Popen[str], Mapping[str, str]], tmp_path: Path) -> None:
    """A SIGINT that comes twice at once is one, and waits; SIGTERM then lets go, and tells what is in flight."""
    _, env = server
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("prompt,image\nbear,https://example.com/a.jpg\nowl,https://example.com/a.jpg\n", encoding="utf-8")
    with started("batch", str(jobs), "--out", str(tmp_path), "--max-in-flight", "1", env=env) as process:
        while "submitted" not in shown_of(tmp_path / "ledger.db"):
            pass
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        read(process, "stopping: no more jobs are begun")
        process.send_signal(signal.SIGTERM)
        shown, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert "in flight  1\nnot sent   1\n" in shown
    assert "1 task in flight at the service: it may go on and be billed; " in told
    assert f"the same command, 'piapi-async batch {jobs} ...', picks it up" in told


def shown_of(ledger: Path) -> str:
    """What `ledger show` says."""
    command = [*COMMAND, "ledger", "show", str(ledger)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE).stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_end_while_waiting(
    server: tuple[subprocess.Popen[str], Mapping[str, str]], tmp_path: Path, number: signal.Signals
) -> None:
    """What asks a process to end has it name its task, and end with 128 and the signal's number."""
    _, env = server
    with started("img2img", CAT, "a bear", "--out", str(tmp_path), env=env) as process:
        task_id = read(process, "submitted").split()[1]
        process.send_signal(number)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert told.startswith(f"ended by {number.name}\ntask {task_id} goes on and may be billed; ")


def test_emulator_ends_cleanly() -> None:
    """Ctrl-C is the emulator's normal end: exit code 0, at once, and one line."""
    with started("emulator") as process:
        read(process, "the emulator is running")
        assert interrupt(process) == (0, "the emulator is gone, and its tasks with it\n")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    """Without click or rich the program says how to get them, and exits with 2."""
    code = f"import sys; sys.modules[{missing!r}] = None; import piapi_async.__main__ as m; m.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE)
    told = "piapi-async needs the command line's packages: pip install click rich\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


@pytest.mark.parametrize(
    ("module", "absent"), [("piapi_async", "click rich PIL"), ("piapi_async.cli", "PIL aiohttp.web")]
)
def test_loads_no_more_than_needed(module: str, absent: str) -> None:
    """The package loads nothing of the command line's, and the command line no pictures and no web server."""
    code = f"import sys, {module}; print([name for name in {absent.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == "[]\n"
