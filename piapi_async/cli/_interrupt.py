"""Running a command's coroutine so that Ctrl-C is obeyed, loses nothing unsaid, and never shows a traceback.

The first Ctrl-C cancels the work, as `asyncio.run` does. A submit under way then still waits for its answer, which
takes up to 10 s; so a second Ctrl-C leaves at once, without tidying up, because tidying up is what it does not want.
Two signals within `TOGETHER` are one: `timeout -s INT` signals the process and its group, a terminal's end sends SIGHUP
by way of the kernel and of the shell, and a finger may bounce.

Work that can end by itself is told of the first Ctrl-C instead (`on_interrupt`); the second then is as the first, and
the third leaves at once.

SIGTERM and SIGHUP (`docker stop`, systemd, a closed terminal) cancel the work at once: whoever sends them kills the
process soon after, and by then a submit under way should have its answer. A second one leaves at once.
"""

import asyncio
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, Protocol, TypeVar

import attrs

T = TypeVar("T")

PATIENCE = 0.3
"""Seconds after Ctrl-C in which most work stops; what takes longer deserves a word."""

TOGETHER = 0.5
"""Seconds, on the loop's clock, within which a second signal is the first one again."""

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals by which others ask a process to end."""

Say = Callable[[str], None]
"""Shows one line."""


@attrs.frozen(kw_only=True)
class Setting:
    """What the commands stand on. Tests put them on other ground.

    Attributes:
        runner: Makes the event loop's owner.

        leave: Ends the process at once.
    """

    runner: Callable[[], asyncio.Runner] = asyncio.Runner
    leave: Callable[[int], NoReturn] = os._exit


class Interrupted(Exception):  # noqa: N818 - a wish, not an error
    """Ctrl-C was pressed, or the process was asked to end.

    Attributes:
        lines: What the user should know, one fact each.

        leave: How to end the process.

        number: The signal; the exit code is 128 more.
    """

    def __init__(self, lines: Iterable[str], *, leave: Callable[[int], NoReturn], number: int = signal.SIGINT) -> None:
        super().__init__("interrupted")
        self.lines = tuple(lines)
        self.leave = leave
        self.number = number


class Farewell(Protocol):
    """Tells what the user should know when a signal ended the work."""

    def __call__(self, *, at_rest: bool) -> Iterable[str]:
        """The facts; `at_rest` is whether the work could end in order, so that all is known that can be."""
        ...


def nothing_to_say(*, at_rest: bool) -> Iterable[str]:  # noqa: ARG001 - it is a `Farewell`
    """The farewell of work that leaves nothing behind."""
    return ()


def run(
    work: Coroutine[Any, Any, T],
    *,
    setting: Setting,
    say: Say,
    farewell: Farewell = nothing_to_say,
    on_interrupt: Callable[[], None] | None = None,
) -> T:
    """Run a coroutine to its end.

    Args:
        work: The coroutine.

        setting: What to run it on.

        say: Shows a line while it stops.

        farewell: What the user should know when Ctrl-C ended it.

        on_interrupt: Called at the first Ctrl-C, in the event loop; the work then comes to its end by itself.

    Raises:
        Interrupted: A signal ended the work.
    """
    supervisor = _Supervisor(say, on_interrupt=on_interrupt)
    runner = setting.runner()
    try:
        with supervisor.heeding_signals(runner.get_loop(), leave=setting.leave):
            return runner.run(supervisor.watch(work))
    except (KeyboardInterrupt, asyncio.CancelledError):
        leave = sys.exit if supervisor.at_rest else setting.leave
        raise Interrupted(farewell(at_rest=supervisor.at_rest), leave=leave, number=supervisor.number) from None
    finally:
        if supervisor.at_rest:
            # A Ctrl-C too many must not take the place of what is to be said.
            with suppress(KeyboardInterrupt):
                runner.close()


class _Supervisor:
    """Sees whether the work came to rest, and speaks up when that takes long.

    Attributes:
        at_rest: Whether it came to rest.

        number: The signal that ended it, if one did.
    """

    def __init__(self, say: Say, *, on_interrupt: Callable[[], None] | None) -> None:
        self._say = say
        self._on_interrupt = on_interrupt
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._heeded_at = -math.inf
        self._is_stopping = self._is_ending = self._is_to_end = False
        self.at_rest = False
        self.number: int = signal.SIGINT

    @contextmanager
    def heeding_signals(self, loop: asyncio.AbstractEventLoop, *, leave: Callable[[int], NoReturn]) -> Iterator[None]:
        """Let Ctrl-C and the signals of `ENDING` end the work, and a second one leave at once."""
        self._loop = loop

        def heed(number: int, _frame: object) -> None:
            # Who asked with Ctrl-C to wait may be followed at once by somebody who cannot wait.
            is_news = number in ENDING and not self._is_to_end
            if loop.time() - self._heeded_at < TOGETHER and not is_news:
                return
            self._heeded_at = loop.time()
            if number not in ENDING:
                self._interrupt()
            elif is_news:
                self._is_to_end, self.number = True, number
                self._end()
            else:
                leave(128 + number)

        # A signal that is ignored stays so: that is what `nohup` does with SIGHUP.
        is_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, *ENDING) if is_main else ()
        heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, heed) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self) -> None:
        if self._is_ending:
            raise KeyboardInterrupt
        if self._on_interrupt is None or self._is_stopping:
            self._end()
            return
        self._is_stopping = True
        if self._task is not None:
            self._soon(self._on_interrupt)

    def _end(self) -> None:
        self._is_ending = True
        if self._task is not None:
            self._soon(self._task.cancel)

    def _soon(self, act: Callable[[], object]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(act)

    async def watch(self, work: Coroutine[Any, Any, T]) -> T:
        working = asyncio.ensure_future(work)
        self._task = asyncio.current_task()
        assert self._task is not None
        if self._is_ending:  # the signal came before there was anything to cancel
            working.cancel()
            self._task.cancel()
        elif self._is_stopping and self._on_interrupt is not None:
            self._soon(self._on_interrupt)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            working.cancel()
            await self._rest(working)
            raise
        finally:
            self.at_rest = working.done()

    async def _rest(self, working: "asyncio.Task[Any]") -> None:
        _, busy = await asyncio.wait({working}, timeout=PATIENCE)
        if busy:
            self._say("stopping; asking the service how its tasks stand takes up to 10 s, Ctrl-C again leaves at once")
            await asyncio.wait({working})
