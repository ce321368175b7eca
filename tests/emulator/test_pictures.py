"""The pictures themselves: every field of a request leaves a trace, and nothing is left to chance."""

import io
import random
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat
from support.rig import picture

from piapi_async.emulator._art import pictures
from piapi_async.emulator._art import styles as _styles
from piapi_async.emulator._art.landscape import landscape
from piapi_async.emulator._art.palette import PALETTES
from piapi_async.emulator._art.pictures import paint
from piapi_async.emulator._art.spec import Order
from piapi_async.emulator._art.styles import _COLOURS, _EFFECTS, _LORAS, style_for


def photo(size: tuple[int, int] = (90, 60)) -> bytes:
    """Something with shapes and shades."""
    buffer = io.BytesIO()
    landscape("photo").resize(size).save(buffer, "PNG")
    return buffer.getvalue()


PHOTO = photo()


def order(item: int = 0, max_pixels: int = 5400, seed: int = 0, **given: Any) -> Order:
    """An order for a small picture."""
    fields = {"prompt": "a bear", "negative_prompt": "", "image": "photo", **given}
    return Order.of(fields, item=item, seed=seed, max_pixels=max_pixels)


def made(data: bytes = PHOTO, **options: Any) -> Image.Image:
    """The picture of an order."""
    asked = order(**options)
    png = paint(asked, images=[data] * len(asked.images), fallbacks=False)
    assert png is not None
    return Image.open(io.BytesIO(png)).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255, the label's corner left out."""
    box = (0, 0, one.width, round(one.height * 0.8))
    return sum(ImageStat.Stat(ImageChops.difference(one.crop(box), other.crop(box))).mean) / 3


def source() -> Image.Image:
    """The photo in the size of the result."""
    return Image.open(io.BytesIO(PHOTO)).convert("RGB").resize(made().size)


def lora(name: str, **more: Any) -> dict[str, Any]:
    """Input with a LoRA."""
    return {"lora_settings": [{"lora_type": name, **more}]}


def control(kind: str, **more: Any) -> dict[str, Any]:
    """Input with a control net."""
    return {"control_net_settings": [{"control_type": kind, "control_image": "control", **more}]}


@pytest.mark.parametrize("size", [(90, 60), (1, 1), (200, 3), (3, 200)])
@pytest.mark.parametrize("effect", _EFFECTS)
def test_every_effect_keeps_size_and_mode_and_changes_the_picture(effect: Any, size: tuple[int, int]) -> None:
    """Effects work on any picture, also on one of one pixel, and give the same for the same chance."""
    before = Image.open(io.BytesIO(photo(size))).convert("RGB")
    one, two = (effect(before.copy(), PALETTES["dusk"], random.Random(1)) for _ in range(2))
    assert (one.size, one.mode) == (size, "RGB")
    assert one.tobytes() == two.tobytes()
    assert size == (1, 1) or one.tobytes() != before.tobytes()


def test_the_same_order_gives_the_same_bytes() -> None:
    """Deterministic for the seed and the request."""
    assert paint(order(), images=[PHOTO], fallbacks=False) == paint(order(), images=[PHOTO], fallbacks=False)
    assert order().key == order().key


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"item": 1},
        {"prompt": "a fox"},
        {"negative_prompt": "blur"},
        {"image": "other"},
        {"denoise": 0.3},
        {"guidance_scale": 2.0},
        {"max_pixels": 99},
        lora("anime"),
        control("depth"),
    ],
)
def test_everything_that_matters_is_in_the_fingerprint(change: dict[str, Any]) -> None:
    """Two orders share a picture only if they ask for the same."""
    assert order(**change).key != order().key


def test_any_text_is_a_prompt() -> None:
    """Emoji and lone surrogates, which JSON can carry, are no trouble."""
    assert made(prompt="\ud800 🐻").size == made().size


def test_denoise_is_the_distance_from_the_input() -> None:
    """2.3: near the input at a low denoise, all the way at 1, in between in between."""
    distances = [difference(made(prompt="neon", denoise=d), source()) for d in (0.02, 0.3, 0.7, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] < 5
    assert distances[-1] > 20


def test_denoise_is_0_7_by_default() -> None:
    """2.3: the documented default."""
    assert made().tobytes() == made(denoise=0.7).tobytes()


def test_guidance_makes_colours_stronger() -> None:
    """2.3: a high scale sticks to the prompt "at the cost of reduced realism"; here: less or more contrast."""
    spreads = [sum(ImageStat.Stat(made(prompt="rose", guidance_scale=g)).stddev) for g in (1.5, 3.0, 5.0)]
    assert spreads == sorted(spreads)
    assert spreads[0] < spreads[1] < spreads[2]
    assert made(guidance_scale=3.0).tobytes() == made().tobytes()


def test_pictures_of_a_batch_differ() -> None:
    """Four pictures of one request are four pictures."""
    assert len({made(item=item).tobytes() for item in range(4)}) == 4


@pytest.mark.parametrize(
    ("prompt", "effect"),
    [("A WATERCOLOR of a bear", "watercolour"), ("bear, pencil-sketch", "pencil"), ("neon city", "neon")],
)
def test_words_of_the_prompt_choose_the_effect(prompt: str, effect: str) -> None:
    """A newcomer gets what the prompt says."""
    assert style_for(prompt, lora=None, item=0, rng=random.Random(1)).effect.__name__ == effect


def test_words_of_the_prompt_choose_the_colours() -> None:
    """Colour words count, whatever the effect."""
    assert style_for("a mosaic in winter", lora=None, item=0, rng=random.Random(1)).palette == PALETTES["arctic"]


def test_without_such_words_the_seed_chooses() -> None:
    """Different prompts end up with different effects."""
    effects = {style_for("x", lora=None, item=0, rng=random.Random(i)).effect for i in range(60)}
    assert len(effects) > 10


def test_all_colour_words_belong_to_palettes() -> None:
    """No keyword, LoRA or effect names colours that do not exist."""
    named = {colours for _, colours in _LORAS.values()} | {colours for _, _, colours in _styles._WORDS}
    assert set(_COLOURS) == set(PALETTES)
    assert named - {None} <= set(PALETTES)


DOCUMENTED_LORAS = {
    "anime",
    "art",
    "disney",
    "furry",
    "mjv6",
    "realism",
    "scenery",
    "collage-artstyle",
    "creepcute",
    "cyberpunk-anime-style",
    "deco-pulse",
    "deep-sea-particle-enhencer",
    "faetastic-details",
    "fractal-geometry",
    "galactixy-illustrations-style",
    "geometric-woman",
    "graphic-portrait",
    "mat-miller-art",
    "moebius-style",
    "ob3d-isometric-3d-room",
    "paper-quilling-and-layering-style",
    "remes-abstract-poster-style",
    "mystic-realism",
}


def test_every_documented_lora_has_a_style_of_its_own_choice() -> None:
    """2.5: all names of the page, and the two used elsewhere."""
    assert set(_LORAS) == DOCUMENTED_LORAS
    style = style_for("watercolour", lora="cyberpunk-anime-style", item=0, rng=random.Random(1))
    assert style.effect.__name__ == "neon"


def test_an_unknown_lora_gets_a_style_by_its_name() -> None:
    """2.5: an open set; the same name always looks the same."""
    styles = {style_for(p, lora="brand-new", item=0, rng=random.Random(p)).effect for p in ("a", "b", "oil")}
    assert len(styles) == 1


def test_lora_strength_is_how_much_of_the_style_shows() -> None:
    """2.4: strength 0 leaves the input alone."""
    assert difference(made(**lora("anime", lora_strength=0)), source()) < 1
    assert made(**lora("anime", lora_strength=1)).tobytes() == made(**lora("anime")).tobytes()


@pytest.mark.parametrize("kind", ["depth", "canny", "soft_edge", "hed", "openpose", "new"])
@pytest.mark.parametrize("prompt", ["neon", "pencil"])
def test_a_control_image_shows_in_the_result(kind: str, prompt: str) -> None:
    """Its edges, or its depth, are drawn into dark and bright pictures alike; strength says how much."""
    plain = made(prompt=prompt)
    weak, strong = (made(prompt=prompt, **control(kind, control_strength=s)) for s in (-0.3, 0.6))
    assert 0 < difference(weak, plain) < difference(strong, plain)


def test_without_an_image_the_control_image_is_the_start() -> None:
    """2.4: controlnet-lora without image."""
    asked = order(image="", **control("depth"))
    assert asked.images == ("control",)
    assert paint(asked, images=[PHOTO], fallbacks=False) is not None


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [((90, 60), 1_048_576, (774, 516)), ((3000, 1500), 1_048_576, (1448, 724)), ((4, 4000), 100, (1, 316))],
)
def test_results_have_the_aspect_of_the_input_and_a_bounded_size(
    size: tuple[int, int], most: int, expected: tuple[int, int]
) -> None:
    """Small inputs grow until effects look well, large ones shrink to about a megapixel."""
    assert made(photo(size), max_pixels=most, prompt="duotone").size == expected


def test_results_are_marked() -> None:
    """A plate in the lower right corner says "emulated": white letters on dark, whatever is below."""
    white = made(picture((90, 60), "white"), max_pixels=60_000, denoise=0.001, prompt="duotone")
    corner = white.crop((white.width * 2 // 3, white.height * 7 // 8, white.width, white.height))
    low, high = corner.convert("L").getextrema()
    assert low < 160
    assert high >= 254


def test_transparency_becomes_white_and_orientation_is_applied() -> None:
    """What a viewer would show is what is worked on."""
    clear, turned = io.BytesIO(), io.BytesIO()
    Image.new("RGBA", (60, 60), (0, 0, 0, 0)).save(clear, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 60)).save(turned, "JPEG", exif=exif)
    bright = made(clear.getvalue(), denoise=0.001, prompt="duotone")
    assert bright.convert("L").getpixel((3, 3)) == 254
    wide = made(turned.getvalue(), prompt="duotone")
    assert wide.width < wide.height


@pytest.mark.parametrize("data", [None, b"", b"\xff\xd8\xffbroken", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_an_image_that_cannot_be_read_needs_a_stand_in(data: bytes | None) -> None:
    """A landscape if that is allowed, no picture if not."""
    assert paint(order(), images=[data], fallbacks=False) is None
    assert paint(order(), images=[data], fallbacks=True) is not None


def test_an_image_too_large_to_decode_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes can be many pixels."""
    monkeypatch.setattr(pictures, "_MOST_DECODED", 5399)
    assert paint(order(), images=[PHOTO], fallbacks=False) is None


def test_landscapes_differ_by_name() -> None:
    """The stand-in of a link is always the same one, and not that of another link."""
    assert landscape("https://a").tobytes() == landscape("https://a").tobytes()
    assert landscape("https://a").tobytes() != landscape("https://b").tobytes()
