"""Effects made by hand: brush, pencil, pen."""

import random

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from piapi_async.emulator._art.palette import (
    Palette,
    curved,
    grained,
    grey,
    noise,
    outlines,
    smooth,
    solid,
    toned,
    unit,
)


def watercolour(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Washes that pool at their edges, on rough paper with a white margin."""
    size = unit(image)
    wash = smooth(smooth(image, size=9), size=7, pixels=40_000)
    tinted = Image.blend(wash, toned(wash, palette, middle=palette.accent), 0.3)
    pale = ImageChops.screen(ImageEnhance.Color(tinted).enhance(1.7), solid(image, (46, 44, 40)))
    pooled = Image.composite(ImageChops.multiply(pale, pale), pale, outlines(wash, width=3 * size, strength=10))
    drawn = Image.composite(solid(image, palette.dark), pooled, _faint(outlines(image, width=size), 0.5))
    return _on_paper(drawn, rng)


def oil(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Thick strokes that catch the light."""
    size = unit(image)
    dabs = _dabs(image, rng)
    rich = ImageEnhance.Color(Image.blend(dabs, ImageChops.soft_light(dabs, toned(dabs, palette)), 0.5))
    ridges = ImageOps.grayscale(dabs).filter(ImageFilter.GaussianBlur(0.6 * size)).filter(ImageFilter.EMBOSS)
    return ImageChops.overlay(rich.enhance(1.5), ridges.convert("RGB"))


def pencil(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Graphite on warm paper, with a breath of colour."""
    size = unit(image)
    fine = ImageChops.lighter(
        outlines(image, width=1.5 * size, strength=7), outlines(image, width=6 * size, strength=2.5)
    )
    hatch = noise(image.size, rng).filter(ImageFilter.BoxBlur((3 * size, 0))).rotate(35)
    shade = ImageChops.multiply(ImageOps.invert(grey(image)), ImageOps.autocontrast(hatch))
    marks = ImageChops.add(fine, _faint(shade, 0.45))
    paper = solid(image, palette.light)
    coloured = Image.blend(paper, ImageChops.multiply(paper, ImageOps.autocontrast(image, cutoff=2)), 0.35)
    return grained(Image.composite(solid(image, palette.dark), coloured, marks), rng, amount=0.03)


def ink(image: Image.Image, palette: Palette, _rng: random.Random) -> Image.Image:
    """Flat bright colours inside ink lines, as in an animated film."""
    size = unit(image)
    flat = ImageOps.posterize(smooth(ImageEnhance.Color(image).enhance(1.9), size=7), 3)
    cels = ImageOps.autocontrast(smooth(flat, size=5), cutoff=1)
    tinted = Image.blend(cels, ImageChops.soft_light(cels, toned(cels, palette, middle=palette.accent)), 0.5)
    return _inked(tinted, image, palette, width=2.0 * size)


def comic(image: Image.Image, palette: Palette, _rng: random.Random) -> Image.Image:
    """Five clear colours and a thin pen, as in a French album."""
    base = smooth(image, size=7)
    levels = curved(grey(base), lambda v: v // 52 * 63)
    flat = ImageOps.colorize(levels, black=palette.middle, mid=palette.accent, white=palette.light)
    coloured = Image.blend(flat, ImageEnhance.Color(base).enhance(2.2), 0.4)
    return _inked(coloured, image, palette, width=1.4 * unit(image))


def engraving(image: Image.Image, palette: Palette, _rng: random.Random) -> Image.Image:
    """Parallel lines that swell in the shadows, as on a banknote."""
    pitch = max(4, round(2.6 * unit(image)))
    wave = [abs(2 * (y % pitch) / pitch - 1) * 255 for y in range(pitch * 2)]
    stripe = Image.new("L", (1, len(wave)))
    stripe.putdata([round(v) for v in wave])
    side = max(image.size) * 2
    field = Image.new("L", (1, side))
    for top in range(0, side, len(wave)):
        field.paste(stripe, (0, top))
    ruled = field.resize((side, side)).rotate(24, Image.Resampling.BICUBIC)
    left, top = (side - image.width) // 2, (side - image.height) // 2
    screen = ruled.crop((left, top, left + image.width, top + image.height))
    marks = curved(ImageChops.add(grey(image), screen, scale=1, offset=-150), lambda v: min(255, v * 3))
    tone = Image.blend(solid(image, palette.light), toned(image, palette, middle=palette.accent), 0.35)
    return Image.composite(tone, solid(image, palette.dark), marks)


def _dabs(image: Image.Image, rng: random.Random) -> Image.Image:
    """Every place takes its colour from a place nearby, as a loaded brush does."""
    factor = min(1.0, 460 / max(image.size))
    coarse = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    shaken = coarse
    patches = [0] * 131 + [255] * 125
    for dx, dy in ((2, 1), (-1, 2), (1, -2), (-2, -1)):
        mask = noise(coarse.size, rng).filter(ImageFilter.GaussianBlur(2)).point(patches)
        shaken = Image.composite(ImageChops.offset(coarse, dx, dy), shaken, mask)
    return shaken.filter(ImageFilter.ModeFilter(7)).resize(image.size, Image.Resampling.BICUBIC)


def _inked(coloured: Image.Image, image: Image.Image, palette: Palette, *, width: float) -> Image.Image:
    lines = outlines(image.filter(ImageFilter.GaussianBlur(width / 3)), width=width, strength=8)
    firm = curved(lines, lambda v: max(0, min(255, (v - 70) * 3)))
    return Image.composite(solid(image, palette.dark), coloured, firm)


def _on_paper(image: Image.Image, rng: random.Random) -> Image.Image:
    edge = curved(Image.radial_gradient("L").resize(image.size), lambda v: max(0, min(255, (v - 140) * 3)))
    coarse = noise((9, 7), rng).resize(image.size, Image.Resampling.BICUBIC)
    fine = noise((60, 40), rng).resize(image.size, Image.Resampling.BICUBIC)
    torn = curved(ImageChops.subtract(edge, Image.blend(coarse, fine, 0.35)), lambda v: min(255, v * 4))
    return grained(Image.composite(solid(image, (250, 247, 240)), image, torn), rng, amount=0.06)


def _faint(mask: Image.Image, factor: float) -> Image.Image:
    return mask.point(lambda v: v * factor)
