"""How tasks come along, for people: a live display on a terminal, a few plain lines elsewhere."""

import abc
from types import TracebackType
from typing import Self

import attrs
from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from piapi_async import events
from piapi_async._text import one_line
from piapi_async.task import Submittable, TaskInfo

_COLOURS = {"processing": "cyan", "saving": "cyan", "saved": "green"}


class Screen(abc.ABC):
    """A display that is live while it is entered, if the console is a terminal.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = console.get_time()
        self._spinner = Spinner("line" if console.options.ascii_only else "dots", style="cyan")
        self._live = Live(self, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_interactive:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    @abc.abstractmethod
    def __rich__(self) -> RenderableType:
        """What it looks like now; asked for several times a second."""

    @property
    def now(self) -> float:
        """Seconds since it was made."""
        return self._console.get_time() - self._begun

    def say(self, line: str) -> None:
        """Show a line, above the display if there is one."""
        self._console.print(Text(line), soft_wrap=True)

    def note(self, line: str) -> None:
        """Show a line, unless the display shows it already."""
        if not self._live.is_started:
            self.say(f"{self.now:6.1f} s  {line}")


class Glance(Screen):
    """One task in one line; an observer."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._status = "connecting"
        self._polls = 0

    def __call__(self, event: events.Event) -> None:
        """Take one event."""
        match event:
            case events.Submitted(info=info):
                self._status = status_of(info)
            case events.Polled(info=info):
                self._polls += 1
                self._show(status_of(info))
            case _:
                pass

    def __rich__(self) -> RenderableType:
        self._spinner.update(text=Text(f"{self._status}, {polls(self._polls)}, {self.now:.0f} s"))
        return self._spinner

    def _show(self, status: str) -> None:
        if status != self._status:
            self._status = status
            self.note(status)


@attrs.define(kw_only=True, eq=False)
class Row:
    """One task on the board."""

    name: str
    model: str
    task_type: str
    begun: float
    task_id: str | None = None
    status: str = "submitting"
    polls: int = 0
    ended: float | None = None


class Board(Screen):
    """Many tasks in a table; an observer."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._rows: list[Row] = []

    def __call__(self, event: events.Event) -> None:
        """Take one event."""
        if isinstance(event, events.Polled):
            for row in self._rows:
                if row.task_id == event.info.task_id:
                    row.polls += 1
                    row.status = status_of(event.info)

    def __rich__(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for row in tuple(self._rows):
            table.add_row(*self._cells(row))
        return table

    def add(self, name: str, request: Submittable) -> Row:
        """A row for a task that is about to be submitted."""
        row = Row(name=name, model=short_model(request.model), task_type=request.task_type, begun=self.now)
        self._rows.append(row)
        return row

    def follow(self, row: Row, *, task_id: str) -> None:
        """The row's task has an id now."""
        row.task_id, row.status = task_id, "pending"
        self.note(f"{row.name:<10} submitted")

    def finish(self, row: Row) -> None:
        """The row's pictures are on disk."""
        row.status, row.ended = "saved", self.now
        self.note(f"{row.name:<10} saved after {polls(row.polls)}")

    def _cells(self, row: Row) -> tuple[RenderableType, ...]:
        colour = _COLOURS.get(row.status, "yellow")
        done = Text("*" if self._console.options.ascii_only else "✓", colour)
        return (
            self._spinner if row.ended is None else done,
            Text(row.name, "bold"),
            Text(row.model),
            Text(row.task_type),
            Text(f"{row.status:<10}", colour),
            Text(f"{polls(row.polls):>8}", "dim"),
            Text(f"{(row.ended or self.now) - row.begun:5.1f} s", "dim"),
        )


def polls(number: int) -> str:
    """The number with its word."""
    return f"{number} poll" + "s" * (number != 1)


def short_model(model: str) -> str:
    """A model's name without what all Flux models share."""
    return model.removeprefix("Qubico/flux1-")


def status_of(info: TaskInfo) -> str:
    """The service's word for where a task stands, fit for a terminal."""
    return one_line(info.raw_status) or str(info.status)
