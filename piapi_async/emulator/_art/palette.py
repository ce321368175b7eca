"""Colours that go together, and the few drawing aids that all effects share."""

import colorsys
import random
from collections.abc import Callable

import attrs
from PIL import Image, ImageChops, ImageFilter, ImageOps

Colour = tuple[int, int, int]


@attrs.frozen
class Palette:
    """Five colours, from shadow to light, and two that shine."""

    dark: Colour
    middle: Colour
    light: Colour
    accent: Colour
    glow: Colour

    def turned(self, degrees: float) -> "Palette":
        """The same palette, its hues turned on the colour wheel."""
        return Palette(*(_turned(colour, degrees) for colour in attrs.astuple(self)))


Effect = Callable[[Image.Image, Palette, random.Random], Image.Image]
"""Takes an RGB picture, returns another of the same size; random only through its last argument."""

PALETTES = {
    "dusk": Palette((38, 20, 72), (150, 62, 120), (255, 226, 190), (240, 104, 92), (255, 190, 92)),
    "forest": Palette((14, 38, 36), (58, 110, 74), (240, 240, 206), (196, 160, 60), (170, 226, 120)),
    "ocean": Palette((6, 24, 58), (18, 104, 140), (216, 246, 240), (32, 178, 170), (120, 236, 255)),
    "rose": Palette((62, 18, 48), (190, 76, 110), (255, 236, 226), (236, 128, 138), (255, 176, 190)),
    "gold": Palette((18, 16, 26), (120, 86, 34), (252, 236, 188), (212, 166, 64), (255, 214, 110)),
    "neon": Palette((10, 6, 36), (72, 20, 130), (236, 240, 255), (255, 46, 150), (40, 232, 255)),
    "candy": Palette((66, 34, 108), (120, 130, 220), (255, 246, 224), (255, 130, 160), (130, 236, 210)),
    "autumn": Palette((52, 22, 18), (160, 74, 32), (252, 234, 200), (222, 120, 40), (250, 190, 80)),
    "arctic": Palette((22, 38, 66), (94, 138, 176), (246, 250, 255), (140, 190, 214), (200, 236, 255)),
    "ink": Palette((28, 30, 38), (110, 112, 118), (248, 244, 234), (190, 66, 50), (236, 210, 160)),
}


def grey(image: Image.Image) -> Image.Image:
    """Its brightness, stretched to the whole range."""
    return ImageOps.autocontrast(ImageOps.grayscale(image), cutoff=1)


def unit(image: Image.Image) -> float:
    """A length that looks the same at every size: 1/256 of the shorter side."""
    return max(0.25, min(image.size) / 256)


def toned(image: Image.Image, palette: Palette, *, middle: Colour | None = None) -> Image.Image:
    """Its brightness, written in the colours of a palette."""
    return ImageOps.colorize(grey(image), black=palette.dark, mid=middle or palette.middle, white=palette.light)


def solid(image: Image.Image, colour: Colour) -> Image.Image:
    """One colour, as large as the picture."""
    return Image.new("RGB", image.size, colour)


def curved(image: Image.Image, curve: Callable[[int], float]) -> Image.Image:
    """Each value of each band, 0 to 255, as a curve has it."""
    return image.point(curve)


def noise(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Grey noise; Pillow's own cannot be seeded."""
    return Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))


def slope(size: tuple[int, int], degrees: float) -> Image.Image:
    """A mask that rises from black to white in one direction; 0 is downwards."""
    ramp = Image.linear_gradient("L").rotate(degrees, Image.Resampling.BICUBIC)
    # The middle of a turned square is free of the corners that turning leaves empty.
    return ImageOps.autocontrast(ramp.crop((38, 38, 218, 218))).resize(size)


def grained(image: Image.Image, rng: random.Random, *, amount: float = 0.05) -> Image.Image:
    """With the grain of paper or film."""
    fine = noise(image.size, rng).filter(ImageFilter.GaussianBlur(0.6))
    return Image.blend(image, ImageChops.overlay(image, fine.convert("RGB")), amount * 4)


def vignetted(image: Image.Image, *, amount: float = 0.5) -> Image.Image:
    """Darker towards the corners."""
    edge = curved(Image.radial_gradient("L"), lambda v: max(0, v - 90) * amount).resize(image.size)
    return Image.composite(solid(image, (0, 0, 0)), image, edge)


def glowing(image: Image.Image, *, radius: float, amount: float = 0.6) -> Image.Image:
    """With light that spills over from its bright parts."""
    bright = curved(image, lambda v: max(0, v - 110) * 1.5 * amount)
    return ImageChops.screen(image, bright.filter(ImageFilter.GaussianBlur(radius)))


def smooth(image: Image.Image, *, size: int, pixels: int = 90_000) -> Image.Image:
    """Without its small parts, edges kept; done on a reduced copy, as rank filters are slow."""
    factor = min(1.0, (pixels / (image.width * image.height)) ** 0.5)
    small = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    return small.filter(ImageFilter.MedianFilter(size)).resize(image.size, Image.Resampling.BICUBIC)


def outlines(image: Image.Image, *, width: float, strength: float = 5.0) -> Image.Image:
    """White lines on black where the picture is darker than what surrounds it."""
    tone = ImageOps.grayscale(image)
    return ImageChops.subtract(tone.filter(ImageFilter.GaussianBlur(width)), tone, scale=1 / strength)


def _turned(colour: Colour, degrees: float) -> Colour:
    hue, light, strength = colorsys.rgb_to_hls(*(part / 255 for part in colour))
    red, green, blue = colorsys.hls_to_rgb((hue + degrees / 360) % 1, light, strength)
    return round(red * 255), round(green * 255), round(blue * 255)
