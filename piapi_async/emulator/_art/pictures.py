"""From a request and its images to the finished PNG.

No model runs here: the input is restyled by Pillow, so that every field of a request leaves a trace that can be seen.
The prompt and the LoRA choose the style, `denoise` how far it goes, `guidance_scale` how strong its contrasts are, a
control image draws its structure into the picture, and each picture of a batch has colours of its own.
"""

import io
import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps, ImageStat

from piapi_async.emulator._art.canvas import canvas_for
from piapi_async.emulator._art.landscape import landscape
from piapi_async.emulator._art.palette import Palette, grey, smooth, solid, unit
from piapi_async.emulator._art.spec import Order
from piapi_async.emulator._art.styles import style_for

_LEAST_PIXELS = 400_000
_THUMBNAIL = (256, 256)
_MOST_DECODED = 64_000_000
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_NEUTRAL_GUIDANCE = 3.0


def paint(order: Order, *, images: list[bytes | None], fallbacks: bool) -> bytes | None:
    """Make one picture.

    Args:
        order: What was asked for.

        images: The bytes of `order.images`, None for one that could not be had.

        fallbacks: Whether a landscape may stand for an image that is missing or cannot be read.

    Returns:
        A PNG, or None when an image is missing and nothing may stand for it.
    """
    sources = []
    for name, data in zip(order.images, images, strict=True):
        source = _decoded(data) or (landscape(name) if fallbacks else None)
        if source is None:
            return None
        sources.append(source)
    return _png(_compose(order, sources))


def thumbnail(name: str, *, image: bytes | None, fallbacks: bool) -> bytes | None:
    """An input, small; None when it is missing or cannot be read and no landscape may stand for it."""
    picture = _decoded(image) or (landscape(name) if fallbacks else None)
    if picture is None:
        return None
    picture.thumbnail(_THUMBNAIL)
    return _png(picture)


def _decoded(data: bytes | None) -> Image.Image | None:
    try:
        image = Image.open(io.BytesIO(data or b""))
        if image.width * image.height > _MOST_DECODED:
            return None
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    except _UNREADABLE:
        return None
    paper = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(paper, upright).convert("RGB")


def _compose(order: Order, sources: list[Image.Image]) -> Image.Image:
    # Not from all of the order, so that pictures differing in strength alone show the same strokes.
    chance = f"{order.seed}/{order.item}/{order.prompt}" + (f"/{order.chance}" if order.chance >= 0 else "")
    rng = random.Random(chance.encode(errors="replace"))  # noqa: S311 - a picture, not a secret
    if order.is_guide:
        return _labelled(_guide(_fitted(sources[-1], order=order), order=order))
    canvas = canvas_for(order, sources)
    base = _fitted(canvas.image, order=order)
    style = style_for(order.prompt, lora=order.lora, item=order.item, rng=rng)
    styled = style.effect(base, style.palette, rng)
    picture = Image.blend(base, styled, _share(order))
    if order.control_type is not None:
        picture = _structured(picture, sources[-1], order=order, palette=style.palette)
    return _labelled(canvas.styled(_guided(picture, order.guidance_scale), base=base))


def _fitted(image: Image.Image, *, order: Order) -> Image.Image:
    """Of a size at which the effects look their best, unless one was asked for; same aspect, never above the limit."""
    pixels = image.width * image.height
    least = 1 if order.is_sized else _LEAST_PIXELS
    factor = math.sqrt(min(order.max_pixels, max(pixels, least)) / pixels)
    size = max(1, int(image.width * factor)), max(1, int(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def _share(order: Order) -> float:
    """How much of the style shows: little at a low `denoise`, all of it at 1."""
    return math.sin(order.denoise * math.pi / 2) * min(1.0, max(0.0, order.lora_strength))


def _guided(image: Image.Image, scale: float) -> Image.Image:
    more = (scale or _NEUTRAL_GUIDANCE) - _NEUTRAL_GUIDANCE
    vivid = ImageEnhance.Color(image).enhance(1 + 0.2 * more)
    return ImageEnhance.Contrast(vivid).enhance(1 + 0.12 * more)


def _structured(image: Image.Image, control: Image.Image, *, order: Order, palette: Palette) -> Image.Image:
    guide = ImageOps.fit(control, image.size)
    weight = min(1.0, 0.4 + max(0.0, order.control_strength))
    if order.control_type == "depth":
        haze = Image.blend(image, solid(image, palette.light), 0.8 * weight)
        return Image.composite(image, haze, grey(guide))
    lines = _lines(guide, order=order).point(lambda v: v * weight)
    dark = ImageStat.Stat(ImageOps.grayscale(image)).mean[0] < 96  # noqa: PLR2004 - about a third of full light
    return Image.composite(solid(image, palette.glow if dark else palette.dark), image, lines)


def _lines(guide: Image.Image, *, order: Order) -> Image.Image:
    """The edges of a control picture: white on black."""
    width = max(1.0, (1.0 if order.control_type == "canny" else 2.5) * unit(guide))
    tone = ImageOps.grayscale(smooth(guide, size=5))
    edges = ImageChops.difference(tone, tone.filter(ImageFilter.GaussianBlur(width)))
    return ImageOps.autocontrast(edges, cutoff=(30, 2))


def _guide(control: Image.Image, *, order: Order) -> Image.Image:
    """What was taken from a control picture."""
    taken = ImageOps.grayscale(control) if order.control_type == "depth" else _lines(control, order=order)
    return taken.convert("RGB")


def _labelled(image: Image.Image) -> Image.Image:
    """Marked in its lower right corner, so that nobody takes it for the real thing."""
    size = max(8.0, 11 * unit(image))
    font = ImageFont.load_default(size)
    plate = Image.new("L", image.size)
    draw = ImageDraw.Draw(plate)
    corner = image.width - 0.9 * size, image.height - 0.8 * size
    left, top, right, bottom = draw.textbbox(corner, "emulated", font=font, anchor="rs")
    box = (left - 0.5 * size, top - 0.35 * size, right + 0.5 * size, bottom + 0.35 * size)
    draw.rounded_rectangle(box, radius=0.4 * size, fill=110)
    marked = Image.composite(solid(image, (0, 0, 0)), image, plate)
    ImageDraw.Draw(marked).text(corner, "emulated", font=font, anchor="rs", fill=(255, 255, 255))
    return marked


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
