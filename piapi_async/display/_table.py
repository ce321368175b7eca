"""`Table`: many tasks and what came of them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from piapi_async import _html, _text, _validators, errors
from piapi_async.prices import dollars
from piapi_async.task import TaskInfo, TaskStatus

ROWS_MOST = 200
"""Rows that a table shows, unless told otherwise."""

INLINE_MOST = 16 * 1024 * 1024
"""Characters that the pictures inside one table may take together: a page much larger than that is slow."""

LINK_MOST = 8 * 1024
"""Characters that a link to a picture may take."""

REASON_WIDTH = 60
"""Characters of a reason in a table of plain text."""

_NOTHING = "-"


class HasBytes(Protocol):
    """A picture that holds its bytes, such as `Session.fetch` gives."""

    @property
    def data(self) -> bytes:
        """The file's content."""
        ...

    @property
    def media_type(self) -> str:
        """What it is, e.g. `"image/png"`."""
        ...


@attrs.frozen(kw_only=True)
class Row:
    """One task in a `Table`.

    Attributes:
        name: What to call it; its task id when empty.

        info: The task as last seen, if it was.

        error: What was raised instead of a result, if anything was.

        pictures: Its pictures as bytes, shown in place of the links in `info`, which live three days.
    """

    name: str = ""
    info: TaskInfo | None = None
    error: BaseException | None = None
    pictures: Sequence[HasBytes] = ()

    @property
    def status(self) -> str:
        """In a word, what became of the task: its status, `"in doubt"`, or the error's class."""
        if isinstance(self.error, errors.SubmissionInDoubtError):
            return "in doubt"
        if self.info is not None and (self.error is None or self.info.status is not TaskStatus.COMPLETED):
            return str(self.info.status)
        return _NOTHING if self.error is None else type(self.error).__name__

    @property
    def reason(self) -> str:
        """Why there is no result, as far as that is known; otherwise empty."""
        told = "" if self.info is None else self.info.reason
        return told or ("" if self.error is None else str(self.error))

    @property
    def number_of_pictures(self) -> int:
        """How many pictures there are."""
        return len(self.pictures) or (0 if self.info is None else len(self.info.images))

    @property
    def points(self) -> int | None:
        """What the service says it costs, in points."""
        return None if self.info is None or self.info.usage is None else self.info.usage.consume

    def cells(self) -> tuple[str, ...]:
        """Name, model, seconds and cost, for people."""
        info = self.info
        return (
            self.name or (_NOTHING if info is None else info.task_id),
            _NOTHING if info is None else info.model.removeprefix("Qubico/"),
            _NOTHING if info is None or info.seconds is None else f"{info.seconds:,.1f}",
            _NOTHING if self.points is None else dollars(self.points),
        )

    def thumbnail(self, *, most: int) -> _html.Html:
        """The first picture, small, and how many more there are.

        Args:
            most: Characters it may take; a larger one is shown by its link.
        """
        if not self.number_of_pictures:
            return _html.escaped("")
        first = next((shown for shown in self._ways() if len(shown) <= most), "(too large to show)")
        more = self.number_of_pictures - 1
        return _html.joined([first, *[f"+{more}"] * bool(more)], by=_html.SPACE)

    def _ways(self) -> Iterator[_html.Html]:
        for picture in self.pictures[:1]:
            yield _html.picture(picture.data, media_type=picture.media_type, style=_html.THUMBNAIL)
        if self.info is not None and self.info.images:
            yield _html.image(self.info.images[0].url, style=_html.THUMBNAIL)


def _row(item: object, *, name: str) -> Row:
    if isinstance(item, Row):
        return attrs.evolve(item, name=item.name or name)
    if isinstance(item, TaskInfo):
        return Row(name=name, info=item)
    if isinstance(item, BaseException):
        return Row(name=name, info=_info(item), error=item)
    if not (hasattr(item, "info") or hasattr(item, "error")):
        allowed = "a TaskInfo, an exception, a Row, or something with .info or .error"
        raise _validators.refuse(TypeError, name="each of items", allowed=allowed, value=item)
    return Row(
        name=name or str(getattr(item, "name", None) or ""),
        info=_info(item),
        error=getattr(item, "error", None),
        pictures=getattr(item, "pictures", ()),
    )


def _info(item: object) -> TaskInfo | None:
    """What it knows of a task: other people's exceptions, too, may have an `info`, of another kind."""
    info = getattr(item, "info", None)
    return info if isinstance(info, TaskInfo) else None


class Table:
    """Many tasks and what came of them; it displays itself in a notebook, and prints as aligned lines.

    Args:
        items: `TaskInfo`, exceptions (as `asyncio.gather(..., return_exceptions=True)` gives them), `Row`, or anything
            with `.info` or `.error`; a mapping gives them names.

        limit: The most rows to show. When there are more tasks than that, those that completed are only counted.

    Raises:
        TypeError: An item is none of these, or `limit` is no whole number.
        ValueError: `limit` is negative.
    """

    def __init__(self, items: Iterable[object] | Mapping[str, object], *, limit: int = ROWS_MOST) -> None:
        _validators.count("limit", limit)
        pairs = items.items() if isinstance(items, Mapping) else (("", item) for item in items)
        self._rows = tuple(_row(item, name=str(name)) for name, item in pairs)
        few = len(self._rows) <= limit
        self._shown = [row for row in self._rows if few or row.status != TaskStatus.COMPLETED][:limit]
        self._has_pictures = any(row.number_of_pictures for row in self._shown)
        self._has_reasons = any(row.reason for row in self._shown)

    @property
    def rows(self) -> tuple[Row, ...]:
        """All tasks, the ones that are not shown included."""
        return self._rows

    def _total(self) -> str:
        counts = Counter(row.status for row in self._rows)
        order = sorted(counts, key=lambda status: status != TaskStatus.COMPLETED)
        told = ", ".join(f"{counts[status]:,} {status}" for status in order)
        return _text.counted(len(self._rows), "task") + f": {told}" * bool(told)

    def _pictures(self) -> str:
        return _text.counted(sum(row.number_of_pictures for row in self._rows), "picture")

    def _cost(self) -> str:
        known = [row.points for row in self._rows if row.points is not None]
        return dollars(sum(known)) if known else _NOTHING

    def _hidden(self) -> str:
        hidden = len(self._rows) - len(self._shown)
        return f"{hidden:,} not shown" if hidden else ""

    def _repr_html_(self) -> str:
        pictures, reasons = self._has_pictures, self._has_reasons
        heading = [""] * pictures + ["task", "status", "model", "seconds", "USD"] + ["reason"] * reasons
        total = [_html.unbroken(self._total()), *[""] * 3, self._cost()]
        footing = [_html.unbroken(self._pictures())] * pictures + total + [""] * reasons
        table = _html.table(self._html_rows(), heading=heading, footing=footing)
        note = _html.element("div", self._hidden(), style=_html.FAINT) if self._hidden() else ""
        return _html.element("div", table, note, style="overflow-x:auto")

    def _html_rows(self) -> Iterator[Sequence[object]]:
        left = INLINE_MOST
        for row in self._shown:
            name, *others = row.cells()
            thumbnail = row.thumbnail(most=max(left, LINK_MOST))
            left -= len(thumbnail)
            told = [name, _html.badge(row.status), *map(_html.unbroken, others)]
            yield [*[thumbnail] * self._has_pictures, *told, *[row.reason] * self._has_reasons]

    def __str__(self) -> str:
        heading = ("task", "status", "pictures", "model", "seconds", "USD", "reason")
        lines = [heading, *map(_text_cells, self._shown)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        told = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        total = f"{self._total()}; {self._pictures()}; {self._cost()} USD"
        return "\n".join([*told, "; ".join(filter(None, (total, self._hidden())))])

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # noqa: FBT001 - IPython calls it so
        printer.text(str(self))

    def __repr__(self) -> str:
        return f"<Table {self._total()}>"


def _text_cells(row: Row) -> tuple[str, ...]:
    name, model, seconds, cost = row.cells()
    cells = (name, row.status, str(row.number_of_pictures), model, seconds, cost, row.reason)
    return tuple(_text.clipped(cell, most=REASON_WIDTH) for cell in cells)
