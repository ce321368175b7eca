"""The picture that stands for one that cannot be fetched: hills in the haze under a low sun."""

import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from piapi_async.emulator._art.palette import PALETTES, Colour, Palette, grained, solid

_SIZE = (768, 512)
_FINE = 2
_RIDGES = 5


def landscape(seed: str) -> Image.Image:
    """A landscape of 768 x 512 pixels; the same text always gives the same one."""
    rng = random.Random(seed.encode(errors="replace"))  # noqa: S311 - a picture, not a secret
    palette = PALETTES[rng.choice(("dusk", "forest", "ocean", "rose", "autumn", "arctic"))]
    picture = _sky(palette, rng)
    for ridge in range(_RIDGES):
        near = (ridge + 1) / _RIDGES
        colour = _between(_between(palette.accent, palette.light, 0.45), palette.dark, near**0.8)
        picture.paste(colour, mask=_ridge(rng, top=0.46 + 0.1 * ridge, rough=0.5 + near))
    return grained(picture, rng, amount=0.03)


def _sky(palette: Palette, rng: random.Random) -> Image.Image:
    height = Image.linear_gradient("L").resize(_SIZE)
    canvas = Image.new("RGB", _SIZE)
    high = _between(palette.middle, palette.glow, 0.25)
    sky = Image.composite(solid(canvas, palette.light), solid(canvas, high), height)
    x, y, radius = rng.uniform(0.2, 0.8) * _SIZE[0], rng.uniform(0.22, 0.42) * _SIZE[1], rng.uniform(26, 52)
    sun = Image.new("L", _SIZE)
    ImageDraw.Draw(sun).ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    halo = ImageChops.add(sun.filter(ImageFilter.GaussianBlur(70)), sun.filter(ImageFilter.GaussianBlur(1.5)))
    return Image.composite(solid(canvas, _between(palette.glow, (255, 255, 255), 0.55)), sky, halo)


def _ridge(rng: random.Random, *, top: float, rough: float) -> Image.Image:
    waves = [(n, rng.uniform(0, math.tau), rng.uniform(0.4, 1) * rough / n) for n in (1, 2, 3, 5, 9, 17, 31)]
    width, height = _SIZE[0] * _FINE, _SIZE[1] * _FINE
    crest = [
        (x, (top + 0.05 * sum(a * math.sin(n * x / width * 5 + p) for n, p, a in waves)) * height)
        for x in range(0, width + 1, 4)
    ]
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([(0, height), *crest, (width, height)], 255)
    return mask.reduce(_FINE)


def _between(one: Colour, other: Colour, share: float) -> Colour:
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))  # type: ignore[return-value]
