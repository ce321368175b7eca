"""Effects made of colour and light."""

import random

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from piapi_async.emulator._art.palette import (
    Colour,
    Palette,
    curved,
    glowing,
    grained,
    grey,
    outlines,
    slope,
    smooth,
    solid,
    toned,
    unit,
    vignetted,
)


def duotone(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Three colours from shadow to light, as a riso print."""
    return grained(toned(image, palette, middle=palette.accent), rng)


def golden_hour(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Low warm light from one side."""
    warm = ImageChops.soft_light(image, solid(image, palette.accent))
    side = slope(image.size, rng.choice((60, 120, 240, 300)))
    lit = Image.composite(ImageChops.screen(warm, solid(image, _dimmed(palette.glow, 0.5))), warm, side)
    return vignetted(glowing(ImageEnhance.Color(lit).enhance(1.25), radius=9 * unit(image)), amount=0.7)


def cinematic(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Shadows in one colour, lights in another, as on film."""
    shadows = ImageChops.soft_light(image, solid(image, palette.middle))
    lights = ImageChops.soft_light(image, solid(image, palette.glow))
    split = Image.composite(lights, shadows, grey(image))
    crisp = split.filter(ImageFilter.UnsharpMask(radius=round(6 * unit(image)), percent=70))
    return grained(vignetted(ImageEnhance.Contrast(crisp).enhance(1.15), amount=0.8), rng, amount=0.04)


def dream(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Soft pastel, with sparks in the air."""
    soft = Image.blend(image, toned(image, palette, middle=palette.accent), 0.55)
    hazy = glowing(Image.blend(soft, soft.filter(ImageFilter.GaussianBlur(5 * unit(image))), 0.4), radius=14)
    return ImageChops.screen(hazy, _sparks(image, palette.light, rng, count=60, largest=2.4))


def deep_sea(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Under water: cold light from above, rays, and drifting particles."""
    cold = Image.blend(image, toned(image, palette), 0.75)
    rays = Image.new("L", image.size)
    draw = ImageDraw.Draw(rays)
    for _ in range(7):
        x, spread = rng.uniform(-0.1, 1.1) * image.width, rng.uniform(0.03, 0.1) * image.width
        drift = (x - image.width / 2) * 0.6
        foot = (x + drift - 2 * spread, x + drift + 2 * spread)
        draw.polygon([(x - spread, 0), (x + spread, 0), (foot[1], image.height), (foot[0], image.height)], 90)
    fading = ImageChops.multiply(rays, Image.linear_gradient("L").rotate(180).resize(image.size))
    light = fading.filter(ImageFilter.GaussianBlur(6 * unit(image)))
    lit = Image.composite(ImageChops.screen(cold, solid(image, palette.accent)), cold, light)
    return ImageChops.screen(vignetted(lit), _sparks(image, palette.glow, rng, count=220, largest=2.0))


def starlight(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Night, a nebula in the shadows, and stars."""
    night = ImageEnhance.Brightness(Image.blend(image, toned(image, palette), 0.7)).enhance(0.9)
    blots = Image.new("RGB", (7, 5))
    blots.putdata([_dimmed(rng.choice((palette.accent, palette.glow, palette.dark)), 0.55) for _ in range(35)])
    nebula = blots.resize(image.size, Image.Resampling.BICUBIC)
    shadows = grey(image).point(lambda v: 255 - v)
    clouded = Image.composite(ImageChops.screen(night, nebula), night, shadows)
    return ImageChops.screen(clouded, _sparks(image, (255, 255, 255), rng, count=260, largest=1.5))


def neon(image: Image.Image, palette: Palette, _rng: random.Random) -> Image.Image:
    """Tubes of light along the edges, at night."""
    size = unit(image)
    lines = curved(outlines(smooth(image, size=5), width=3 * size, strength=11), lambda v: max(0, v - 45) * 1.4)
    tubes = Image.composite(solid(image, palette.accent), solid(image, palette.glow), slope(image.size, 70))
    light = ImageChops.multiply(tubes, lines.filter(ImageFilter.GaussianBlur(0.6 * size)).convert("RGB"))
    night = ImageEnhance.Brightness(Image.blend(image, toned(image, palette), 0.85)).enhance(0.5)
    for radius, amount in ((0.0, 1.0), (2.0 * size, 0.8), (8 * size, 0.7)):
        halo = light.filter(ImageFilter.GaussianBlur(radius)).point(lambda v, amount=amount: v * amount)
        night = ImageChops.screen(night, halo)
    return vignetted(night, amount=0.6)


def _sparks(image: Image.Image, colour: Colour, rng: random.Random, *, count: int, largest: float) -> Image.Image:
    """Points of light on black, most of them small, to be screened over a picture."""
    sparks = solid(image, (0, 0, 0))
    draw = ImageDraw.Draw(sparks)
    for _ in range(count):
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        radius = largest * unit(image) * rng.random() ** 3 + 0.4
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), _dimmed(colour, rng.uniform(0.3, 1)))
    halo = sparks.filter(ImageFilter.GaussianBlur(2.5 * unit(image)))
    return ImageChops.add(sparks.filter(ImageFilter.GaussianBlur(0.4 * unit(image))), halo)


def _dimmed(colour: Colour, factor: float) -> Colour:
    return tuple(round(part * factor) for part in colour)  # type: ignore[return-value]
