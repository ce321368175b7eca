"""Effects made of pieces: dots, tiles, paper, glass."""

import itertools
import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from piapi_async.emulator._art.palette import (
    Colour,
    Palette,
    curved,
    grained,
    grey,
    slope,
    smooth,
    solid,
    toned,
    unit,
    vignetted,
)

_FINE = 2


def halftone(image: Image.Image, palette: Palette, _rng: random.Random) -> Image.Image:
    """Dots of ink on three flat colours, as on a printed poster."""
    pitch = max(5, round(3.2 * unit(image)))
    dots = Image.new("L", image.size)
    spot = _spot(pitch)
    for top in range(0, image.height, pitch):
        for left in range(-(top // pitch % 2) * pitch // 2, image.width, pitch):
            dots.paste(spot, (left, top))
    marks = curved(ImageChops.add(grey(image), dots, scale=1, offset=-128), lambda v: min(255, max(0, v * 4)))
    levels = curved(grey(smooth(image, size=7)), lambda v: v // 86 * 127)
    flat = ImageOps.colorize(levels, black=palette.middle, mid=palette.accent, white=palette.light)
    return Image.composite(flat, solid(image, palette.dark), marks)


def mosaic(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Six-sided tiles of glass, leaded."""
    radius = 4.5 * unit(image)
    colours = ImageEnhance.Color(ImageChops.soft_light(image, toned(image, palette))).enhance(1.5)
    canvas = Image.new("RGB", (image.width * _FINE, image.height * _FINE), palette.dark)
    draw = ImageDraw.Draw(canvas)
    for row in range(int(image.height / (1.5 * radius)) + 2):
        for column in range(int(image.width / (3**0.5 * radius)) + 2):
            x, y = (column + row % 2 / 2) * 3**0.5 * radius, row * 1.5 * radius
            colour = _lit(_colour_at(colours, x, y), rng.uniform(0.86, 1.16))
            draw.regular_polygon((x * _FINE, y * _FINE, radius * _FINE * 0.93), 6, rotation=30, fill=colour)
    return vignetted(canvas.resize(image.size, Image.Resampling.LANCZOS), amount=0.4)


def low_poly(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Triangles, each in one colour, like folded paper."""
    step = 6.5 * unit(image)
    colours = Image.blend(image, toned(image, palette, middle=palette.accent), 0.22)
    soft = ImageEnhance.Color(colours).enhance(1.4).filter(ImageFilter.GaussianBlur(step / 4))
    across, down = math.ceil(image.width / step) + 2, math.ceil(image.height / step) + 2
    nodes = [
        [
            ((c - 0.5 + rng.uniform(-0.38, 0.38)) * step, (r - 0.5 + rng.uniform(-0.38, 0.38)) * step)
            for c in range(across)
        ]
        for r in range(down)
    ]
    canvas = Image.new("RGB", (image.width * _FINE, image.height * _FINE))
    draw = ImageDraw.Draw(canvas)
    for triangle in _triangles(nodes):
        x, y = (sum(axis) / 3 for axis in zip(*triangle, strict=True))
        fill = _lit(_colour_at(soft, x, y), rng.uniform(0.92, 1.1))
        draw.polygon([(px * _FINE, py * _FINE) for px, py in triangle], fill)
    return canvas.resize(image.size, Image.Resampling.LANCZOS)


def paper_cut(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Sheets of coloured paper, one above the other, each with its shadow."""
    size = unit(image)
    heights = grey(smooth(image, size=7, pixels=60_000).filter(ImageFilter.GaussianBlur(1.2 * size)))
    ramp = ImageOps.colorize(
        Image.linear_gradient("L").crop((0, 0, 1, 256)), palette.dark, palette.light, palette.accent
    )
    sheets = solid(image, palette.dark)
    for level in range(1, 9):
        sheet = _above(heights, floor=level * 27)
        shadow = ImageChops.offset(sheet, 0, round(1.6 * size)).filter(ImageFilter.GaussianBlur(2.4 * size))
        sheets = Image.composite(solid(image, (0, 0, 0)), sheets, shadow.point(lambda v: v * 0.5))
        sheets = Image.composite(solid(image, _colour_at(ramp, 0, level * 31)), sheets, sheet)
    return grained(sheets, rng, amount=0.05)


def _above(heights: Image.Image, *, floor: int) -> Image.Image:
    return curved(heights, lambda v: max(0, min(255, (v - floor) * 24)))


def deco(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Gold on black, with a fan of rays behind."""
    plate = ImageOps.colorize(grey(image), palette.dark, palette.light, palette.accent, midpoint=165)
    rays = Image.new("L", image.size)
    draw = ImageDraw.Draw(rays)
    reach, centre = sum(image.size), (image.width * rng.uniform(0.35, 0.65), image.height * 1.05)
    for start in range(180, 360, 10):
        box = (centre[0] - reach, centre[1] - reach, centre[0] + reach, centre[1] + reach)
        draw.pieslice(box, start, start + 5, fill=200)
    fan = ImageChops.multiply(rays, slope(image.size, 180)).point(lambda v: 128 + v * 0.4)
    lit = ImageChops.soft_light(plate, fan.convert("RGB"))
    return _framed(ImageEnhance.Contrast(vignetted(lit)).enhance(1.1), palette.glow)


def collage(image: Image.Image, palette: Palette, rng: random.Random) -> Image.Image:
    """Cut-out pieces in different prints, pasted a little askew."""
    prints = [
        Image.blend(image, toned(image, palette.turned(turn), middle=palette.turned(turn).accent), 0.8)
        for turn in (0, 80, 160, 240)
    ]
    board = halftone(image, palette, rng)
    for _ in range(9):
        across, down = rng.uniform(0.25, 0.45) * image.width, rng.uniform(0.3, 0.5) * image.height
        left, top = rng.uniform(-0.1, 0.8) * image.width, rng.uniform(-0.1, 0.75) * image.height
        cut = Image.new("L", image.size)
        ImageDraw.Draw(cut).rectangle((left, top, left + across, top + down), 255)
        board = _pasted(board, rng.choice([*prints, image]), cut.rotate(rng.uniform(-9, 9)))
    return board


def _pasted(board: Image.Image, piece: Image.Image, cut: Image.Image) -> Image.Image:
    size = unit(board)
    shadow = cut.filter(ImageFilter.GaussianBlur(2.5 * size)).point(lambda v: v * 0.5)
    rim = cut.filter(ImageFilter.GaussianBlur(size)).point(lambda v: v * 255)
    board = Image.composite(solid(board, (0, 0, 0)), board, shadow)
    return Image.composite(piece, Image.composite(solid(board, (250, 246, 236)), board, rim), cut)


def _framed(image: Image.Image, colour: Colour) -> Image.Image:
    size = unit(image)
    for place, width in ((5 * size, 1.6 * size), (8.5 * size, 0.7 * size)):
        inset = min(place, min(image.size) / 4)
        box = (inset, inset, image.width - inset, image.height - inset)
        ImageDraw.Draw(image).rectangle(box, outline=colour, width=max(1, round(width)))
    return image


def _spot(pitch: int) -> Image.Image:
    spot = Image.new("L", (pitch, pitch))
    wave = [math.cos(2 * math.pi * (i + 0.5) / pitch) for i in range(pitch)]
    spot.putdata([round(128 + 60 * (x + y)) for y in wave for x in wave])
    return spot


def _triangles(nodes: list[list[tuple[float, float]]]) -> list[tuple[tuple[float, float], ...]]:
    squares = [
        (above[i], above[i + 1], below[i], below[i + 1], (i + row) % 2)
        for row, (above, below) in enumerate(itertools.pairwise(nodes))
        for i in range(len(above) - 1)
    ]
    return [
        triangle
        for a, b, c, d, odd in squares
        for triangle in (((a, b, c), (b, c, d)) if odd else ((a, b, d), (a, c, d)))
    ]


def _colour_at(image: Image.Image, x: float, y: float) -> Colour:
    place = (min(max(int(x), 0), image.width - 1), min(max(int(y), 0), image.height - 1))
    return image.getpixel(place)  # type: ignore[return-value]


def _lit(colour: Colour, factor: float) -> Colour:
    return tuple(min(255, round(part * factor)) for part in colour)  # type: ignore[return-value]
