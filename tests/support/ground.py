"""Where commands run in tests: in this process, on an emulator that lives in their event loop, in virtual time."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

import pytest
from click.testing import CliRunner, Result

import piapi_async
from piapi_async.cli import program
from piapi_async.cli._interrupt import Setting
from piapi_async.emulator import Constant, Emulator, Faults, TaskView
from piapi_async.testing import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable

CAT = str(Path(piapi_async.__file__).parent / "assets" / "cat.jpg")


class Ground:
    """Runs commands against an emulator of its own: 1 s in the queue, 3 s of work, all of it in virtual time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.emulator = Emulator(durations=Constant(3.0), queue_delay=Constant(1.0))
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.left: list[int] = []
        self.runners: list[asyncio.Runner] = []
        self._monkeypatch = monkeypatch

    def __call__(self, *args: str, stdin: str | bytes | None = None) -> Result:
        """Run a command to its end."""
        return CliRunner().invoke(program, args, obj=self.setting, input=stdin)

    @property
    def setting(self) -> Setting:
        """What puts commands on this ground."""
        return Setting(runner=self._runner, leave=self._leave)

    def interrupt(self, number: int = signal.SIGINT, *, after: float) -> None:
        """Press Ctrl-C, or send another signal, that many seconds after the next command began."""
        self.timers.append((after, lambda: signal.raise_signal(number)))

    @property
    def faults(self) -> Faults:
        """The emulator's."""
        return self.emulator.faults

    @property
    def task(self) -> TaskView:
        """The only task."""
        (task,) = self.emulator.tasks.values()
        return task

    def submitted(self) -> str:
        """The id of a task that was submitted elsewhere and is over."""
        assert self("img2img", CAT, "a bear", "--out", "elsewhere").exit_code == 0
        return self.task.task_id

    def pending(self) -> str:
        """The id of a task that was submitted elsewhere and is not over."""
        assert self("img2img", CAT, "a bear", "--timeout", "0.5").exit_code == 1
        return self.task.task_id

    def _runner(self) -> asyncio.Runner:
        runner = cast("asyncio.Runner", _Runner(self.emulator))
        runner.get_loop().run_until_complete(self.emulator.start())
        self._monkeypatch.setenv("PIAPI_BASE_URL", self.emulator.url)
        self._monkeypatch.setenv("PIAPI_API_KEY", self.emulator.api_key)
        while self.timers:
            runner.get_loop().call_later(*self.timers.pop())
        self.runners.append(runner)
        return runner

    def _leave(self, code: int) -> NoReturn:
        self.left.append(code)
        sys.exit(code)


class _Runner:
    """An `asyncio.Runner` whose loop an emulator lives in."""

    def __init__(self, emulator: Emulator) -> None:
        self._runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self._emulator: Emulator | None = emulator
        self.run = self._runner.run
        self.get_loop = self._runner.get_loop

    def close(self) -> None:
        if self._emulator is not None:
            emulator, self._emulator = self._emulator, None
            self.get_loop().run_until_complete(emulator.aclose())
        self._runner.close()
