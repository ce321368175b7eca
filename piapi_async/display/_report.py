"""The report of a batch: one page in one file, which can be mailed, and which asks nobody for anything.

The page is written from front to back in the order in which a browser wants it: the head with its totals, the first
rows as markup with their small pictures, all rows as JSON, the script, and last the small pictures of all other rows.
So it is seen before most of it is read. The totals are known only after the last row: rows and pictures wait in two
temporary files until then, not in memory. The script shows those rows that are in sight, made from the JSON in the
same shape as the markup of the first ones (`_report_html`), and the page is readable without it.
"""

import base64
import hashlib
import itertools
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import attrs

from piapi_async import _validators
from piapi_async.display import _report_html
from piapi_async.display._report_html import Item, Totals
from piapi_async.display._report_thumbnails import Pictures

TOGETHER = 50
"""How many rows' pictures are made small at a time, and wait in memory."""

FIRST = 2 * TOGETHER
"""How many rows can be read without JavaScript."""

_text = _validators.instance_of(str, allowed="a string")
_amount = _validators.optional(_validators.number(at_least=0))
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}' '{first}'; img-src data:; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'"
)


@attrs.frozen(kw_only=True)
class ReportRow:
    """One job of a batch, as the report shows it.

    Attributes:
        key: The job's name in the ledger.

        state: Where it stands: `completed`, `failed`, `canceled`, `in_doubt`, `in_flight`, `not_sent`, `refused`,
            or any other word.

        prompt: What was asked for.

        model: As it was sent.

        task_type: As it was sent.

        settings: The other fields that were set, without pictures.

        task_id: The service's name for it, once there is one.

        seconds: How long it took; at least 0.

        usd: What it cost, in US dollars; at least 0.

        reason: Why it failed, was refused, or is in doubt.

        inputs: The pictures that were sent: local files, http(s) URLs, data URIs.

        outputs: The pictures that came, as files on disk.

    Raises:
        TypeError: A text is no string, or an amount no number.
        ValueError: An amount is negative or not finite.
    """

    key: str = attrs.field(validator=_text)
    state: str = attrs.field(validator=_text)
    prompt: str = attrs.field(default="", validator=_text)
    model: str = attrs.field(default="", validator=_text)
    task_type: str = attrs.field(default="", validator=_text)
    settings: Mapping[str, Any] = _NOTHING
    task_id: str | None = attrs.field(default=None, validator=_validators.optional(_text))
    seconds: float | None = attrs.field(default=None, validator=_amount)
    usd: float | None = attrs.field(default=None, validator=_amount)
    reason: str = attrs.field(default="", validator=_text)
    inputs: Sequence[Path | str] = ()
    outputs: Sequence[Path] = ()


def write_report(
    rows: Iterable[ReportRow], path: Path, *, title: str, about: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write the page, whole or not at all; one that is there already is replaced.

    Reads each picture file once. A file that is missing or broken has its place on the page, and is no error. Without
    Pillow there are links and no small pictures. The same rows and files give the same bytes.

    Args:
        rows: What to show, in this order; read once.

        path: The file; its directory is made if missing. Links to pictures are relative to it.

        title: The heading.

        about: More to say at the top, such as when it was.

    Raises:
        OSError: The disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _spool(path) as data, _spool(path) as later, _published(path) as file:
        draft = Draft(data=data, later=later, beside=path.parent)
        remaining = iter(rows)
        while some := list(itertools.islice(remaining, TOGETHER)):
            draft.add(some)
        head, middle, end = draft.frame(title=title, about=about)
        file.write(head)
        _copy(data, file)
        file.write(middle)
        _copy(later, file)
        file.write(end)


class Draft:
    """The page while its rows come in.

    Args:
        data: Takes the rows as JSON.

        later: Takes the small pictures that only later rows need.

        beside: The page's directory.
    """

    def __init__(self, *, data: IO[bytes], later: IO[bytes], beside: Path) -> None:
        self._data = data
        self._later = later
        self._pictures = Pictures(beside=beside, keep=self._keep)
        self._totals = Totals()
        self._first: list[Item] = []
        self._first_pictures: list[str] = []

    def add(self, rows: Sequence[ReportRow]) -> None:
        """Take the next rows."""
        self._pictures.prepare(source for row in rows for source in (*row.inputs, *row.outputs))
        for row in rows:
            self._add(row)

    def frame(self, *, title: str, about: Mapping[str, str]) -> tuple[bytes, bytes, bytes]:
        """What stands before the rows' JSON, between that and the later pictures, and at the end."""
        html, css, js = (_asset(name) for name in ("index.html", "report.css", "report.js"))
        first = "".join(self._first_pictures)
        values = {
            "title": _report_html.escape(title),
            "policy": _POLICY.format(script=_digest(js), style=_digest(css), first=_digest(first)),
            "css": css,
            "js": js,
            "about": _report_html.about(about),
            "notice": "" if self._pictures.can_shrink else _report_html.NO_PILLOW,
            "sums": _report_html.sums(self._totals),
            "chips": _report_html.chips(self._totals),
            "count": f"{self._totals.rows:,} of {self._totals.rows:,}",
            "without": _report_html.without_script(shown=len(self._first), rows=self._totals.rows),
            "rows": "\n".join(map(_report_html.row, self._first)),
            "first": first,
        }
        head, middle, end = (_filled(part, values) for part in html.split("{spool}"))
        return head, middle, end

    def _add(self, row: ReportRow) -> None:
        item = self._item(row)
        self._data.write((b",\n" if self._totals.rows else b"\n") + _json(attrs.asdict(item)))
        if self._totals.rows < FIRST:
            self._first.append(item)
        self._totals.add(item)

    def _item(self, row: ReportRow) -> Item:
        inputs = [self._pictures.picture(source) for source in row.inputs]
        outputs = [self._pictures.picture(source) for source in row.outputs]
        return _report_html.item(row, inputs=inputs, outputs=outputs)

    def _keep(self, number: int, uri: str) -> None:
        if self._totals.rows < FIRST:
            self._first_pictures.append(f'.p{number}{{background-image:url("{uri}")}}\n')
        else:
            self._later.write(f'<script type="text/plain" id="p{number}">{uri}</script>\n'.encode("ascii"))


def _json(value: Any) -> bytes:
    # Pure ASCII, and in a script element only "<" could mean anything but itself.
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").encode("ascii")


def _asset(name: str) -> str:
    return (resources.files("piapi_async") / "assets" / "report" / name).read_text("utf-8")


def _filled(part: str, values: Mapping[str, str]) -> bytes:
    # In one pass, so that what is filled in is not looked at again.
    pieces = part.split("{{")
    filled = (values[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:]))
    return (pieces[0] + "".join(filled)).encode()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _spool(path: Path) -> Any:
    # Beside the page: what the system keeps for temporary files may be small.
    return tempfile.TemporaryFile(dir=path.parent)


def _copy(source: IO[bytes], to: IO[bytes]) -> None:
    source.seek(0)
    shutil.copyfileobj(source, to)


@contextmanager
def _published(path: Path) -> Iterator[IO[bytes]]:
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
