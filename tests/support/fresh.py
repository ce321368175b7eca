"""Running the package as users do: a fresh interpreter for each scenario, and the emulator in another process."""

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ROUNDS = int(os.environ.get("PIAPI_FRESH_ROUNDS", "3"))
"""How often each scenario runs; `PIAPI_FRESH_ROUNDS=20 pytest tests/fresh` runs each twenty times."""

PATIENCE = 120.0
"""Seconds after which a process that is still busy is taken for stuck."""

_VARIABLE = re.compile(r"^(?:export )?(PIAPI_\w+)=(\S+)", re.ASCII)


def run_fresh(code: str, env: Mapping[str, str] | None = None, *args: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in an interpreter that has imported nothing, and has warnings as errors.

    Args:
        code: The program.

        env: Variables of its environment, besides those of this process, such as those of `emulator_process`.

        args: Its `sys.argv[1:]`.

    Returns:
        What it printed, and how it ended; nothing is checked.
    """
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def succeeds(code: str, env: Mapping[str, str] | None = None, *args: str) -> str:
    """Run a program as `run_fresh` does; it has to end well, without a traceback. Returns what it printed."""
    done = run_fresh(code, env, *args)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    return done.stdout


@contextmanager
def emulator_process(*options: str) -> Iterator[dict[str, str]]:
    """An emulator in a process of its own; the variables that lead to it.

    Args:
        options: Those of `piapi-async emulator`, besides `--port`.
    """
    command = [sys.executable, "-m", "piapi_async", "emulator", "--port", "0", *options]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        assert process.stdout is not None
        variables: dict[str, str] = {}
        watchdog = threading.Timer(PATIENCE, process.kill)  # `readline` has no limit of its own
        watchdog.start()
        try:
            while not {"PIAPI_BASE_URL", "PIAPI_API_KEY"} <= set(variables):
                line = process.stdout.readline()
                if not line:
                    complaints.seek(0)
                    raise AssertionError(f"the emulator ended before it listened: {complaints.read().decode()}")
                if found := _VARIABLE.match(line):
                    variables[found[1]] = found[2].strip("'\"")
            watchdog.cancel()
            yield variables
        finally:
            watchdog.cancel()
            process.kill()
