"""How a batch comes to a halt: when it is told to, when time is up, or when going on has no point."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import attrs


@attrs.define(eq=False)
class Brake:
    """Says whether to go on, and why not.

    Attributes:
        is_on: Whether nothing more is to be begun.

        is_detached: Whether what is in flight is let go as well.

        reason: What put the brake on, or `None` when it was the user.

        is_broken: Whether that was a stream of jobs.
    """

    is_on: bool = False
    is_detached: bool = False
    reason: Exception | None = None
    is_broken: bool = False
    _idle: "set[asyncio.Task[object]]" = attrs.field(factory=set, init=False)

    def put_on(self, reason: Exception | None = None) -> None:
        """Begin nothing more; the first reason counts."""
        self.is_on = True
        self.reason = self.reason or reason
        current = asyncio.current_task() if self._idle else None
        for task in self._idle:
            if task is not current:
                task.cancel()

    @contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """Here nothing is under way: the brake ends the waiting at once."""
        task = asyncio.current_task()
        assert task is not None
        self._idle.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.is_on or self.is_detached:
                raise
            task.uncancel()
        finally:
            self._idle.discard(task)

    @contextmanager
    def on_error(self, *, is_stream: bool = False) -> Iterator[None]:
        """What goes wrong in here puts the brake on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whoever waits for outcomes gets it
            self.is_broken = self.is_broken or is_stream
            self.put_on(error)
