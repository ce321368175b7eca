"""How tasks come along, for people: a live table on a terminal, a few plain lines elsewhere."""

from types import TracebackType
from typing import Self

import attrs
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from piapi_async import events
from piapi_async.task import Submittable

_COLOURS = {"processing": "cyan", "saving": "cyan", "saved": "green", "completed": "green", "failed": "red"}


@attrs.define(kw_only=True, eq=False)
class Row:
    """One task on the board."""

    name: str
    model: str
    task_type: str
    begun: float
    task_id: str | None = None
    status: str = "submitting"
    looks: int = 0
    ended: float | None = None

    def seconds(self, now: float) -> float:
        """How long it has been going on, or took."""
        return (self.ended or now) - self.begun


class Board:
    """An observer that shows its rows while it is entered.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self.rows: list[Row] = []
        self._console = console
        self._spinner = Spinner("line" if console.options.ascii_only else "dots", style="cyan")
        self._live = Live(self, console=console, refresh_per_second=8, transient=True)
        self._begun = console.get_time()

    def __enter__(self) -> Self:
        if self._console.is_interactive:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: events.Event) -> None:
        """Take one event."""
        if isinstance(event, events.Looked):
            for row in self.rows:
                if row.task_id == event.info.task_id:
                    row.looks += 1
                    row.status = event.info.raw_status.strip().lower()

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for row in tuple(self.rows):
            table.add_row(*self._cells(row))
        return table

    def say(self, line: str) -> None:
        """Show a line, above the table if there is one."""
        self._console.print(Text(line), soft_wrap=True)

    def add(self, name: str, request: Submittable) -> Row:
        """A row for a task that is about to be submitted."""
        model = request.model.rpartition("/flux1-")[2]
        row = Row(name=name, model=model, task_type=request.task_type, begun=self._console.get_time())
        self.rows.append(row)
        return row

    def follow(self, row: Row, *, task_id: str) -> None:
        """The row's task has an id now."""
        row.task_id, row.status = task_id, "pending"
        self._note(row, "submitted")

    def finish(self, row: Row, *, status: str) -> None:
        """The row's task is over."""
        row.status, row.ended = status, self._console.get_time()
        self._note(row, f"{status} after {_looks(row)}")

    def _note(self, row: Row, what: str) -> None:
        if not self._live.is_started:
            self.say(f"{self._console.get_time() - self._begun:5.1f} s  {row.name:<10}  {what}")

    def _cells(self, row: Row) -> tuple[Spinner | Text, ...]:
        colour = _COLOURS.get(row.status, "yellow")
        mark = self._spinner if row.ended is None else Text("*" if self._console.options.ascii_only else "✓", colour)
        return (
            mark,
            Text(row.name, "bold"),
            Text(row.model),
            Text(row.task_type),
            Text(f"{row.status:<10}", colour),
            Text(_looks(row), "dim"),
            Text(f"{row.seconds(self._console.get_time()):5.1f} s", "dim"),
        )


def _looks(row: Row) -> str:
    return f"{row.looks} look" + "s" * (row.looks != 1)
