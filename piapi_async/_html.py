"""Values as HTML for notebooks: snippets that stand alone, with inline styles and without scripts.

Text, whoever wrote it, becomes HTML in `escaped` alone, and an address the source of a picture in `image` alone: only
http(s) links and data URIs of pictures do. Colours are the page's own, or such as can be read on light and dark.
"""

import base64
import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from piapi_async import _media, _text, _validators
from piapi_async.prices import dollars

if TYPE_CHECKING:
    from piapi_async.account import Account
    from piapi_async.task import TaskInfo

TEXT_MOST = 1000
"""Characters of one text that are shown."""

PICTURES_MOST = 16
"""Pictures of one task that are shown."""

PICTURE = "max-width:100%;max-height:256px;border-radius:6px;display:block"
THUMBNAIL = "max-width:96px;max-height:64px;border-radius:4px;display:inline-block;vertical-align:middle;margin:0"

FAINT = "opacity:.7"
LINE = "1px solid rgba(128,128,128,.4)"
CODE = "font-family:monospace;background:none;padding:0;color:inherit;font-size:inherit"

GREEN, RED, BLUE, AMBER, GREY, PURPLE = "#1a7f37", "#cf222e", "#0969da", "#9a6700", "#6e7781", "#8250df"

_LOOKS = {
    "completed": ("\N{CHECK MARK}", GREEN),
    "failed": ("\N{BALLOT X}", RED),
    "canceled": ("\N{MULTIPLICATION SIGN}", GREY),
    "processing": ("\N{BLACK RIGHT-POINTING SMALL TRIANGLE}", BLUE),
    "pending": ("\N{BULLET}", AMBER),
    "staged": ("\N{BULLET}", AMBER),
    "retry": ("\N{CLOCKWISE OPEN CIRCLE ARROW}", AMBER),
    "unknown": ("?", PURPLE),
    "in doubt": ("?", PURPLE),
}
"""Each status with its sign and its colour; any other word is that of an error."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


_NONE = Html("")


def escaped(content: object) -> Html:
    """Anything as HTML: what is HTML stays, all else becomes one line of text, cut where it is endless."""
    if isinstance(content, Html):
        return content
    return Html(html.escape(_text.clipped(str(content), most=TEXT_MOST)))


SPACE, DOT = Html(" "), Html(" &middot; ")


def joined(parts: Iterable[object], *, by: Html = _NONE) -> Html:
    """Several parts as one."""
    return Html(by.join(map(escaped, parts)))


def element(name: str, *content: object, style: str = "") -> Html:
    """An element around what is inside, which is escaped."""
    return Html(f"{_opened(name, style=style)}{joined(content)}</{name}>")


def _opened(name: str, **attributes: str) -> str:
    given = "".join(f' {key}="{html.escape(value)}"' for key, value in attributes.items() if value)
    return f"<{name}{given}>"


def image(url: str, *, style: str = PICTURE, alt: str = "picture") -> Html:
    """A picture by its address: a link to itself where it is on the web.

    An address that is neither http(s) nor the data URI of a picture is not followed, and not shown.
    """
    shown = _opened("img", src=url, alt=alt, style=style, loading="lazy", referrerpolicy="no-referrer")
    if _validators.is_http_url(url):
        return Html(f"{_opened('a', href=url, target='_blank', rel='noopener noreferrer')}{shown}</a>")
    if url[:11].lower() == "data:image/" and _media.is_picture_data_uri(url):
        return Html(shown)
    return element("span", "(no address of a picture)", style=FAINT)


def picture(data: bytes, *, media_type: str, style: str = PICTURE, alt: str = "picture") -> Html:
    """A picture by its bytes, which the page then holds itself.

    Args:
        data: The file's content.

        media_type: What it is, e.g. `"image/png"`; nothing but pictures is shown.

        style: How large it may be.

        alt: What is read where it cannot be seen.
    """
    return image(f"data:{media_type};base64,{base64.b64encode(data).decode()}", style=style, alt=alt)


def badge(status: str, *, number: int | None = None) -> Html:
    """A status in its colour, with a sign for those who do not see it, and with how many have it."""
    sign, colour = _LOOKS.get(status, ("\N{BALLOT X}", RED))
    words = status if number is None else f"{number:,} {status}"
    style = f"display:inline-block;padding:0 .65em;border-radius:1em;background:{colour};color:#fff"
    style = f"{style};white-space:nowrap;margin-right:4px"
    return element("span", f"{sign} {words}", style=style)


def card(*content: object) -> Html:
    """A frame around one value."""
    style = f"display:inline-block;max-width:100%;box-sizing:border-box;border:{LINE};border-radius:8px"
    return element("div", *content, style=f"{style};padding:10px 14px;font-size:13px;line-height:1.6")


def code(text: object) -> Html:
    """An id, or the like."""
    return element("code", text, style=CODE)


def unbroken(text: object) -> Html:
    """A short text that stays on one line."""
    return element("span", text, style="white-space:nowrap")


def table(rows: Iterable[Sequence[object]], *, heading: Sequence[object] = (), footing: Sequence[object] = ()) -> Html:
    """Rows of cells, all to the left.

    Args:
        rows: What is in the cells.

        heading: The row above them, if any.

        footing: The row below them, if any.
    """
    above = [element("thead", _row(heading, cell="th", bold=True))] if heading else []
    below = [element("tfoot", _row(footing, cell="td", bold=True))] if footing else []
    body = element("tbody", joined(_row(row, cell="td") for row in rows))
    style = "border-collapse:collapse;table-layout:auto;width:auto;border:none;margin:0;font-size:13px;line-height:1.6"
    return element("table", *above, body, *below, style=style)


def _row(cells: Sequence[object], *, cell: str, bold: bool = False) -> Html:
    # Jupyter's own style puts cells to the right, so each cell has to say it.
    style = f"text-align:left;padding:4px 14px 4px 0;border:0;border-bottom:{LINE};max-width:36em"
    style += ";font-weight:600" * bold
    return element("tr", *(element(cell, content, style=style) for content in cells), style="background:none")


def meter(good: float, bad: float) -> Html:
    """A bar of which parts are filled.

    Args:
        good: The share of what went well, from 0 to 1.

        bad: The share of what did not; both together are at most 1.
    """
    parts = [
        element("div", style=f"width:{share:.2%};background:{colour}") for share, colour in ((good, GREEN), (bad, RED))
    ]
    style = "display:flex;height:8px;border-radius:4px;overflow:hidden;background:rgba(128,128,128,.3);margin:4px 0"
    return element("div", *parts, style=style)


def task(info: "TaskInfo") -> Html:
    """A task as a card: where it stands, its times, what it costs, why it failed, its pictures."""
    name = element("b", joined(filter(None, (info.model, info.task_type)), by=DOT))
    facts = joined([code(info.task_id), *_facts(info)], by=DOT)
    parts = [element("div", badge(info.status), SPACE, name), element("div", facts, style=FAINT)]
    if info.reason:
        parts.append(element("div", info.reason, style=f"border-left:3px solid {RED};padding-left:8px;margin-top:6px"))
    if info.images:
        parts.append(_gallery(info))
    return card(*parts)


def _facts(info: "TaskInfo") -> Iterator[str]:
    if info.status == "unknown":
        yield f"the service says {info.raw_status!r}"
    if info.created_at is not None:
        yield f"{info.created_at:%Y-%m-%d %H:%M:%S} UTC"
    if info.seconds is not None:
        yield f"{info.seconds:,.1f} s{_split(info)}"
    if info.usage is not None:
        yield f"{dollars(info.usage.consume)} USD" + ", not final" * (not info.is_terminal)


def _split(info: "TaskInfo") -> str:
    if info.created_at is None or info.started_at is None or info.ended_at is None:
        return ""
    queued, worked = info.started_at - info.created_at, info.ended_at - info.started_at
    return f" ({queued.total_seconds():,.1f} s queued, {worked.total_seconds():,.1f} s at work)"


def _gallery(info: "TaskInfo") -> Html:
    shown = [
        image(picture.url, alt=f"picture {number} of task {info.task_id}")
        for number, picture in enumerate(info.images[:PICTURES_MOST], start=1)
    ]
    left = len(info.images) - len(shown)
    more = [element("span", f"and {left} more", style=FAINT)] if left else []
    return element("div", *shown, *more, style="display:flex;flex-wrap:wrap;gap:8px;align-items:center;margin-top:8px")


def handle(task_id: str, *, info: "TaskInfo | None") -> Html:
    """Somebody's end of a task: the task as last seen."""
    if info is not None:
        return element("div", element("div", "TaskHandle, the task as last seen:", style=FAINT), task(info))
    return card(element("div", joined(["TaskHandle", code(task_id), "not seen yet"], by=SPACE)))


def account(values: "Account") -> Html:
    """The account's facts that are known, in a table."""
    facts = {
        "plan": values.plan,
        "balance": None if values.balance_usd is None else f"{values.balance_usd:,.2f} USD",
        "points remaining": _points(values.points_remaining),
        "points frozen": _points(values.points_frozen),
        "points used": _points(values.points_used),
        "tasks at once": values.max_concurrent_tasks,
    }
    rows = [(element("span", name, style=FAINT), value) for name, value in facts.items() if value is not None]
    return card(table(rows)) if rows else card("the service said nothing of the account")


def _points(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"
