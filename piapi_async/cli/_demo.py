"""The demo: one photograph restyled in twelve ways on the emulator, all at once, and a contact sheet of it.

Needs the extras `cli` and `emulator`.
"""

import asyncio
import io
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import attrs
from PIL import ImageOps
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from piapi_async import _media
from piapi_async._images import pillow, prepare
from piapi_async.cli._progress import Board, short_model
from piapi_async.display import _contact_sheet
from piapi_async.emulator import Emulator, LogNormal
from piapi_async.flux import DEV, DEV_ADVANCED, ControlNet, ControlNetLora, Img2Img, Img2ImgLora, LoRA
from piapi_async.polling import Backoff, Polling
from piapi_async.prices import POINTS_PER_USD
from piapi_async.session import Session
from piapi_async.task import Submittable, TaskInfo

PHOTO_SIDE = 1024
"""The photograph is scaled down to this many pixels at most; the models' results are no larger."""

DURATIONS = {
    "Qubico/flux1-schnell": LogNormal(median=2.5, sigma=0.2),
    "Qubico/flux1-dev": LogNormal(median=4.0, sigma=0.2),
    "Qubico/flux1-dev-advanced": LogNormal(median=6.0, sigma=0.2),
}
"""Somewhat faster than the emulator's usual, so that the demo stays under half a minute."""

CONCURRENCY = 6
"""Fewer places than tasks, so that some are seen to wait."""

POLLING = Polling(wait=Backoff(factor=1.2, maximum=3.0))
"""Somebody is watching, so polls are more frequent than usual."""

SHEET = "contact-sheet.png"
SUBTITLE = (
    "one photograph, twelve tasks at once \N{MIDDLE DOT} pictures by the emulator, which restyles and does not imagine"
)


@attrs.frozen(kw_only=True)
class Work:
    """One finished task of the demo."""

    name: str
    request: Submittable
    info: TaskInfo
    polls: int
    files: Sequence[Path]


@attrs.frozen(kw_only=True)
class Gallery:
    """All of it."""

    works: Sequence[Work]
    sheet: Path


def requests(photo: bytes) -> Mapping[str, Submittable]:
    """What the demo asks for: all three task types, all three models."""
    return {
        "pop-art": Img2Img(prompt="a bold pop-art poster, blue halftone", image=photo, batch_size=4, denoise=0.95),
        "aquarelle": Img2Img(prompt="a loose watercolour, fresh and light", image=photo, denoise=0.9),
        "oil": Img2Img(prompt="an impressionist oil painting", image=photo, model=DEV, denoise=0.95),
        "mosaic": Img2Img(
            prompt="a stained-glass window at dusk", image=photo, model=DEV_ADVANCED, denoise=0.9, guidance_scale=4
        ),
        "starlight": _styled(photo, "dreaming of distant galaxies", lora="galactixy-illustrations-style"),
        "deco": _styled(photo, "a golden age portrait, 1925", lora="deco-pulse"),
        "neon": _styled(photo, "a detective in a city of neon", lora="cyberpunk-anime-style"),
        "paper": _styled(photo, "layers of cut paper, cherry pink", lora="paper-quilling-and-layering-style"),
        "crystal": _styled(photo, "cut from a single crystal", lora="fractal-geometry", strength=0.9),
        "engraving": _steered(photo, "an engraving on an old banknote", by="canny", image=photo),
        "sunset": _steered(photo, "the last warm light of summer", by="depth", image=photo, strength=0.1),
        "comic": _steered(photo, "a page of a desert comic", by="canny", lora=LoRA("moebius-style")),
    }


def _styled(photo: bytes, prompt: str, *, lora: str, strength: float = 1.0) -> Submittable:
    return Img2ImgLora(prompt=prompt, image=photo, lora=LoRA(lora, strength=strength), denoise=0.95)


def _steered(
    photo: bytes,
    prompt: str,
    *,
    by: str,
    strength: float = 0.5,
    image: bytes | None = None,
    lora: LoRA | None = None,
) -> Submittable:
    control = ControlNet(by, image=photo, strength=strength)
    return ControlNetLora(prompt=prompt, control_net=control, image=image, lora=lora, denoise=0.95)


async def play(board: Board, *, photo: Path | None, out: Path, seed: int) -> Gallery:
    """Do it.

    Args:
        board: Shows how it comes along.

        photo: The photograph; by default that of a cat.

        out: Where the pictures go; made if missing.

        seed: The emulator's.

    Raises:
        OSError: The photograph cannot be read, or the pictures cannot be written.
        ValueError: The photograph is no picture.
    """
    picture = await asyncio.to_thread(_prepare, photo, out)
    async with (
        Emulator(seed, durations=DURATIONS, concurrency=CONCURRENCY) as emulator,
        Session(emulator.api_key, base_url=emulator.url, polling=POLLING, observers=[board]) as session,
    ):
        board.say(f"emulator on {emulator.url}; nothing leaves this machine")
        asked = requests(picture).items()
        works = await asyncio.gather(
            *(_work(name, request, session=session, board=board, out=out) for name, request in asked)
        )
    sheet = out / SHEET
    await asyncio.to_thread(_hang, works, photo=picture, path=sheet)
    return Gallery(works=works, sheet=sheet)


def _prepare(photo: Path | None, out: Path) -> bytes:
    picture = prepared(_read(photo), name=str(photo))
    out.mkdir(parents=True, exist_ok=True)
    return picture


async def _work(name: str, request: Submittable, *, session: Session, board: Board, out: Path) -> Work:
    row = board.add(name, request)
    handle = await session.submit(request)
    board.follow(row, task_id=handle.task_id)
    info = await handle
    row.status = "saving"
    stems = [name] if len(info.images) == 1 else [f"{name}-{number}" for number in range(1, len(info.images) + 1)]
    files = [
        await session.download(image, out / f"{stem}.png", overwrite=True)
        for image, stem in zip(info.images, stems, strict=True)
    ]
    board.finish(row)
    return Work(name=name, request=request, info=info, polls=row.polls, files=files)


def _read(photo: Path | None) -> bytes:
    if photo is None:
        return (resources.files("piapi_async") / "assets" / "cat.jpg").read_bytes()
    return photo.read_bytes()


def prepared(data: bytes, *, name: str) -> bytes:
    """A photograph as JPEG, upright and not larger than a result.

    Raises:
        ValueError: It is no picture.
    """
    try:
        image = pillow.open_lazily(data, media_type=_media.sniff(data[: _media.SNIFF_BYTES]))
        full = image.size
        image.draft("RGB", (2 * PHOTO_SIDE, 2 * PHOTO_SIDE))  # a JPEG with no more detail than is kept
        pillow.refuse_costly(image, full=full, at_most=prepare.DECODED_MAX)
        upright = ImageOps.exif_transpose(image).convert("RGB")
    except pillow.CostlyError as error:
        raise ValueError(f"PHOTO {name!r} is too large; {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"PHOTO must be a picture that Pillow can read, {name!r} is not") from error
    upright.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _hang(works: Sequence[Work], *, photo: bytes, path: Path) -> None:
    first = _contact_sheet.Tile(
        picture=photo, title="the photograph", notes=("goes with every task, as image or as control",)
    )
    tiles = [first, *(tile for work in works for tile in _tiles(work))]
    _contact_sheet.compose(tiles, subtitle=SUBTITLE).save(path)


def _tiles(work: Work) -> Iterator[_contact_sheet.Tile]:
    number = len(work.files)
    for item, file in enumerate(work.files, start=1):
        part = f"{item} of {number}" if number > 1 else ""
        yield _contact_sheet.Tile(
            picture=file.read_bytes(), title=work.request.input["prompt"], notes=_notes(work, part)
        )


def _notes(work: Work, part: str) -> tuple[str, str]:
    request, given = work.request, work.request.input
    lora = [f"LoRA {item['lora_type']}" for item in given.get("lora_settings", ())]
    control = [f"{item['control_type']} control" for item in given.get("control_net_settings", ())]
    source = ["no image"] if "image" not in given else []
    more = [*control, *source, *lora, *filter(None, [part])] or [f"denoise {given['denoise']}"]
    return f"{short_model(request.model)} \N{MIDDLE DOT} {request.task_type}", " \N{MIDDLE DOT} ".join(more)


def report(gallery: Gallery, *, console: Console) -> None:
    """Print what was made, and where the contact sheet is."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, header_style="bold")
    for heading in ("task", "model", "type"):
        table.add_column(heading, no_wrap=True)
    for heading in ("polls", "seconds", "points"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("file", no_wrap=True)
    for work in gallery.works:
        table.add_row(*map(Text, _line(work)))
    console.print("", table, "", sep="\n")
    for line in (_total(gallery), f"contact sheet: {gallery.sheet}"):
        console.print(Text(line), soft_wrap=True)


def _line(work: Work) -> tuple[str, ...]:
    info = work.info
    return (
        work.name,
        short_model(work.request.model),
        work.request.task_type,
        str(work.polls),
        f"{info.seconds or 0.0:.1f}",
        f"{_points(info):,}",
        work.files[0].name if len(work.files) == 1 else f"{work.name}-1..{len(work.files)}.png",
    )


def _points(info: TaskInfo) -> int:
    return info.usage.consume if info.usage else 0


def _total(gallery: Gallery) -> str:
    pictures = sum(len(work.files) for work in gallery.works)
    points = sum(_points(work.info) for work in gallery.works)
    price = f"{points:,} points, {points / POINTS_PER_USD:.2f} USD at PiAPI"
    return f"{pictures} pictures by {len(gallery.works)} tasks: {price}, and nothing on the emulator"
