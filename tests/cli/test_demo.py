"""The demo and its contact sheet."""

import asyncio
import io
import signal
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console

from piapi_async import events
from piapi_async.cli import _demo, program
from piapi_async.cli._interrupt import Setting
from piapi_async.cli._progress import Board
from piapi_async.display import _contact_sheet
from piapi_async.flux import MODELS, Img2Img
from piapi_async.task import TaskInfo, TaskStatus
from piapi_async.testing import VirtualTimeLoop

pytestmark = pytest.mark.usefixtures("heed_ctrl_c")

JPEG = b"\xff\xd8\xff"


def invoke(*args: str, runner: Callable[[], asyncio.Runner] | None = None) -> Result:
    """Run `piapi-async demo` in virtual time."""
    setting = Setting(runner=runner or (lambda: asyncio.Runner(loop_factory=VirtualTimeLoop)))
    return CliRunner().invoke(program, ["demo", *args], obj=setting)


def test_asks_for_everything() -> None:
    """All image-to-image types and models, a batch, several LoRAs, both control types, with and without image, LoRA."""
    asked = list(_demo.requests(JPEG).values())
    inputs = [request.input for request in asked]
    steered = [given for given in inputs if "control_net_settings" in given]
    assert {(request.task_type, request.model) for request in asked} == {
        (task_type, model)
        for task_type in ("img2img", "img2img-lora", "controlnet-lora")
        for model in MODELS[task_type]
    }
    assert any(given.get("batch_size", 1) > 1 for given in inputs)
    assert len({given["lora_settings"][0]["lora_type"] for given in inputs if "lora_settings" in given}) > 3
    assert {given["control_net_settings"][0]["control_type"] for given in steered} == {"canny", "depth"}
    assert {"image" in given for given in steered} == {True, False}
    assert {"lora_settings" in given for given in steered} == {True, False}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A whole run with the cat: its folder, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "new"
    return out, invoke("--out", str(out), "--seed", "3")


def test_files(played: tuple[Path, Result]) -> None:
    """Every picture and the sheet are in the folder, which is made, and nothing else is."""
    out, result = played
    names = {file.name for file in out.iterdir()}
    assert result.exit_code == 0
    assert len(names) == 16
    assert {"contact-sheet.png", "pop-art-4.png", "comic.png"} <= names
    with Image.open(out / "contact-sheet.png") as sheet:
        assert sheet.size == (2012, 1952)


def test_table(played: tuple[Path, Result]) -> None:
    """The table tells of every task, fits a terminal of 80 columns, and ends with where the sheet is."""
    out, result = played
    *table, _blank, total, sheet = result.stdout.splitlines()
    assert max(map(len, table)) <= 80
    assert {text.split()[0] for text in table if text[:1].isalpha()} == {"task", *_demo.requests(JPEG)}
    assert total == "15 pictures by 12 tasks: 2,025,000 points, 0.20 USD at PiAPI, and nothing on the emulator"
    assert sheet == f"contact sheet: {out / 'contact-sheet.png'}"


def test_progress(played: tuple[Path, Result]) -> None:
    """Without a terminal each task has two lines: submitted, and saved after so many polls."""
    lines = played[1].stderr.splitlines()
    assert len(lines) == 1 + 2 * 12
    assert [text.split()[3] for text in lines if "comic" in text] == ["submitted", "saved"]


def test_own_photo_and_seed(played: tuple[Path, Result], tmp_path: Path) -> None:
    """A photograph of one's own gives the sheet its shape, and another seed takes other times."""
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((60, 60)).save(photo)
    result = invoke(str(photo), "--out", str(tmp_path), "--seed", "4")
    seconds, others = ([text[40:52] for text in shown.stdout.splitlines()[3:15]] for shown in (result, played[1]))
    assert seconds != others
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.size == (2012, 1952 + 4 * (440 - 293))


@pytest.mark.parametrize("content", [b"text", b"\x89PNG\r\n\x1a\n"])
def test_no_picture(tmp_path: Path, content: bytes) -> None:
    """A PHOTO that is no picture is one line and exit code 2."""
    photo = tmp_path / "photo.png"
    photo.write_bytes(content)
    result = invoke(str(photo), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert result.stderr == f"error: PHOTO must be a picture that Pillow can read, '{photo}' is not\n"


def test_no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow the demo says how to get it."""
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    result = invoke()
    told = "error: pictures need Pillow: pip install pillow\n"
    assert (result.exit_code, result.stderr) == (2, told)


def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C gives 130, and says that nothing was paid."""

    def runner() -> asyncio.Runner:
        runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        runner.get_loop().call_later(5.0, signal.raise_signal, signal.SIGINT)
        return runner

    result = invoke("--out", str(tmp_path), runner=runner)
    told = ["interrupted", "the emulator is gone, and its tasks with it; nothing was paid"]
    assert (result.exit_code, result.stderr.splitlines()[-2:]) == (130, told)


def test_large_photographs_shrink() -> None:
    """A photograph is sent upright, and no larger than 1024 pixels."""
    image = Image.new("RGBA", (3000, 1500), "red")
    image.getexif()[0x0112] = 6
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", exif=image.getexif())
    with Image.open(io.BytesIO(_demo.prepared(buffer.getvalue(), name="x"))) as small:
        assert (small.size, small.format) == ((512, 1024), "JPEG")


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "✓"), ("ascii", "*")])
def test_board(encoding: str, mark: str) -> None:
    """On a terminal the board shows each task's status, polls and seconds, in ASCII where it must."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=terminal, force_terminal=True, force_interactive=True, width=90, get_time=lambda: 7.0)
    with Board(console) as board:
        first, second = (board.add(name, Img2Img(prompt="x", image=JPEG)) for name in ("first", "second"))
        board.follow(first, task_id="1")
        board.follow(second, task_id="2")
        board(events.Polled(info=TaskInfo(task_id="1", status=TaskStatus.PROCESSING, raw_status="processing\t")))
        board(events.Submitted(info=TaskInfo(task_id="3", status=TaskStatus.PENDING)))
        board.finish(second)
    terminal.seek(0)
    shown = terminal.read()
    assert mark in shown
    assert "submitted" not in shown
    plain = Console(width=90, record=True, file=io.StringIO())
    plain.print(board)
    rows = [text.split() for text in plain.export_text().splitlines()]
    assert rows[0][1:] == ["first", "schnell", "img2img", "processing", "1", "poll", "0.0", "s"]
    assert rows[1] == [mark, "second", "schnell", "img2img", "saved", "0", "polls", "0.0", "s"]


def test_times_nobody_told() -> None:
    """A service that tells neither times nor cost is shown with zeros."""
    info = TaskInfo(task_id="1", status=TaskStatus.COMPLETED)
    work = _demo.Work(name="x", request=Img2Img(prompt="x", image=JPEG), info=info, polls=1, files=[Path("x.png")])
    console = Console(width=90, record=True, file=io.StringIO())
    _demo.report(_demo.Gallery(works=[work], sheet=Path("s.png")), console=console)
    assert "x    schnell img2img     1     0.0      0 x.png" in console.export_text()


def test_captions_fit() -> None:
    """A caption is cut to the width of its tile, and left alone where it fits."""
    font = _contact_sheet._font(22)
    cut = _contact_sheet.fitted("word " * 60, font)
    assert cut.startswith("word word ")
    assert cut.endswith("...")
    assert font.getlength(cut) <= _contact_sheet.WIDTH
    assert _contact_sheet.fitted("word", font) == "word"


@pytest.mark.parametrize(("size", "height"), [((100, 50), 220), ((100, 10), 220), ((100, 1000), 616)])
def test_places_follow_the_photograph(size: tuple[int, int], height: int) -> None:
    """The places have the photograph's shape, within reason."""
    assert _contact_sheet._height(Image.new("RGB", size)) == height


def test_huge_photo_is_refused_by_its_size() -> None:
    """A PHOTO whose decoding would take gigabytes is refused with its size; one of 200 megapixels is taken."""
    buffer = io.BytesIO()
    Image.new("L", (20_000, 10_000)).save(buffer, "JPEG")
    with Image.open(io.BytesIO(_demo.prepared(buffer.getvalue(), name="x"))) as small:
        assert max(small.size) <= 1024
    head = struct.pack(">IIBBBBB", 2**15, 2**15, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    data = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ValueError, match=r"^PHOTO 'x' is too large; it has 32768 x 32768 pixels"):
        _demo.prepared(data, name="x")
