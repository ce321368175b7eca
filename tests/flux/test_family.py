"""Every row of the README's table of the Flux family, run on the emulator, and looked at."""

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps, ImageStat
from support import family

from piapi_async import ControlNet, LoRA, Session, TaskInfo, flux
from piapi_async.emulator import Emulator

README = Path(__file__).parents[2] / "README.md"
WHITE = (255, 255, 255)
SIZE = (160, 120)
Check = Callable[[Image.Image, Image.Image], None]


def drawing() -> Image.Image:
    """A picture with a few strong edges: a dark disc and a bar on a bright ground."""
    image = Image.new("RGB", SIZE, (215, 205, 170))
    pen = ImageDraw.Draw(image)
    pen.ellipse((20, 20, 90, 90), fill=(40, 60, 110))
    pen.rectangle((110, 10, 140, 100), fill=(150, 40, 40))
    return image


def png(image: Image.Image) -> bytes:
    """A picture's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pierced() -> Image.Image:
    """The drawing with a region in pure white, as inpainting wants it."""
    image = drawing()
    ImageDraw.Draw(image).rectangle((40, 40, 79, 79), fill=WHITE)
    return image


def unlabelled(image: Image.Image) -> Image.Image:
    """The part of a picture that the emulator's mark does not reach."""
    return image.crop((0, 0, image.width, round(image.height * 0.75)))


def distance(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures, 0 to 255."""
    assert one.size == other.size
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def edges(image: Image.Image) -> list[bool]:
    """Where a picture has its strongest edges: the top tenth, on a coarse grid."""
    found = image.convert("L").filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.FIND_EDGES).resize((40, 30))
    values = list(found.crop((1, 1, 39, 22)).tobytes())
    bound = sorted(values)[-len(values) // 10]
    return [value >= bound for value in values]


def share_edges(one: Image.Image, other: Image.Image) -> float:
    """What part of one picture's edges the other has too; a tenth would be chance."""
    pairs = list(zip(edges(one), edges(other), strict=True))
    return sum(a and b for a, b in pairs) / max(1, sum(a for a, _ in pairs))


@attrs.frozen
class Row:
    """What to ask for, and what the pictures have to be."""

    fields: dict[str, Any]
    source: Image.Image | None
    check: Check
    count: int = 1


def is_reworked(result: Image.Image, source: Image.Image) -> None:
    """The source is still to be seen, and changed."""
    same = result.resize(source.size)
    assert share_edges(source, same) > 0.3
    assert distance(unlabelled(source), unlabelled(same)) > 5


def is_a_variation(result: Image.Image, source: Image.Image) -> None:
    """The source is still to be seen, turned round: neither the same picture nor another one."""
    mirrored, same = ImageOps.mirror(source), result.resize(source.size)
    assert share_edges(mirrored, same) > 0.3 > share_edges(source, same)


def has_the_control_pictures_edges(result: Image.Image, source: Image.Image) -> None:
    """The edges of the control picture are those of the result."""
    assert share_edges(source, result.resize(source.size)) > 0.4


def is_sized(result: Image.Image, _source: Image.Image) -> None:
    """The size that was asked for, and something in it."""
    assert result.size == (192, 128)
    assert len(unlabelled(result).getcolors(1 << 24) or ()) > 16


def is_filled(result: Image.Image, source: Image.Image) -> None:
    """What was white is painted, and nothing else has changed."""
    assert result.size == source.size
    hole = (44, 44, 76, 76)
    assert distance(result.crop(hole), source.crop(hole)) > 10
    for kept in ((0, 0, SIZE[0], 36), (0, 0, 36, 80), (84, 0, SIZE[0], 80)):
        assert distance(result.crop(kept), source.crop(kept)) < 2


def is_extended(result: Image.Image, source: Image.Image) -> None:
    """The canvas grew on the sides that were named, round the untouched picture."""
    assert result.size == (SIZE[0] + 40 + 8, SIZE[1] + 24)
    within = result.crop((40, 24, 40 + SIZE[0], 24 + 80))
    assert distance(within, source.crop((0, 0, SIZE[0], 80))) < 2
    assert len(result.crop((0, 0, 40, 100)).getcolors(1 << 24) or ()) > 4


ROWS: dict[type[Any], Row] = {
    flux.Img2Img: Row({"batch_size": 3}, drawing(), is_reworked, count=3),
    flux.Img2ImgLora: Row({"lora": LoRA("anime")}, drawing(), is_reworked),
    flux.ControlNetLora: Row(
        {"control_net": ControlNet("canny", image=png(drawing()), return_preprocessed_image=True)},
        drawing(),
        has_the_control_pictures_edges,
        count=2,
    ),
    flux.Txt2Img: Row({"width": 192, "height": 128, "batch_size": 2}, None, is_sized, count=2),
    flux.Txt2ImgLora: Row({"width": 192, "height": 128, "lora": LoRA("anime")}, None, is_sized),
    flux.FillInpaint: Row({}, pierced(), is_filled),
    flux.FillOutpaint: Row({"left": 40, "right": 8, "top": 24}, drawing(), is_extended),
    flux.ReduxVariation: Row({}, drawing(), is_a_variation),
    flux.Kontext: Row({"width": 192, "height": 128, "seed": 7}, drawing(), is_sized),
}


def test_the_readme_has_the_table_that_the_code_gives() -> None:
    """What `python tests/support/family.py` prints: task type, class, fields, models, and price."""
    text = README.read_text(encoding="utf-8")
    table = text.partition("<!-- family -->\n")[2].partition("\n<!-- /family -->")[0]
    assert table == "\n".join(family.rows())


def test_the_table_is_the_whole_family() -> None:
    """Every task type that a model runs has its class, and every class is run below."""
    assert {kind.task_type for kind in family.CLASSES} == set(flux.MODELS)
    assert set(ROWS) == set(family.CLASSES)


Run = Callable[..., Awaitable[tuple[TaskInfo, list[Image.Image]]]]


@pytest.fixture
async def run(tmp_path: Path) -> Any:
    """Run a request on an emulator; the task and its pictures."""
    async with Emulator() as emulator, Session(emulator.api_key, base_url=emulator.url) as session:

        async def run(request: Any) -> tuple[TaskInfo, list[Image.Image]]:
            info = await session.run(request)
            return info, [Image.open(path).convert("RGB") for path in await session.save(info, tmp_path)]

        yield run


@pytest.mark.parametrize("kind", family.CLASSES, ids=lambda kind: kind.task_type)
async def test_each_row_gives_what_its_name_says(kind: type[Any], run: Run) -> None:
    """On every model of the row; as many pictures as ordered, at the estimated price."""
    row = ROWS[kind]
    for model in flux.MODELS[kind.task_type]:
        fields = {**row.fields, "model": model}
        if row.source is not None and any(field.name == "image" for field in attrs.fields(kind)):
            fields["image"] = None if kind is flux.ControlNetLora else png(row.source)
        if model != flux.SCHNELL:
            fields.pop("batch_size", None)
        request = kind(prompt="a bear", **fields)
        info, pictures = await run(request)
        assert len(pictures) == (row.count if model == flux.SCHNELL or kind is flux.ControlNetLora else 1)
        assert info.task_type == kind.task_type
        assert info.usage is not None
        assert info.usage.usd == pytest.approx(request.estimate())
        row.check(pictures[0], row.source or drawing())


async def test_the_preprocessed_control_picture_comes_along(run: Run) -> None:
    """`return_preprocessed_image` gives a second picture: the control picture's edges themselves."""
    control = ControlNet("canny", image=png(drawing()), return_preprocessed_image=True)
    _, pictures = await run(flux.ControlNetLora(prompt="a bear", control_net=control))
    assert share_edges(drawing(), pictures[1].resize(SIZE)) > 0.4
    assert distance(unlabelled(pictures[0].resize(SIZE)), unlabelled(pictures[1].resize(SIZE))) > 5


async def test_a_lora_and_a_seed_change_the_picture(run: Run) -> None:
    """Each leaves its own picture, and the same request the same."""
    source = png(drawing())
    plain = flux.Img2Img(prompt="a bear", image=source, model=flux.DEV_ADVANCED)
    styled = [flux.Img2ImgLora(prompt="a bear", image=source, lora=LoRA(name)) for name in ("anime", "disney")]
    seeded = [flux.Kontext(prompt="a bear", image=source, seed=seed) for seed in (1, 2, 1)]
    (a,), (b,), (c,) = [(await run(request))[1] for request in (plain, *styled)]
    assert distance(a, b) > 5 < distance(a, c)
    assert distance(b, c) > 0.5
    (d,), (e,), (f,) = [(await run(request))[1] for request in seeded]
    assert distance(unlabelled(d), unlabelled(e)) > 0
    assert d.tobytes() == f.tobytes()
