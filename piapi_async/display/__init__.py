"""For people who watch: a live line of how many tasks are where, and a table of what came of them.

```python
with Progress(total=len(requests)) as progress:
    async with Session(observers=[progress]) as session:
        outcomes = await asyncio.gather(*map(session.run, requests), return_exceptions=True)
print(Table(outcomes))                  # in a notebook, a cell that ends with Table(outcomes) shows the pictures too
```

`TaskInfo`, `TaskHandle` and `Account` display themselves in notebooks, without this module.
"""

import asyncio
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TextIO

from piapi_async import _html, _text, _validators, events
from piapi_async._asyncio import Clock
from piapi_async.display._table import Row, Table
from piapi_async.prices import dollars
from piapi_async.task import TaskInfo, TaskStatus

__all__ = ["INTERVAL", "Progress", "Row", "Table"]

INTERVAL = 0.25
"""Seconds between two updates of a live display, at least."""


class _Cell:
    """The output of a notebook's cell: one, however often it changes."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, progress: "Progress") -> None:
        from IPython.display import display  # noqa: PLC0415 - only where it runs already

        if self._handle is None:
            self._handle = display(progress, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(progress)

    close = show


class _Terminal:
    """The line of a terminal, rewritten."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, progress: "Progress") -> None:
        line = _text.clipped(str(progress), most=_columns(self._stream) - 1)
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()

    def close(self, progress: "Progress") -> None:
        self.show(progress)
        self._stream.write("\n")


def _columns(stream: TextIO) -> int:
    """How wide a terminal is, also where stdout is another place."""
    try:
        own = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # it says that it is a terminal, and has no file
        own = os.terminal_size((80, 24))
    return shutil.get_terminal_size(fallback=own).columns or 80


class _Stream:
    """A file or a pipe: what is written stays, so it gets the last line alone."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def show(self, progress: "Progress") -> None:
        pass

    def close(self, progress: "Progress") -> None:
        if self._stream is not None:
            print(progress, file=self._stream)


def _screen() -> _Cell | _Terminal | _Stream:
    """Where progress is to be seen. IPython is used where it runs a notebook, and is not imported for it."""
    # Where another thread has only begun to import IPython, there is no `get_ipython` yet, and no notebook either.
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    # The shell of a terminal has no kernel, and would print each update below the last.
    if get_ipython is not None and hasattr(get_ipython(), "kernel"):
        return _Cell()
    stream: TextIO | None = sys.stderr
    return _Terminal(stream) if stream is not None and stream.isatty() else _Stream(stream)


class Progress:
    """A live display of how many tasks are where: `Session(observers=[progress])`.

    In a notebook it is one output that changes, four times a second at most; in a terminal one line on stderr; where
    stderr is a file, only the last state is written. Several sessions may share it. It is shown from the first event
    on, or, as a context manager, from `with` until its end, and closes there with the final state, come what may.
    Entered again it begins anew, in the cell that runs then.

    Args:
        total: How many tasks there will be, for a bar and "3 of 12"; `None` when that is not known.

    Raises:
        TypeError: `total` is no whole number.
        ValueError: `total` is negative.
    """

    def __init__(self, *, total: int | None = None) -> None:
        if total is not None:
            _validators.count("total", total)
        self._total = total
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._tasks: dict[str, _Seen] = {}
        self._detached: set[str] = set()
        self._doubts = self._saved = self._polls = 0
        self._ending = ""
        self._began = self._now = self._shown_at = _now()
        self._screen: _Cell | _Terminal | _Stream | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self._begin()
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            stopped = issubclass(kind, KeyboardInterrupt | asyncio.CancelledError)
            self._ending = "interrupted" if stopped else f"ended by {kind.__name__}"
        self.close()

    def close(self) -> None:
        """Show the final state, and take no further notice of events until it is entered again."""
        if not self._closed:
            self._stop_timer()
            self._closed, self._now = True, _now() or self._now
            self._on_screen().close(self)

    def __call__(self, event: events.Event) -> None:
        """Take one event, and show what it changed, now or a moment later."""
        if self._closed:
            return
        self._count(event)
        self._stop_timer()
        now = Clock().monotonic()
        age = INTERVAL if self._screen is None or self._shown_at is None else now - self._shown_at
        # An age below zero: this is another event loop, whose time is another.
        if 0 <= age < INTERVAL:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL - age, self._show)
        else:
            self._show()

    def _count(self, event: events.Event) -> None:
        match event:
            case events.Submitted(info=info):
                self._tasks[info.task_id] = _Seen(info)
            case events.Polled(info=info):
                self._polls += 1
                self._tasks[info.task_id] = _Seen(info)
                self._detached.discard(info.task_id)
            case events.SubmissionInDoubt():
                self._doubts += 1
            case events.WaitAbandoned(task_id=task_id):
                self._detached.add(task_id)
            case events.Saved():
                self._saved += 1
            case _:
                pass

    def _on_screen(self) -> "_Cell | _Terminal | _Stream":
        if self._screen is None:
            self._screen = _screen()
        return self._screen

    def _show(self) -> None:
        self._stop_timer()
        self._now = self._shown_at = _now()
        self._began = self._now if self._began is None else self._began
        self._on_screen().show(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expected(self) -> int:
        return max(self._total or 0, len(self._tasks))

    def _over(self) -> int:
        return sum(seen.status.is_terminal for seen in self._tasks.values())

    def _headline(self) -> str:
        return f"{self._over():,} of {_text.counted(self._expected(), 'task')} over"

    def _statuses(self) -> dict[str, int]:
        """How many tasks have each status, those first that are over."""
        counts = Counter(seen.status for seen in self._tasks.values())
        order = sorted(TaskStatus, key=lambda status: not status.is_terminal)
        return {str(status): counts[status] for status in order if counts[status]} | (
            {"in doubt": self._doubts} if self._doubts else {}
        )

    def _facts(self) -> Iterator[str]:
        if len(self._tasks) < self._expected():
            yield f"{len(self._tasks):,} submitted"
        if self._detached:
            yield f"{len(self._detached):,} no longer waited for"
        if self._saved:
            yield f"{self._saved:,} saved"
        yield _text.counted(self._polls, "poll")
        if self._began is not None and self._now is not None:
            yield f"{self._now - self._began:,.1f} s"
        points = [seen.points for seen in self._tasks.values() if seen.points is not None]
        if points:
            yield f"{dollars(sum(points))} USD"
        if self._ending:
            yield self._ending

    def _repr_html_(self) -> str:
        counts, expected = self._statuses(), self._expected() or 1
        good = counts.get(TaskStatus.COMPLETED, 0)
        bar = _html.meter(good / expected, (self._over() - good) / expected)
        badges = [_html.badge(status, number=number) for status, number in counts.items()]
        facts = _html.element("span", _html.joined(self._facts(), by=_html.DOT), style=_html.FAINT)
        line = _html.joined([_html.element("b", self._headline()), *badges, facts], by=_html.SPACE)
        return _html.card(line, bar)

    def __str__(self) -> str:
        counts = [f"{number:,} {status}" for status, number in self._statuses().items()]
        return ", ".join([self._headline(), *counts, *self._facts()])

    def __repr__(self) -> str:
        return f"<Progress {self}>"


class _Seen:
    """What is kept of a task: where it stands, and what it cost once it is over."""

    __slots__ = ("points", "status")

    def __init__(self, info: TaskInfo) -> None:
        self.status = info.status
        self.points = info.usage.consume if info.usage is not None and info.is_terminal else None


def _now() -> float | None:
    """The time of the event loop, if one runs."""
    try:
        return Clock().monotonic()
    except RuntimeError:
        return None
