"""The markup of the report page. Values in, text out; whatever comes from outside is escaped here, once."""

import html
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from piapi_async.display._report_thumbnails import Picture

if TYPE_CHECKING:
    from piapi_async.display._report import ReportRow

STATES = ("completed", "failed", "canceled", "in_doubt", "refused", "in_flight", "submitting", "not_sent")
"""The states that have a place and a colour of their own; any other word is shown as well."""

MOST = 4
"""How many of a row's pictures the list has room for."""

NO_PILLOW = (
    '<p class="notice">There are no small pictures here: this report was written without Pillow '
    "(<code>pip install pillow</code>). Links lead to the pictures.</p>"
)

_UNPRINTABLE = re.compile("[\x00\ud800-\udfff]")  # what HTML cannot hold


@attrs.frozen(kw_only=True)
class Item:
    """One row, ready to be shown: all texts are such as HTML can hold, and all figures are written out."""

    key: str
    state: str
    prompt: str
    model: str
    type: str
    settings: Sequence[str]
    id: str
    seconds: float | None
    usd: float | None
    time: str
    cost: str
    reason: str
    inputs: Sequence[Picture]
    outputs: Sequence[Picture]


class Totals:
    """What the rows come to."""

    def __init__(self) -> None:
        self.rows = 0
        self.pictures = 0
        self.counts = {"state": Counter[str](), "model": Counter[str](), "type": Counter[str]()}
        self._seconds: list[float] = []
        self._usd: list[float] = []

    def add(self, item: Item) -> None:
        """Count a row."""
        self.rows += 1
        self.pictures += len(item.outputs)
        for field, counter in self.counts.items():
            counter[getattr(item, field)] += 1
        self._seconds += [item.seconds] if item.seconds is not None else []
        self._usd += [item.usd] if item.usd is not None else []

    def lines(self) -> Iterator[tuple[str, str]]:
        """Each sum with its name."""
        yield "rows", f"{self.rows:,}"
        yield "pictures", f"{self.pictures:,}"
        if self._usd:
            yield "US dollars", f"{math.fsum(self._usd):,.2f}"
        if self._seconds:
            yield "median time", duration(statistics.median(self._seconds))
            yield "time of all tasks", duration(math.fsum(self._seconds))


def duration(seconds: float) -> str:
    """A length of time, with two places that matter."""
    if seconds < 99.95:  # noqa: PLR2004 - rounds to 100
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:  # noqa: PLR2004 - as people count
        return f"{minutes} min"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def plain(text: str) -> str:
    """A text without what HTML cannot hold: no lone surrogates, no NUL, one kind of line end."""
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", paired).replace("\r\n", "\n").replace("\r", "\n")


def escape(text: str) -> str:
    """A text as markup, for elements and for quoted attributes."""
    return html.escape(plain(text))


def item(row: "ReportRow", *, inputs: Sequence[Picture], outputs: Sequence[Picture]) -> Item:
    """A row, made ready."""
    return Item(
        key=plain(row.key),
        state=plain(row.state),
        prompt=plain(row.prompt),
        model=plain(row.model),
        type=plain(row.task_type),
        settings=[plain(f"{name} {_written(value)}") for name, value in row.settings.items()],
        id=plain(row.task_id or ""),
        seconds=row.seconds,
        usd=row.usd,
        time="" if row.seconds is None else f"{row.seconds:.1f} s",
        cost="" if row.usd is None else f"${row.usd:,.4f}",
        reason=plain(row.reason),
        inputs=[_plain_picture(picture) for picture in inputs],
        outputs=[_plain_picture(picture) for picture in outputs],
    )


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _plain_picture(picture: Picture) -> Picture:
    return attrs.evolve(picture, name=plain(picture.name), words=plain(picture.words))


def _element(tag: str, content: str, **attributes: str | None) -> str:
    written = (
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{''.join(written)}>{content}</{tag}>"


def row(item: Item) -> str:
    """A row's markup; `report.js` makes the same, and a test compares the two."""
    pair = (
        _pictures(item.inputs, kind="input")
        + _element("span", "\N{RIGHTWARDS ARROW}", class_="arrow", aria_hidden="true")
        + _pictures(item.outputs, kind="output")
    )
    text = (
        _element("p", escape(item.prompt), class_="prompt", dir="auto")
        + _element("p", _settings([item.model, item.type, *item.settings]), class_="settings")
        + _element("p", escape(item.reason), class_="reason", dir="auto")
    )
    facts = (
        _element("span", escape(words(item.state)), class_=state_class(item.state))
        + _element("span", escape(item.time), class_="time")
        + _element("span", escape(item.cost), class_="cost")
        + _element("button", escape(item.key), class_="key", type="button", dir="auto", aria_haspopup="dialog")
        + _element("span", escape(item.id), class_="id")
    )
    parts = (_element("div", part, class_=name) for part, name in ((pair, "pair"), (text, "text"), (facts, "facts")))
    return _element("li", "".join(parts), class_="row")


def _settings(settings: Iterable[str]) -> str:
    return "".join(_element("span", escape(setting), dir="auto") for setting in settings if setting)


def _pictures(pictures: Sequence[Picture], *, kind: str) -> str:
    number = len(pictures)
    if not pictures:
        return _element("div", f"no {kind}", class_="pictures none")
    shown = [_picture(one, label=f"{kind} {at} of {number}") for at, one in enumerate(pictures, start=1)]
    if number > MOST:
        shown.append(_element("span", f"+{number - MOST}", class_="more"))
    return _element("div", "".join(shown), class_=f"pictures n{min(number, MOST)}")


def _picture(picture: Picture, *, label: str) -> str:
    looks = "picture" if picture.small is None else f"picture p{picture.small}"
    named = f"{label}: {picture.name}"
    content = escape(picture.words)
    if picture.href is None:
        return _element("span", content, class_=looks, title=named, role="img", aria_label=named)
    link = {"href": picture.href, "target": "_blank", "rel": "noopener noreferrer"}
    return _element("a", content, class_=looks, title=named, aria_label=named, **link)


def words(state: str) -> str:
    """A state, for people."""
    return state.replace("_", " ")


def state_class(state: str) -> str:
    """A state, for the style sheet."""
    return f"state {state}" if state in STATES else "state"


def about(lines: Mapping[str, str]) -> str:
    """What there is to say at the top."""
    return "".join(_line(name, text) for name, text in lines.items())


def sums(totals: Totals) -> str:
    """The totals' markup."""
    return "".join(_line(name, text) for name, text in totals.lines())


def _line(name: str, text: str) -> str:
    return _element("div", _element("dt", escape(name)) + _element("dd", escape(text)))


def chips(totals: Totals) -> str:
    """The filters' markup: the states, and what else there is more than one of."""
    return "".join(
        _group(field, counter) for field, counter in totals.counts.items() if field == "state" or len(counter) > 1
    )


def _group(field: str, counter: Counter[str]) -> str:
    def place(value: str) -> tuple[int, str]:
        return STATES.index(value) if field == "state" and value in STATES else len(STATES), value

    buttons = "".join(_chip(field, value, counter[value]) for value in sorted(counter, key=place))
    return _element("div", buttons, class_="chips", role="group", aria_label=f"Filter by {field}")


def _chip(field: str, value: str, number: int) -> str:
    label = words(value) if field == "state" else value
    looks = state_class(value) if field == "state" else None
    content = _element("span", escape(label or "none"), class_=looks, dir="auto") + _element("b", f"{number:,}")
    chip = {"data_field": field, "data_value": value, "aria_pressed": "false"}
    return _element("button", content, class_="chip", type="button", **chip)


def without_script(*, shown: int, rows: int) -> str:
    """What is said where there is no JavaScript."""
    if shown == rows:
        return ""
    return _element("p", f"The first {shown} of {rows:,} rows. JavaScript shows the others.", class_="notice")
