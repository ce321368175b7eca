"""The other task types, on the pictures themselves (section 2.7 of the facts)."""

import io
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat
from support.rig import Api, data_uri

from piapi_async.emulator._art.canvas import canvas_for
from piapi_async.emulator._art.landscape import landscape
from piapi_async.emulator._art.pictures import paint
from piapi_async.emulator._art.spec import Order

ADVANCED = "Qubico/flux1-dev-advanced"


def photo(size: tuple[int, int] = (90, 60)) -> Image.Image:
    """Something with shapes and shades, and without pure white."""
    return landscape("photo").resize(size).point(lambda v: min(v, 240))


def order(task_type: str, *, image: str = "photo", max_pixels: int = 8100, item: int = 0, **given: Any) -> Order:
    """An order for a small picture."""
    fields = {"prompt": "a mosaic", "negative_prompt": "", "image": image, **given}
    return Order.of(fields, item=item, seed=0, max_pixels=max_pixels, task_type=task_type)


def made(task_type: str, source: Image.Image | None = None, **given: Any) -> Image.Image:
    """The picture of an order."""
    asked = order(task_type, **given)
    buffer = io.BytesIO()
    (source or photo()).save(buffer, "PNG")
    png = paint(asked, images=[buffer.getvalue()] * len(asked.images), fallbacks=False)
    assert png is not None
    return Image.open(io.BytesIO(png)).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures of one size, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other.resize(one.size))).mean) / 3


@pytest.mark.parametrize(
    ("given", "size"),
    [({"width": 64, "height": 48}, (64, 48)), ({}, (90, 90)), ({"width": 2048}, (127, 63)), ({"height": 8}, (1018, 7))],
)
def test_text_alone_makes_a_picture_of_the_size_that_was_asked_for(
    given: dict[str, int], size: tuple[int, int]
) -> None:
    """2.7 (D T2I): width and height count in txt2img; 1024 is ours where one is missing, within the size allowed."""
    assert made("txt2img", image="", **given).size == size


def test_text_pictures_depend_on_prompt_and_item() -> None:
    """Other words, and each picture of a batch, give another scene."""
    pictures = [made("txt2img", image="", prompt=prompt) for prompt in ("a mosaic", "a mosaic of cats")]
    pictures.append(made("txt2img", image="", item=1))
    assert len({each.tobytes() for each in pictures}) == 3


def test_inpainting_fills_what_is_pure_white_and_nothing_else() -> None:
    """2.7 (D REDUX): the region is painted pure white in the image itself; there is no mask."""
    source = photo((120, 60))
    ImageDraw.Draw(source).rectangle((0, 0, 40, 59), "white")
    result = made("fill-inpaint", source)
    white, rest = ((4, 4, 36, 40), (50, 0, 110, 40))
    assert difference(result.crop(white), Image.new("RGB", (32, 36), "white")) > 30
    assert difference(result.resize((120, 60)).crop(rest), source.crop(rest)) < 4


def test_an_image_without_white_is_left_alone() -> None:
    """There is nothing to fill."""
    result = made("fill-inpaint", photo((90, 90)))
    box = (0, 0, 90, 70)
    assert difference(result.crop(box), photo((90, 90)).crop(box)) < 4


def test_outpainting_extends_the_canvas_and_keeps_the_source() -> None:
    """2.7 (D REDUX): so many pixels on each side."""
    margins = {"outpaint_left": 30, "outpaint_right": 10, "outpaint_top": 20, "outpaint_bottom": 0}
    result = made("fill-outpaint", custom_settings=[{"setting_type": "outpaint", **margins}], max_pixels=10400)
    assert result.size == (130, 80)
    assert difference(result.crop((30, 20, 120, 60)), photo().crop((0, 0, 90, 40))) < 4


def test_outpainting_by_a_great_deal_stays_within_the_size_allowed() -> None:
    """A margin of a million pixels is scaled down before anything is painted."""
    settings = [{"setting_type": "outpaint", "outpaint_left": 1_048_576}]
    canvas = canvas_for(order("fill-outpaint", custom_settings=settings), [photo()])
    assert canvas.image.size == (11898, 1)


def test_a_variation_turns_the_source_round() -> None:
    """2.7: a variation is neither the source nor its restyled twin."""
    variation, restyled = made("redux-variation"), made("img2img")
    assert variation.size == restyled.size
    assert difference(variation, restyled) > 10


def test_kontext_has_a_size_and_a_seed_of_its_own() -> None:
    """2.7 (D KON): width, height and seed; it does not keep the input's dimensions (T)."""
    assert made("kontext", width=80, height=100).size == (80, 100)
    assert made("kontext", seed=1).tobytes() != made("kontext", seed=2).tobytes()
    assert made("kontext", seed=-1).tobytes() == made("kontext").tobytes()


@pytest.mark.parametrize("task_type", ["txt2img", "fill-inpaint", "redux-variation", "kontext"])
async def test_the_server_paints_by_task_type(api: Api, task_type: str) -> None:
    """Through HTTP, every task type differs from img2img of the same input."""
    results, buffer = [], io.BytesIO()
    photo().save(buffer, "PNG")
    for each in (task_type, "img2img"):
        given = {"prompt": "a mosaic", "image": data_uri(buffer.getvalue())}
        data = await api.finished({"model": ADVANCED, "task_type": each, "input": given})
        results.append((await api.send("GET", data["output"]["image_url"])).body)
    assert results[0].startswith(b"\x89PNG")
    assert results[0] != results[1]
