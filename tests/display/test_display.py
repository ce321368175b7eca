"""What notebooks and terminals show: cards, tables, live progress, and that nothing gets out of its place."""

import asyncio
import base64
import io
import os
import re
import sys
import termios
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.lib.pretty import pretty
from IPython.utils.capture import capture_output
from traitlets.config import Config

import piapi_async
from piapi_async import (
    Account,
    Img2Img,
    Session,
    SubmissionInDoubtError,
    TaskFailedError,
    TaskInfo,
    TaskStatus,
    _html,
    _media,
    _text,
    errors,
    events,
)
from piapi_async.display import INTERVAL, Progress, Row, Table
from piapi_async.display._table import INLINE_MOST
from piapi_async.emulator import Constant, Emulator
from piapi_async.task import Image, TaskFault, Usage
from piapi_async.testing import run_in_virtual_time

CAT = (Path(piapi_async.__file__).parent / "assets" / "cat.jpg").read_bytes()
CAT_URI = f"data:image/jpeg;base64,{base64.b64encode(CAT).decode()}"
CREATED = datetime(2025, 6, 30, 7, 11, 30, tzinfo=UTC)

TAGS = {"a", "b", "code", "div", "img", "span", "table", "tbody", "td", "tfoot", "th", "thead", "tr"}
ATTRIBUTES = {"style", "src", "alt", "loading", "referrerpolicy", "href", "target", "rel"}

HOSTILE = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "</div></td></table><h1>",
        "&lt;b&gt;",
        "<!--",
        "]]>",
        "\ud800",
        "\u202e",
        "\x00",
        "javascript:alert(1)",
        "http://e.com/\" onload='x'",
    ]
)
WORDS = st.lists(HOSTILE | st.text(max_size=20), max_size=3).map("".join)
URLS = st.sampled_from(
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "java\nscript:alert(1)",
        " javascript:alert(1)",
        "\x01javascript:alert(1)//http://e.com",
        "vbscript:x",
        "file:///etc/passwd",
        "//e.com/a.png",
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html;base64,/9j/4AAQSkZJRgABAQAAAQAB",
        'data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="><script>',
        CAT_URI,
        "https://e.com/a.png?x=1&y=<b>",
        'http://e.com/"onerror="x',
    ]
)


@attrs.frozen
class Named:
    """What carries a name of another kind, and nothing yet."""

    name: int = 7
    error: None = None


class Page(HTMLParser):
    """A snippet, read as a browser does: its elements, their attributes, and its text."""

    def __init__(self, snippet: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.strange: list[str] = []
        self.texts: list[str] = []
        self.feed(snippet)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """An element ends, and it is the one that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.texts.append(data)

    def unknown(self, data: str) -> None:
        """Keep what is neither element nor text."""
        self.strange.append(data)

    handle_comment = handle_decl = handle_pi = unknown_decl = unknown

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(self.texts)

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Its elements, with the names of their attributes."""
        return [(tag, tuple(given)) for tag, given in self.elements]

    def addresses(self) -> list[str]:
        """Wherever it leads, or takes something from."""
        return [given[name] for _, given in self.elements for name in ("src", "href") if name in given]


def read(value: Any) -> Page:
    """What a value shows of itself, which has to be well formed, without anything that could act."""
    page = Page(value._repr_html_())
    assert page.open == []
    assert page.strange == []
    assert {tag for tag, _ in page.elements} <= TAGS
    assert {name for _, given in page.elements for name in given} <= ATTRIBUTES
    page.text.encode()
    return page


def harmless(text: str) -> str:
    """A text in place of another: as empty as that."""
    return "x" if text.strip() else text


@attrs.frozen
class Seen:
    """What carries a task for a table, as a handle does."""

    info: TaskInfo | None


def task(
    *,
    words: Callable[[str], str] = str,
    texts: tuple[str, ...] = ("x",) * 6,
    urls: tuple[str, ...] = (),
    status: TaskStatus = TaskStatus.COMPLETED,
) -> TaskInfo:
    """A task in which every text is one of these, each passed through `words`."""
    one, two, three, four, five, six = map(words, texts)
    return TaskInfo(
        task_id=one,
        model=two,
        task_type=three,
        status=status,
        raw_status=four,
        images=tuple(map(Image, urls)),
        error=TaskFault(message=five),
        logs=(six,),
    )


TASKS = st.tuples(st.tuples(*[WORDS] * 6), st.lists(URLS, max_size=3).map(tuple), st.sampled_from(TaskStatus))


@given(TASKS)
def test_no_text_gets_out_of_its_place(drawn: tuple[Any, Any, TaskStatus]) -> None:
    """Whatever a server writes into any field, a card and a table have the elements they have for harmless words."""
    texts, urls, status = drawn
    hostile, tame = (task(words=words, texts=texts, urls=urls, status=status) for words in (str, harmless))
    assert read(hostile).shape == read(tame).shape
    tables = [
        Table({name: info, f"{name}2": TaskFailedError(info.task_id, info=info)})
        for name, info in ((texts[0], hostile), ("x", tame))
    ]
    assert read(tables[0]).shape == read(tables[1]).shape
    assert _text.one_line(texts[0]) in read(hostile).text
    for shown in (repr(hostile), str(tables[0])):
        assert all(char.isprintable() or char == "\n" for char in shown)


@given(st.lists(URLS | st.text(), min_size=1, max_size=20))
def test_only_pictures_become_sources(urls: list[str]) -> None:
    """No address but http(s) and a picture's data URI becomes a source, and only http(s) becomes a link."""
    info = task(urls=tuple(urls))
    for page in (read(info), read(Table([info]))):
        for _, given_ in page.elements:
            assert re.match(r"https?://\w|data:image/\w+;base64,|$", given_.get("src", ""))
            assert re.match(r"https?://\w|$", given_.get("href", ""))
        assert set(page.addresses()) <= set(urls)


@given(WORDS, st.none() | st.floats(allow_nan=False, allow_infinity=False), st.none() | st.integers())
def test_any_account_is_shown(plan: str, balance: float | None, points: int | None) -> None:
    """An account shows what is known of it, as text."""
    page = read(Account(plan=plan, balance_usd=balance, points_used=points))
    assert _text.one_line(plan) in page.text
    assert ("points used" in page.text) == (points is not None)


def test_account_nobody_told_of() -> None:
    """An account of which nothing is known says so."""
    assert read(Account()).text == "the service said nothing of the account"


def test_card() -> None:
    """A finished task shows status in words, model, times, cost and its pictures, which link to themselves."""
    started, ended = CREATED + timedelta(seconds=1.2), CREATED + timedelta(seconds=32.7)
    info = attrs.evolve(
        task(urls=("https://e.com/1.png", CAT_URI)),
        error=None,
        logs=(),
        created_at=CREATED,
        started_at=started,
        ended_at=ended,
        usage=Usage(consume=200_000),
    )
    page = read(info)
    facts = "2025-06-30 07:11:30 UTC · 32.7 s (1.2 s queued, 31.5 s at work) · 0.0200 USD"
    assert page.text == f"✓ completed x · xx · {facts}"
    assert page.addresses() == ["https://e.com/1.png", "https://e.com/1.png", CAT_URI]


def test_card_of_what_is_not_over() -> None:
    """A task that runs says that its cost is not final; one with an odd status shows the service's word for it."""
    info = attrs.evolve(task(status=TaskStatus.UNKNOWN), raw_status="ren<d>ering", usage=Usage(consume=15_000))
    assert read(info).text == "? unknown x · xx · the service says 'ren<d>ering' · 0.0015 USD, not finalx"


def test_any_cost_is_shown() -> None:
    """A server may send numbers that no float holds; a card and a table show them all the same."""
    info = attrs.evolve(DONE, usage=Usage(consume=10**400))
    assert "1" + ",000" * 131 + ".0000 USD" in read(info).text
    assert "1" + ",000" * 131 + ".0000" in read(Table([info])).text


def test_card_of_a_failure() -> None:
    """A failed task says why; times that are known in part are told as far as they are."""
    info = attrs.evolve(task(status=TaskStatus.FAILED), logs=("out of memory",), created_at=CREATED)
    ended = attrs.evolve(info, ended_at=CREATED + timedelta(hours=1))
    assert read(info).text == "✗ failed x · xx · 2025-06-30 07:11:30 UTCx: out of memory"
    assert "UTC · 3,600.0 sx: out of memory" in read(ended).text


def test_endless_things_are_cut() -> None:
    """A card stays small, whatever comes: a text ends after a thousand characters, pictures after sixteen."""
    info = attrs.evolve(task(urls=("https://e.com/1.png",) * 20), logs=("word " * 1000,))
    page = read(info)
    assert len(page.text) < 1200
    assert page.shape.count(("img", ("src", "alt", "style", "loading", "referrerpolicy"))) == 16
    assert page.text.endswith("and 4 more")


def test_secrets_are_not_shown() -> None:
    """The webhook's secret, which the service echoes, is in `raw` and never in a card or a table."""
    info = attrs.evolve(task(), raw={"config": {"webhook_config": {"secret": "hush-hush"}}})
    assert info.raw["config"]["webhook_config"]["secret"] == "hush-hush"
    assert "hush" not in info._repr_html_() + Table([info])._repr_html_() + str(Table([info]))


def test_picture_bytes() -> None:
    """A picture that holds its bytes is a data URI with exactly these; what is no picture is not shown."""
    page = Page(_html.picture(CAT, media_type="image/jpeg", alt="a cat"))
    [(tag, given_)] = page.elements
    assert (tag, given_["alt"], _media.decode_data_uri(given_["src"])) == ("img", "a cat", CAT)
    for data, media_type in ((b"<svg>", "image/svg+xml"), (CAT, "text/html"), (b"", "image/png"), (CAT, 'image/x"y')):
        assert Page(_html.picture(data, media_type=media_type)).addresses() == []


async def test_handle_shows_what_it_saw() -> None:
    """A handle shows its id before a poll, and after it the task as last seen; showing it asks nothing."""
    async with Emulator() as emulator, Session(emulator.api_key, base_url=emulator.url) as session:
        handle = await session.submit(Img2Img(prompt="a cat", image=CAT))
        again = session.task(handle.task_id)
        number = len(emulator.requests)
        assert read(again).text == f"TaskHandle {handle.task_id} not seen yet"
        assert read(handle).text.startswith(
            "TaskHandle, the task as last seen:• pending Qubico/flux1-schnell · img2img"
        )
        assert len(emulator.requests) == number
        assert read(await again).addresses()


async def test_reprs_are_harmless() -> None:
    """A status with control characters in it does not reach the terminal by way of a `repr`."""
    async with (
        Emulator(status_words={"pending": "ren\x1b[2Jdering"}) as emulator,
        Session(emulator.api_key, base_url=emulator.url) as session,
    ):
        handle = await session.submit(Img2Img(prompt="a cat", image=CAT))
        assert repr(handle) == f"<TaskHandle {handle.task_id} ren\N{REPLACEMENT CHARACTER}[2Jdering>"
        assert repr(handle.info).isprintable()


@attrs.frozen
class Bytes:
    """A picture in memory."""

    data: bytes = CAT
    media_type: str = "image/jpeg"


DONE = attrs.evolve(
    task(urls=("https://e.com/1.png", "https://e.com/2.png")),
    task_id="done",
    model="Qubico/flux1-dev",
    error=None,
    logs=(),
    usage=Usage(consume=300_000),
    created_at=CREATED,
    ended_at=CREATED + timedelta(seconds=9),
)
FAILED = attrs.evolve(task(status=TaskStatus.FAILED), task_id="bad", error=TaskFault(message="no"), logs=())


def outcomes() -> list[object]:
    """What a fan-out may give: results, and errors of several kinds."""
    running = attrs.evolve(task(status=TaskStatus.PROCESSING), task_id="slow", error=None, logs=())
    return [
        DONE,
        TaskFailedError("task bad failed: no", info=FAILED),
        errors.WaitTimeoutError("still at it", info=running),
        SubmissionInDoubtError("the answer was lost"),
        errors.OutputError("the link is gone"),
        asyncio.CancelledError(),
        Row(name="kept", info=DONE, pictures=[Bytes()]),
        Row(info=DONE, error=errors.OutputError("disk full")),
        Seen(DONE),
        Seen(None),
    ]


def test_table_as_text() -> None:
    """As text a table has a line for each task, aligned, with what went wrong, and a total."""
    assert str(Table(outcomes())).splitlines() == [
        "task  status          pictures  model      seconds  USD     reason",
        "done  completed       2         flux1-dev  9.0      0.0300",
        "bad   failed          0         x          -        -       no",
        "slow  processing      0         x          -        -       still at it",
        "-     in doubt        0         -          -        -       the answer was lost",
        "-     OutputError     0         -          -        -       the link is gone",
        "-     CancelledError  0         -          -        -",
        "kept  completed       1         flux1-dev  9.0      0.0300",
        "done  OutputError     2         flux1-dev  9.0      0.0300  disk full",
        "done  completed       2         flux1-dev  9.0      0.0300",
        "-     -               0         -          -        -",
        (
            "10 tasks: 3 completed, 1 failed, 1 processing, 1 in doubt, 2 OutputError, 1 CancelledError, 1 -; "
            "7 pictures; 0.1200 USD"
        ),
    ]


def test_table_as_html() -> None:
    """In a notebook each task has its first picture, from its bytes if it has them, and the last row is the total."""
    page = read(Table(outcomes()))
    assert page.addresses() == [*["https://e.com/1.png"] * 2, CAT_URI, *["https://e.com/1.png"] * 4]
    assert [tag for tag, _ in page.elements].count("tr") == 12
    assert "✗ OutputError" in page.text
    assert "10 tasks: 3 completed, 1 failed" in page.text


def test_table_says_it_in_a_line() -> None:
    """The `repr` fits a line, IPython shows the lines as text, and what is not known has no column."""
    table = Table({"cat": Row(name="", info=None, error=ValueError("x"))})
    assert repr(table) == "<Table 1 task: 1 ValueError>"
    assert pretty(table) == str(table)
    assert table.rows[0].name == "cat"
    assert "pictures" not in read(table).text
    assert "reason" not in read(Table([task(texts=("x", "x", "x", "x", "", ""))])).text
    assert repr(Table([])) == "<Table 0 tasks>"
    assert str(Table([])).endswith("\n0 tasks; 0 pictures; - USD")


def test_large_tables_are_summed_up() -> None:
    """With more tasks than the limit only those that did not complete have rows, no more than that; all are counted."""
    table = Table([DONE] * 3000 + [FAILED] * 300)
    lines = str(table).splitlines()
    assert len(lines) == 202
    assert lines[-1] == "3,300 tasks: 3,000 completed, 300 failed; 6,000 pictures; 90.0000 USD; 3,100 not shown"
    assert len(table._repr_html_()) < 250_000
    assert read(table).text.endswith("3,100 not shown")
    assert len(str(Table([DONE] * 3, limit=0)).splitlines()) == 2


def test_tables_stay_small() -> None:
    """Pictures that a page would choke on are shown by their links, or not at all, and others are still shown."""
    large = Bytes(CAT + bytes(INLINE_MOST * 3 // 8 - len(CAT) - 1000))
    inline = attrs.evolve(DONE, images=(Image(f"data:image/jpeg;base64,{base64.b64encode(large.data).decode()}"),))
    table = Table([*[Row(info=DONE, pictures=[large])] * 4, inline, Row(info=FAILED, pictures=[large]), *[DONE] * 20])
    links = read(table).addresses()
    assert [link[:5] for link in links] == [*["data:"] * 2, *["https"] * 44]
    assert read(table).text.count("(too large to show)") == 2


@pytest.mark.parametrize("item", ["text", None, 3])
def test_table_of_other_things(item: object) -> None:
    """What is no outcome of a task is refused in one sentence."""
    with pytest.raises(TypeError, match=r"^each of items must be a TaskInfo, an exception, a Row, or something with"):
        Table([item])


@pytest.mark.parametrize(("limit", "kind"), [(-1, ValueError), (2.5, TypeError)])
def test_table_with_a_bad_limit(limit: Any, kind: type[Exception]) -> None:
    """A limit that is no number of rows is refused."""
    with pytest.raises(kind, match=rf"^limit must be a whole number >= 0, got {limit}$"):
        Table([], limit=limit)


def test_what_only_polls_like_a_task() -> None:
    """Exceptions of other people may have an `info` of another kind, and names need not be texts."""

    class StrangeError(Exception):
        info = "none of ours"

    line = str(Table({3: StrangeError("odd")})).splitlines()[1]
    assert " ".join(line.split()) == "3 StrangeError 0 - - - odd"
    assert Table([Named()]).rows == (Row(name="7"),)


@pytest.mark.parametrize(("total", "kind"), [(-1, ValueError), (True, TypeError), (1.5, TypeError)])
def test_bad_totals(total: Any, kind: type[Exception]) -> None:
    """A total that is no number of tasks is refused."""
    with pytest.raises(kind, match=rf"^total must be a whole number >= 0, got {total}$"):
        Progress(total=total)


async def crowd(progress: Progress, folder: Path) -> None:
    """Eight tasks, of which the first fails, and two pictures saved: some 20 s on the emulator."""
    async with (
        Emulator(durations=Constant(18.0), queue_delay=Constant(2.0)) as emulator,
        Session(emulator.api_key, base_url=emulator.url, observers=[progress]) as session,
    ):
        emulator.faults.next("create", "task-fails")
        requests = [Img2Img(prompt=f"cat {number}", image=CAT) for number in range(8)]
        found = await asyncio.gather(*map(session.run, requests), return_exceptions=True)
        infos = [info for info in found if isinstance(info, TaskInfo)]
        await asyncio.gather(*(session.save(info, folder) for info in infos[:2]))


FINAL = r"8 of 8 tasks over, 7 completed, 1 failed, 2 saved, \d+ polls, 2\d\.\d s, 0\.0105 USD"


class Terminal(io.StringIO):
    """A terminal that remembers each piece it is told, with the time of it."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[float, str]] = []

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Remember."""
        if text.startswith("\r"):
            self.shown.append((asyncio.get_event_loop().time(), text.strip("\r\x1b[K")))
        return super().write(text)

    @property
    def seconds(self) -> float:
        """From the first piece to the last."""
        return self.shown[-1][0] - self.shown[0][0]


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 60 columns, as stderr: from here on, as pytest puts its own there for each phase of a test."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    return terminal


async def test_progress_in_a_pipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where stderr is a file or a pipe it gets one line, the final state, and stdout nothing."""
    with Progress(total=8) as progress:
        await crowd(progress, tmp_path)
    told = capsys.readouterr()
    assert re.fullmatch(FINAL + "\n", told.err)
    assert told.out == ""


async def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A terminal has one line, never wider than itself, that is rewritten four times a second at most."""
    terminal = on_terminal(monkeypatch)
    with Progress(total=8) as progress:
        await crowd(progress, tmp_path)
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().endswith("\x1b[K\n")
    assert max(len(text) for _, text in terminal.shown) <= 59
    assert 5 < len(terminal.shown) <= terminal.seconds / INTERVAL + 2
    assert terminal.shown[0][1] == "0 of 8 tasks over, 0 submitted, 0 polls, 0.0 s"
    assert re.fullmatch(FINAL, str(progress))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("columns", "told"), [(20, "0 of 8 tasks over,…"), (0, "0 of 8 tasks over, 0 submitted, 0 polls")]
)
def test_progress_where_stdout_is_a_file(monkeypatch: pytest.MonkeyPatch, columns: int, told: str) -> None:
    """The line fits the terminal that it is on, though stdout goes elsewhere; one that has no width has 80 columns."""
    primary, secondary = os.openpty()
    termios.tcsetwinsize(secondary, (24, columns))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "__stdout__", None)
    with os.fdopen(primary, "rb", 0) as screen, os.fdopen(secondary, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(total=8):
            assert screen.read(1000) == f"\r{told}\x1b[K".encode()


class NotebookShell(InteractiveShell):
    """A shell as a kernel has it."""

    kernel = None


@pytest.fixture
def notebook() -> Iterator[None]:
    """A notebook's shell in this process, which leaves nothing behind."""
    config = Config(HistoryManager={"enabled": False})
    shell = NotebookShell.instance(config=config)
    yield
    shell.restore_sys_module_state()
    NotebookShell.clear_instance()


@pytest.mark.usefixtures("notebook")
async def test_progress_in_a_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cell has one output, which is updated four times a second at most and ends with the final state."""
    with capture_output(stdout=False, stderr=False) as captured, Progress(total=8) as progress:
        await crowd(progress, tmp_path)
    first, *others = captured.outputs
    ids = {output.transient["display_id"] for output in captured.outputs}
    assert (first.update, {output.update for output in others}, len(ids)) == (False, {True}, 1)
    assert 5 < len(others) < 22 / INTERVAL
    assert re.fullmatch(f"<Progress {FINAL}>", others[-1].data["text/plain"])
    assert "✓ 7 completed ✗ 1 failed 2 saved · " in read(progress).text
    assert ("width:87.50%" in others[-1].data["text/html"], "width:12.50%" in others[-1].data["text/html"]) == (
        True,
        True,
    )
    assert capsys.readouterr() == ("", "")


async def test_progress_without_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where IPython does not run it is not imported."""
    terminal = on_terminal(monkeypatch)
    for name in [name for name in sys.modules if name.partition(".")[0] == "IPython"]:
        monkeypatch.delitem(sys.modules, name)
    with Progress():
        pass
    assert "IPython" not in sys.modules
    assert terminal.shown


async def test_a_burst_is_shown_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand events within ten seconds make some forty updates, and the last is shown though nothing follows."""
    terminal = on_terminal(monkeypatch)
    progress = Progress()
    for _ in range(1000):
        progress(events.Polled(info=FAILED))
        await asyncio.sleep(0.01)
    assert 20 < len(terminal.shown) <= terminal.seconds / INTERVAL + 2
    progress(events.Polled(info=DONE))
    await asyncio.sleep(INTERVAL + 0.01)
    assert terminal.shown[-1][1].startswith("2 of 2 tasks over, 1 completed, 1 failed, 1,001 polls")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (asyncio.CancelledError(), "interrupted"),
        (ValueError("x"), "ended by ValueError"),
    ],
)
def test_the_end_is_shown_come_what_may(error: BaseException, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An error or Ctrl-C passes through, and the final state says that it came; no event loop is needed for that."""
    with pytest.raises(type(error)), Progress(total=3):
        raise error
    assert capsys.readouterr().err == f"0 of 3 tasks over, 0 submitted, 0 polls, {told}\n"


async def test_it_counts_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks in doubt, tasks left alone and pictures saved are counted, costs once final; a failed poll is no news."""
    running = attrs.evolve(FAILED, task_id="other", status=TaskStatus.PROCESSING, usage=Usage(consume=70_000))
    progress = Progress(total=1)
    for event in (
        events.Submitted(info=running),
        events.Submitted(info=attrs.evolve(running, task_id="third", status=TaskStatus.STAGED)),
        events.WaitAbandoned(task_id="other"),
        events.WaitAbandoned(task_id="third"),
        events.Polled(info=running),
        events.Polled(info=DONE),
        events.SubmissionInDoubt(error=SubmissionInDoubtError("lost")),
        events.Saved(image=Image("https://e.com/1.png"), path="1.png"),
        events.PollFailed(task_id="other", error=errors.ServerError("no")),
    ):
        progress(event)
    told = (
        "1 completed, 1 staged, 1 processing, 1 in doubt, 1 no longer waited for, 1 saved, 2 polls, 0.0 s, 0.0300 USD"
    )
    assert re.sub(r"0\.[01] s", "0.0 s", str(progress)) == f"1 of 3 tasks over, {told}"
    assert "? 1 in doubt" in read(progress).text
    progress.close()
    progress.close()
    assert len(capsys.readouterr().err.splitlines()) == 1


async def test_it_can_be_used_again(capsys: pytest.CaptureFixture[str]) -> None:
    """After its end it takes no notice of events; entered again it counts from zero."""
    with Progress() as progress:
        progress(events.Polled(info=DONE))
        progress(events.Polled(info=FAILED))
    progress(events.Polled(info=attrs.evolve(DONE, task_id="late")))
    assert str(progress).startswith("2 of 2 tasks over")
    with progress:
        progress(events.Polled(info=FAILED))
    assert [text[:34] for text in capsys.readouterr().err.splitlines()] == [
        "2 of 2 tasks over, 1 completed, 1 ",
        "1 of 1 task over, 1 failed, 1 poll",
    ]


def test_a_second_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on in another event loop, also in one whose clock is behind, and a timer of the first is no hindrance."""
    terminal = on_terminal(monkeypatch)

    async def poll(info: TaskInfo, seconds: float) -> None:
        await asyncio.sleep(seconds)
        progress(events.Polled(info=info))
        progress(events.Polled(info=info))

    progress = Progress()
    run_in_virtual_time(poll(DONE, 1000.0))
    run_in_virtual_time(poll(FAILED, 0.0))
    assert [text.partition(",")[0] for _, text in terminal.shown] == ["1 of 1 task over", "2 of 2 tasks over"]


def test_no_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A program without stderr, as `pythonw` runs it, is no reason to fail, nor to write elsewhere."""
    monkeypatch.setattr(sys, "stderr", None)
    with Progress():
        pass
    assert capsys.readouterr() == ("", "")
