"""Which effect and which colours a request gets: by LoRA, by the words of the prompt, else by chance of its seed."""

import random
import re

import attrs

from piapi_async.emulator import _strokes, _tiles, _tones
from piapi_async.emulator._palette import PALETTES, Effect, Palette

_WORDS: tuple[tuple[str, Effect, str | None], ...] = (
    ("watercolor watercolour aquarelle wash", _strokes.watercolour, None),
    ("oil painting painted painter impressionist canvas brush", _strokes.oil, None),
    ("pencil sketch drawing graphite charcoal", _strokes.pencil, "ink"),
    ("anime manga cartoon animation disney pixar", _strokes.ink, None),
    ("comic album graphic illustration", _strokes.comic, None),
    ("engraving etching linocut banknote woodcut", _strokes.engraving, "ink"),
    ("poster halftone pop print retro", _tiles.halftone, None),
    ("mosaic glass stained tiles pixel isometric", _tiles.mosaic, None),
    ("geometric polygon poly crystal origami cubist", _tiles.low_poly, None),
    ("paper cut layered papercut", _tiles.paper_cut, None),
    ("deco gatsby luxury elegant gold golden", _tiles.deco, "gold"),
    ("collage scrapbook magazine", _tiles.collage, "candy"),
    ("neon cyberpunk cyber city hacker robot", _tones.neon, "neon"),
    ("space galaxy stars starry cosmic night universe astronaut", _tones.starlight, "neon"),
    ("sea ocean underwater water reef diver", _tones.deep_sea, "ocean"),
    ("sunset sunrise warm summer desert hour", _tones.golden_hour, "autumn"),
    ("dream dreamy fairy magic pastel soft cute", _tones.dream, "candy"),
    ("photo photograph film movie cinematic realistic portrait", _tones.cinematic, None),
    ("duotone risograph minimal abstract", _tones.duotone, None),
)
_COLOURS = {
    "dusk": "dusk evening purple violet twilight",
    "forest": "forest green jungle garden spring moss",
    "ocean": "ocean blue sea water lake teal",
    "rose": "rose pink red love cherry flower",
    "gold": "gold golden yellow brass",
    "neon": "neon electric magenta cyberpunk",
    "candy": "candy pastel rainbow colorful colourful",
    "autumn": "autumn orange sunset desert warm fire",
    "arctic": "arctic winter snow ice cold white",
    "ink": "ink black grey gray noir monochrome",
}
_LORAS: dict[str, tuple[Effect, str | None]] = {
    "anime": (_strokes.ink, None),
    "art": (_strokes.oil, None),
    "disney": (_strokes.ink, "candy"),
    "furry": (_strokes.comic, "candy"),
    "mjv6": (_tones.cinematic, "ocean"),
    "realism": (_tones.cinematic, None),
    "scenery": (_tones.golden_hour, "autumn"),
    "collage-artstyle": (_tiles.collage, None),
    "creepcute": (_strokes.comic, "dusk"),
    "cyberpunk-anime-style": (_tones.neon, "neon"),
    "deco-pulse": (_tiles.deco, "gold"),
    "deep-sea-particle-enhencer": (_tones.deep_sea, "ocean"),
    "faetastic-details": (_tones.dream, "forest"),
    "fractal-geometry": (_tiles.low_poly, "candy"),
    "galactixy-illustrations-style": (_tones.starlight, "neon"),
    "geometric-woman": (_tiles.low_poly, "rose"),
    "graphic-portrait": (_tiles.halftone, None),
    "mat-miller-art": (_strokes.engraving, "dusk"),
    "moebius-style": (_strokes.comic, "arctic"),
    "ob3d-isometric-3d-room": (_tiles.mosaic, "candy"),
    "paper-quilling-and-layering-style": (_tiles.paper_cut, None),
    "remes-abstract-poster-style": (_tiles.halftone, "autumn"),
    "mystic-realism": (_tones.dream, "dusk"),
}
_EFFECTS = tuple(effect for _, effect, _ in _WORDS)
_TURN_PER_PICTURE = 40.0


@attrs.frozen
class Style:
    """An effect and its colours."""

    effect: Effect
    palette: Palette


def style_for(prompt: str, *, lora: str | None, item: int, rng: random.Random) -> Style:
    """The style of one picture of a request; *item* tells the pictures of a batch apart by their hues."""
    words = re.findall(r"[a-z]+", prompt.lower())
    effect, own_colours = _effect(words, lora, rng)
    chosen = rng.choice(sorted(PALETTES))
    colours = own_colours or _named_colours(words) or chosen
    return Style(effect, PALETTES[colours].turned(item * _TURN_PER_PICTURE))


def _effect(words: list[str], lora: str | None, rng: random.Random) -> tuple[Effect, str | None]:
    if lora is not None:
        return _LORAS.get(lora) or (random.Random(lora.encode(errors="replace")).choice(_EFFECTS), None)  # noqa: S311
    for keywords, effect, colours in _WORDS:
        if not set(words).isdisjoint(keywords.split()):
            return effect, colours
    return rng.choice(_EFFECTS), None


def _named_colours(words: list[str]) -> str | None:
    for name, keywords in _COLOURS.items():
        if not set(words).isdisjoint(keywords.split()):
            return name
    return None
