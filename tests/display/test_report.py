"""The report page: what is written, and what a real browser makes of it."""

import base64
import hashlib
import html.parser
import io
import json
import re
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.browser import PROGRAM, Browser, Tab, browser

from piapi_async.display._report import FIRST, ReportRow, write_report
from piapi_async.display._report_html import STATES, Totals, duration, plain

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "--></style></textarea></title><svg onload=alert(1)>",
    '"><img src=x onerror="alert(1)">',
    "' onfocus=alert(1) autofocus x='",
    "{{js}} {{title}} {spool} ${alert(1)}",
    "a\u2028b\u2029c\u0085d",
    "safe \u202egnp.exe",
    "&lt;b&gt; &amp; &#60;",
    "javascript:alert(1)",
    "x" * 5000,
]
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium on this machine")
Draw = Callable[..., Path]


def row(key: str = "a", **given: Any) -> ReportRow:
    """A row of which most does not matter."""
    return ReportRow(**{"key": key, "state": "completed", "prompt": "a bear", **given})


def written(tmp_path: Path, *rows: ReportRow, title: str = "A batch", about: Mapping[str, str] | None = None) -> str:
    """The page with these rows."""
    write_report(rows, tmp_path / "report.html", title=title, about=about or {})
    return (tmp_path / "report.html").read_text("utf-8")


def data(page: str) -> list[dict[str, Any]]:
    """The rows that the page's script gets."""
    found = re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    rows: list[dict[str, Any]] = json.loads(found[1])
    return rows


def small(uri: str) -> Image.Image:
    """The small copy in a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def uris(page: str) -> list[str]:
    """All small copies of the page."""
    return re.findall(r"data:image/webp;base64,[\w+/=]+", page)


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Makes a picture's file."""

    def make(name: str, *, colour: Any = "red", size: tuple[int, int] = (400, 200), mode: str = "RGB") -> Path:
        path = tmp_path / name
        Image.new(mode, size, colour).save(path)
        return path

    return make


class Reader(html.parser.HTMLParser):
    """The elements of a page, and the text in those of some class."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self._wanted = wanted
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append(tag)
        self._inside = dict(attrs).get("class") == self._wanted
        self.texts += [""] * self._inside

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the base class has it
        """An element with text ends."""
        self._inside = False

    def handle_data(self, data: str) -> None:
        """Take its text."""
        if self._inside:
            self.texts[-1] += data


def read(page: str, wanted: str) -> Reader:
    """A page, read as HTML."""
    reader = Reader(wanted)
    reader.feed(page)
    reader.close()
    return reader


# --- what is written


@settings(max_examples=50)
@given(texts=st.lists(st.text() | st.sampled_from([*HOSTILE, "\ud800", "\x00", "\r\n\r"]), min_size=10, max_size=10))
def test_any_text_stays_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """In every place: the page has the elements of one with harmless texts, and both readings give the text back."""
    tmp_path = tmp_path_factory.mktemp("report")

    def page(key: str, *more: str) -> str:
        state, prompt, model, task_type, task_id, reason, name, value, source = more
        fields = {"task_type": task_type, "task_id": task_id, "reason": reason, "inputs": [f"/nowhere/{source}"]}
        settings = {f"s{name}": value}
        one = row(key, state=f"a{state}", prompt=prompt, model=f"m{model}", settings=settings, **fields)
        return written(tmp_path, one, title=key, about={name: value})

    found, harmless = page(*texts), page(*(text[:1] and "x" for text in texts))
    assert read(found, "prompt").tags == read(harmless, "prompt").tags
    for field, number in {"prompt": 2, "reason": 6, "id": 5, "key": 0}.items():
        assert data(found)[0][field] == plain(texts[number])
        assert read(found, field).texts[-1].strip() == plain(texts[number]).strip()
    assert found.count("</script>") == harmless.count("</script>")


def test_what_html_cannot_hold_is_replaced() -> None:
    """Lone surrogates and NUL; pairs of surrogates become what they mean."""
    assert plain("a\ud800b\udfffc\x00d") == "a\ufffdb\ufffdc\ufffdd"
    assert plain("\ud83d\udc3b\r\n\r") == "\N{BEAR FACE}\n\n"


def test_the_head_says_what_it_comes_to(tmp_path: Path) -> None:
    """Rows, pictures, money, times, the number of rows in each state, and what the caller adds."""
    rows = [
        row("a", usd=0.015, seconds=2.0, outputs=[tmp_path / "1.png", tmp_path / "2.png"], model="m"),
        row("b", usd=0.5, seconds=4.5, model="n"),
        row("c", state="in_doubt", seconds=9.0, model="n"),
        row("d", state="odd", model="n"),
    ]
    page = written(tmp_path, *rows, about={"when": "2026-11-24"})
    for name, text in {
        "rows": "4",
        "pictures": "2",
        "US dollars": "0.52",
        "median time": "4.5 s",
        "time of all tasks": "15.5 s",
        "when": "2026-11-24",
    }.items():
        assert f"<dt>{name}</dt><dd>{text}</dd>" in page
    chips = re.findall(r'data-field="(\w+)" data-value="(\w+)".*?<b>(\d+)</b>', page)
    assert chips == [
        ("state", "completed", "2"),
        ("state", "in_doubt", "1"),
        ("state", "odd", "1"),
        ("model", "m", "1"),
        ("model", "n", "3"),
    ]  # and none for the task type, which is the same for all


def test_what_nobody_knows_is_left_out(tmp_path: Path) -> None:
    """A report without rows has no money and no times, and is a page."""
    page = written(tmp_path)
    assert [name for name, _text in Totals().lines()] == ["rows", "pictures"]
    assert "0 of 0" in page
    assert data(page) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (99.94, "99.9 s"),
        (99.95, "2 min"),
        (5960, "99 min"),
        (5990, "1 h 40 min"),
        (3.6e6, "1,000 h 00 min"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    """Seconds, minutes or hours, whichever tells most."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"seconds": -1}, "seconds must be a finite number >= 0, got -1"),
        ({"usd": float("nan")}, "usd must be a finite number >= 0, got nan"),
        ({"usd": "1"}, "usd must be a finite number >= 0, got '1'"),
        ({"state": None}, "state must be a string, got None"),
    ],
)
def test_a_bad_row_is_refused(bad: dict[str, Any], sentence: str) -> None:
    """One sentence names the field, the value and what is allowed."""
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(sentence)}$"):
        row(**bad)


def test_settings_are_written_as_they_were_sent(tmp_path: Path) -> None:
    """Texts as they are, all else as JSON, and what JSON does not know by its name."""
    settings = {"negative_prompt": "dogs", "denoise": 0.7, "lora": {"lora_type": "mjv6"}, "odd": Path("x"), "on": True}
    assert data(written(tmp_path, row(settings=settings)))[0]["settings"] == [
        "negative_prompt dogs",
        "denoise 0.7",
        'lora {"lora_type": "mjv6"}',
        'odd "x"',
        "on true",
    ]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, draw: Draw) -> None:
    """Nothing in it is of chance or of the clock."""
    rows = [row(str(number), inputs=[draw("a.png")]) for number in range(3)]
    assert written(tmp_path, *rows) == written(tmp_path, *rows)


def test_a_page_is_whole_or_not_there(tmp_path: Path) -> None:
    """When the rows break off, the page from before stays, and nothing is left over; a missing directory is made."""

    def broken() -> Iterator[ReportRow]:
        yield row()
        raise LookupError

    before = written(tmp_path / "new")
    with pytest.raises(LookupError):
        write_report(broken(), tmp_path / "new" / "report.html", title="another")
    assert (tmp_path / "new" / "report.html").read_text("utf-8") == before
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_the_policy_names_what_is_inside(tmp_path: Path, draw: Draw) -> None:
    """One script and two style sheets, by hash; pictures from within; nothing from anywhere else."""
    page = written(tmp_path, row(inputs=[draw("a.png")]))
    policy = re.search('Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None
    inside = re.findall(r"<(?:script|style)>(.*?)</", page, re.DOTALL)
    assert len(inside) == 3
    for text in inside:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy[1]
    assert policy[1].startswith("default-src 'none'")
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]


# --- its pictures


def test_a_picture_is_made_small_and_linked(tmp_path: Path, draw: Draw) -> None:
    """At most 160 pixels, a link beside the page that survives any name, and a text for those who do not see it."""
    (tmp_path / "out").mkdir()
    page = written(tmp_path, row(outputs=[draw("out/a:b #1?.png")]))
    picture = data(page)[0]["outputs"][0]
    assert picture == {"name": "a:b #1?.png", "href": "out/a%3Ab%20%231%3F.png", "small": 0, "words": ""}
    assert small(uris(page)[0]).size == (160, 80)
    assert 'aria-label="output 1 of 1: a:b #1?.png"' in page


def test_the_same_picture_is_inside_once(tmp_path: Path, draw: Draw) -> None:
    """However many rows show it, early or late; later rows' pictures come after the script."""
    photo, late = draw("a.png"), draw("b.png", colour="blue")
    rows = [row(str(number), inputs=[photo], outputs=[late] * (number >= FIRST)) for number in range(FIRST + 20)]
    page = written(tmp_path, *rows)
    assert len(uris(page)) == len(set(uris(page))) == 2
    first, second = (page.index(uri) for uri in uris(page))
    assert first < page.index('"use strict"') < second
    assert {item["inputs"][0]["small"] for item in data(page)} == {0}


def test_a_transparent_picture_gets_a_ground(tmp_path: Path, draw: Draw) -> None:
    """Where nothing is, paper shines through."""
    page = written(tmp_path, row(outputs=[draw("a.png", mode="RGBA", colour=(255, 0, 0, 0))]))
    pixel = small(uris(page)[0]).convert("RGB").getpixel((5, 5))
    assert isinstance(pixel, tuple)
    assert all(abs(seen - meant) < 5 for seen, meant in zip(pixel, (236, 234, 229), strict=True))


def test_a_picture_stands_upright(tmp_path: Path) -> None:
    """As the camera noted."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (400, 200)).save(tmp_path / "a.jpg", exif=exif)
    assert small(uris(written(tmp_path, row(inputs=[tmp_path / "a.jpg"])))[0]).size == (80, 160)


def test_a_picture_that_is_not_there_has_its_place(tmp_path: Path, draw: Draw) -> None:
    """Missing, a directory, a name no disk can hold, not a picture, cut in half: never an error."""
    whole = draw("whole.png", size=(300, 300)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.png").write_text("no picture")
    sources = ["gone.png", ".", "x" * 5000, "nul\x00.png", "cut.png", "words.png"]
    page = written(tmp_path, row(outputs=[tmp_path / source for source in sources]))
    found = [(picture["words"], picture["href"]) for picture in data(page)[0]["outputs"]]
    assert found == [("missing", None)] * 4 + [("not readable", "cut.png"), ("not readable", "words.png")]
    assert uris(page) == []


def test_a_url_is_a_link_and_never_loaded(tmp_path: Path, draw: Draw) -> None:
    """Only http(s) is one; a text that is none is a path; a data URI shows its picture, if it holds one."""
    inline = "data:image/png;base64," + base64.b64encode(draw("a.png").read_bytes()).decode()
    inputs = ["https://example.com/a.jpg", "javascript:alert(1)", inline, "data:image/png;base64,####"]
    page = written(tmp_path, row(inputs=inputs))
    found = [(one["words"], one["href"], one["small"]) for one in data(page)[0]["inputs"]]
    assert found == [
        ("example.com", "https://example.com/a.jpg", None),
        ("missing", None, None),
        ("", None, 0),
        ("not readable", None, None),
    ]
    assert set(re.findall(' (?:src|href)="(.*?)"', page)) == {
        "https://example.com/a.jpg",
        *re.findall('href="(data:image/svg.*?)"', page),
    }
    assert inline not in page


def test_without_pillow_there_are_links(tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the page says once what is missing and how to get it."""
    photo = draw("a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    page = written(tmp_path, row("a", inputs=[photo]), row("b", inputs=[photo]))
    assert data(page)[1]["inputs"] == [{"name": "a.png", "href": "a.png", "small": None, "words": "no preview"}]
    assert page.count("pip install pillow") == 1


def test_rows_and_pictures_wait_on_disk(tmp_path: Path) -> None:
    """What is held in memory does not grow as the page does."""
    files = [tmp_path / f"{number}.png" for number in range(FIRST + 200)]
    for file in files:
        Image.effect_noise((80, 80), 90).save(file)

    def cost(number: int) -> tuple[int, int]:
        rows = (row(str(at), prompt="a bear " * 400, outputs=[files[at]]) for at in range(number))
        tracemalloc.start()
        write_report(rows, tmp_path / "report.html", title="large")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak, (tmp_path / "report.html").stat().st_size

    cost(FIRST)  # what is loaded or compiled once
    (little, small_size), (much, large_size) = cost(FIRST), cost(len(files))
    assert large_size - small_size > 1_000_000
    assert much - little < (large_size - small_size) / 4


# --- in a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    with browser() as running:
        yield running


ROWS = 1500


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with many rows; the hostile prompts come first."""
    home = tmp_path_factory.mktemp("batch")
    files = []
    for number in range(20):
        files.append(home / f"{number}.png")
        Image.new("RGB", (64, 64), (number * 12, 90, 90)).save(files[-1])

    def rows() -> Iterator[ReportRow]:
        for number in range(ROWS):
            hostile = HOSTILE[number] if number < len(HOSTILE) else ""
            late = number >= FIRST
            yield ReportRow(
                key=hostile or f"row-{number:04}",
                state=STATES[number % len(STATES)],
                prompt=hostile or f"a bear, number {number}",
                model=("Qubico/flux1-schnell", "Qubico/flux1-dev")[number % 2],
                task_type=hostile or ("img2img", "txt2img")[number % 3 == 0],
                settings={"denoise": 0.7, "note": hostile} if number % 2 else {},
                task_id=hostile or (f"task-{number:04}" if number % 5 else None),
                seconds=None if number % 4 == 3 else float(number * 7919 % ROWS),
                usd=None if number % 4 == 2 else 0.001 * (number % 7),
                reason=hostile or ("no luck" if number % 8 == 1 else ""),
                inputs=["https://example.com/a.jpg", files[0]][: number % 3],
                outputs=[files[(number + at) % 10 + 10 * late] for at in range(number % 6)],
            )

    write_report(rows(), home / "report.html", title=HOSTILE[0], about={HOSTILE[0]: HOSTILE[1]})
    return home / "report.html"


@pytest.fixture
async def tab(chromium: Browser, batch: Path) -> AsyncIterator[Tab]:
    """The page, open; without a complaint, a dialog or a request in the end."""
    async with chromium.tab(batch.as_uri()) as opened:
        yield opened
        assert opened.errors == []
        assert {url for url in opened.urls if not url.startswith("data:")} == {batch.as_uri()}


SHOWN = "[...document.querySelectorAll('#rows .key')].map((one) => one.textContent)"
COUNT = "document.querySelector('#count').textContent"


async def search(tab: Tab, words: str) -> Any:
    """Type into the search box; the count."""
    await tab.js(f"{{ const find = document.querySelector('#find'); find.value = {json.dumps(words)};"
                 "find.dispatchEvent(new Event('input')) }")  # fmt: skip
    return await tab.js(COUNT)


async def order(tab: Tab, word: str) -> Any:
    """Choose an order; the keys in sight at once, before the next frame."""
    choose = f"const sort = document.querySelector('#sort'); sort.value = '{word}';"
    return await tab.js(f"(() => {{ {choose} sort.dispatchEvent(new Event('change')); return {SHOWN} }})()")


async def scroll(tab: Tab, to: str) -> None:
    """Scroll, and wait until the page has answered."""
    await tab.js(f"scrollTo(0, {to})")
    await tab.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@needs_browser
@pytest.mark.real_time
async def test_hostile_texts_stay_text(tab: Tab) -> None:
    """As they were, in the title, the head, the rows and the opened row; nothing is made of them, nothing runs."""
    assert await tab.js("document.title") == HOSTILE[0]
    assert await tab.js("document.querySelector('h1').textContent") == HOSTILE[0]
    for field in ("prompt", "key", "id", "reason"):
        texts = await tab.js(f"[...document.querySelectorAll('#rows .{field}')].map((one) => one.textContent)")
        assert texts[: len(texts) - 1] == HOSTILE[: len(texts) - 1]
    for number, text in enumerate(HOSTILE):
        await search(tab, text[:100])
        await tab.js("document.querySelector('#rows .key').click()")
        assert await tab.js("document.querySelector('dialog .prompt').textContent") == text
        assert await tab.js("document.querySelector('#open-key').textContent") == text
        assert await tab.js("document.querySelectorAll('dialog .prompt *, dialog .settings * *').length") == 0, number
    assert await tab.js("document.querySelectorAll('script:not([type])').length") == 1
    assert await tab.js("document.querySelectorAll('svg, img, textarea').length") == 0


@needs_browser
@pytest.mark.real_time
async def test_markup_cannot_be_made_of_text(tab: Tab) -> None:
    """The policy stops what the script does not do."""
    made = "try { document.body.innerHTML = '<b>'; 'made' } catch (error) { error.name }"
    assert await tab.js(made) == "TypeError"
    assert "TrustedHTML" in tab.errors.pop()


@needs_browser
@pytest.mark.real_time
async def test_only_what_is_in_sight_is_in_the_document(tab: Tab) -> None:
    """From the first row to the last, and back."""
    before = await tab.js("document.querySelector('#rows').innerText")
    assert len(await tab.js(SHOWN)) < 20
    await scroll(tab, "document.body.scrollHeight")
    shown = await tab.js(SHOWN)
    assert shown[-1] == f"row-{ROWS - 1}"
    assert len(shown) < 20
    assert await tab.js("document.querySelector('#rows').lastElementChild.getAttribute('aria-posinset')") == str(ROWS)
    await scroll(tab, "0")
    assert await tab.js("document.querySelector('#rows').innerText") == before


@needs_browser
@pytest.mark.real_time
async def test_the_file_and_the_script_make_the_same_rows(tab: Tab, batch: Path) -> None:
    """All of the first hundred, as the file has them and as the script makes them, are alike to the letter."""
    (tab_rows,) = re.findall(r'<ol id="rows".*?>\n(.*?)\n  </ol>', batch.read_text("utf-8"), re.DOTALL)
    made = await tab.js("""(async () => {
        const found = [];
        const frame = () => new Promise(requestAnimationFrame);
        scrollTo(0, document.body.scrollHeight);
        await frame(); await frame();
        for (let at = 0; found.filter(Boolean).length < 100; at += 300) {
            scrollTo(0, at);
            await frame(); await frame();
            for (const one of document.querySelectorAll('#rows .row')) {
                const copy = one.cloneNode(true), place = one.ariaPosInSet - 1;
                for (const name of ['aria-posinset', 'aria-setsize']) copy.removeAttribute(name);
                if (place < 100) found[place] = copy.outerHTML;
            }
        }
        return found;
    })()""")
    assert len(made) == FIRST
    for text, mine in zip(tab_rows.split("\n<li"), made, strict=True):
        assert structure("<li" + text.removeprefix("<li")) == structure(mine)


def structure(markup: str) -> list[Any]:
    """What markup says, however it is spelled."""
    events: list[Any] = []

    class Events(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            events.append((tag, attrs))

        def handle_endtag(self, tag: str) -> None:
            events.append(tag)

        def handle_data(self, data: str) -> None:
            events.append(data)

    Events().feed(markup)
    return events


@needs_browser
@pytest.mark.real_time
async def test_a_search_goes_over_prompt_key_id_and_reason(tab: Tab) -> None:
    """All words, in any case and order; the settings and the model are not searched."""
    assert await tab.js(COUNT) == "1,500 of 1,500"
    assert await search(tab, "ROW-0777") == "1 of 1,500"
    assert await search(tab, "task-0777") == "1 of 1,500"
    assert await search(tab, "  777 NUMBER bear,") == "1 of 1,500"
    assert await search(tab, "no luck") == "186 of 1,500"
    assert await search(tab, "qubico") == "0 of 1,500"
    assert await tab.js("document.querySelector('#empty').checkVisibility()")
    assert not await tab.js("document.querySelector('#rows').checkVisibility()")
    await tab.js("document.querySelector('#clear').click()")
    assert await tab.js(COUNT) == "1,500 of 1,500"
    assert not await tab.js("document.querySelector('#empty').checkVisibility()")
    assert await tab.js("document.activeElement.id") == "find"


@needs_browser
@pytest.mark.real_time
async def test_chips_filter(tab: Tab) -> None:
    """Two states are either; a state and a model are both; pressed once more, a chip lets go; the list starts anew."""
    chip = "document.querySelector('[data-value=\"{}\"]')"
    await scroll(tab, "50000")
    await tab.js(chip.format("failed") + ".click()")
    assert await tab.js(COUNT) == "188 of 1,500"
    top = "document.querySelector('#rows').getBoundingClientRect().top"
    assert await tab.js(f"Math.abs({top} - document.querySelector('#bar').offsetHeight) < 1")
    assert await tab.js("document.querySelector('#rows .row').ariaPosInSet") == "1"
    await tab.js(chip.format("not_sent") + ".click()")
    assert await tab.js(COUNT) == "375 of 1,500"
    states = await tab.js("[...document.querySelectorAll('#rows .state')].map((one) => one.textContent)")
    assert set(states) == {"failed", "not sent"}
    await tab.js(chip.format("Qubico/flux1-schnell") + ".click()")
    assert await tab.js(COUNT) == "0 of 1,500"
    await tab.js(chip.format("Qubico/flux1-schnell") + ".click()")
    await tab.js(chip.format("not_sent") + ".click()")
    assert await tab.js(COUNT) == "188 of 1,500"
    assert await tab.js(chip.format("failed") + ".getAttribute('aria-pressed')") == "true"


@needs_browser
@pytest.mark.real_time
async def test_rows_can_be_put_in_order(tab: Tab) -> None:
    """By time and by cost, either way; what is not known comes last, what is equal stays as it was added."""
    await search(tab, "bear")
    numbers = range(len(HOSTILE), ROWS)
    seconds = {n: float(n * 7919 % ROWS) for n in numbers if n % 4 != 3}
    dollars = {n: 0.001 * (n % 7) for n in numbers if n % 4 != 2}
    for word, known, sign in (
        ("slowest", seconds, -1),
        ("fastest", seconds, 1),
        ("dearest", dollars, -1),
        ("cheapest", dollars, 1),
    ):
        meant = sorted(known, key=lambda n, known=known, sign=sign: (sign * known[n], n))  # type: ignore[misc]
        shown = await order(tab, word)
        assert shown == [f"row-{n:04}" for n in meant[: len(shown)]]
    await scroll(tab, "document.body.scrollHeight")
    await tab.until("[...document.querySelectorAll('#rows .cost')].at(-1).textContent === ''")
    assert (await order(tab, "added"))[0] == f"row-{len(HOSTILE):04}"


@needs_browser
@pytest.mark.real_time
async def test_small_pictures_are_there(tab: Tab) -> None:
    """Of the first rows by the style sheet, of the later ones from the end of the file; all can be decoded."""
    for words, wanted in (("row-0017", 5), ("row-0777", 3)):
        await search(tab, words)
        backgrounds = await tab.js(
            "Promise.all([...document.querySelectorAll('#rows [class*=\" p\"]')].map(async (one) => {"
            "const image = new Image(); image.src = getComputedStyle(one).backgroundImage.slice(5, -2);"
            "await image.decode(); return image.naturalWidth }))"
        )
        links = await tab.js("[...document.querySelectorAll('#rows a')].map((one) => one.getAttribute('href'))")
        assert backgrounds == [64] * len(backgrounds)
        assert len([link for link in links if not link.startswith("http")]) >= len(backgrounds) >= wanted


@needs_browser
@pytest.mark.real_time
async def test_a_row_can_be_opened_with_the_keyboard(tab: Tab) -> None:
    """Whole, with its neighbours a key away; closed, the focus is where it was."""
    await search(tab, "bear")
    await tab.js("document.querySelectorAll('#rows .key')[1].focus()")
    for key, code, text in (("Enter", 13, "\r"), ("ArrowRight", 39, ""), ("ArrowRight", 39, ""), ("ArrowLeft", 37, "")):
        await press(tab, key, code=code, text=text)
    opened = f"row-{len(HOSTILE) + 2:04}"
    await tab.until(f"document.querySelector('dialog[open] #open-key')?.textContent === '{opened}'")
    for _ in range(5):
        await press(tab, "ArrowLeft", code=37)
    await tab.until("document.querySelector('#earlier').disabled")
    assert await tab.js("document.querySelector('#open-key').textContent") == f"row-{len(HOSTILE):04}"
    await press(tab, "Escape", code=27)
    await tab.until("!document.querySelector('dialog').open")
    assert await tab.js("document.activeElement.textContent") == f"row-{len(HOSTILE) + 1:04}"


async def press(tab: Tab, key: str, *, code: int, text: str = "") -> None:
    """One key, down and up."""
    more = {"text": text} if text else {}
    for kind in ("keyDown", "keyUp"):
        await tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


@needs_browser
@pytest.mark.real_time
@pytest.mark.parametrize("width", [1280, 390, 320])
async def test_the_page_does_not_grow_sideways(tab: Tab, width: int) -> None:
    """On a screen, on a phone; every row is as high as the script reckons, and all controls have names."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    await tab.call("Emulation.setDeviceMetricsOverride", **size)
    await tab.js("document.querySelectorAll('#rows .key')[2].click()")
    for element in ("document.documentElement", "document.querySelector('dialog')"):
        assert await tab.js(f"{element}.scrollWidth <= {element}.clientWidth"), element
    high = await tab.js("[...new Set([...document.querySelectorAll('#rows .row')].map((one) => one.offsetHeight))]")
    reckoned = await tab.js("parseFloat(getComputedStyle(document.querySelector('#rows')).getPropertyValue('--row'))")
    assert high == [reckoned]
    named = "[...document.querySelectorAll('input, select')].every((one) => one.labels[0].textContent.trim())"
    assert await tab.js(named)


@needs_browser
@pytest.mark.real_time
async def test_on_paper_there_are_more_rows(tab: Tab) -> None:
    """Five hundred at most, and it says so; afterwards it is as before."""
    before = await tab.js(SHOWN)
    await tab.js("dispatchEvent(new Event('beforeprint'))")
    assert len(await tab.js(SHOWN)) == 500
    assert await tab.js("document.querySelector('#printed').textContent") == "The first 500 of 1,500 rows."
    await tab.js("dispatchEvent(new Event('afterprint'))")
    assert await tab.js(SHOWN) == before
    await search(tab, "row-0777")
    await tab.js("dispatchEvent(new Event('beforeprint'))")
    assert not await tab.js("document.querySelector('#printed').checkVisibility()")
    await tab.js("dispatchEvent(new Event('afterprint'))")


@needs_browser
@pytest.mark.real_time
async def test_without_a_script_the_first_rows_can_be_read(tab: Tab) -> None:
    """A hundred of them, whole; and a line says that there are more. What only a script can do is not offered."""
    await tab.call("Emulation.setScriptExecutionDisabled", value=True)
    await tab.call("Page.reload")
    await tab.until("document.querySelectorAll('#rows .row').length === 100 && document.readyState === 'complete'")
    assert await tab.js("document.querySelector('noscript').innerText") == (
        "The first 100 of 1,500 rows. JavaScript shows the others."
    )
    assert not await tab.js("document.querySelector('#bar').checkVisibility()")


@needs_browser
@pytest.mark.real_time
async def test_a_report_without_rows_is_a_page(chromium: Browser, tmp_path: Path) -> None:
    """It says that there are none, and offers nothing else."""
    written(tmp_path)
    async with chromium.tab((tmp_path / "report.html").as_uri()) as tab:
        assert await tab.js(COUNT) == "0 of 0"
        assert tab.errors == []
