"""Which effect and which colours a request gets: by LoRA, by the words of the prompt, else by chance of its seed."""

import random
import re

import attrs

from piapi_async.emulator._art import strokes, tiles, tones
from piapi_async.emulator._art.palette import PALETTES, Effect, Palette

_WORDS: tuple[tuple[str, Effect, str | None], ...] = (
    ("watercolor watercolour aquarelle wash", strokes.watercolour, None),
    ("oil painting painted painter impressionist canvas brush", strokes.oil, None),
    ("pencil sketch drawing graphite charcoal", strokes.pencil, "ink"),
    ("anime manga cartoon animation disney pixar", strokes.ink, None),
    ("comic album graphic illustration", strokes.comic, None),
    ("engraving etching linocut banknote woodcut", strokes.engraving, "ink"),
    ("poster halftone pop print retro", tiles.halftone, None),
    ("mosaic glass stained tiles pixel isometric", tiles.mosaic, None),
    ("geometric polygon poly crystal origami cubist", tiles.low_poly, None),
    ("paper cut layered papercut", tiles.paper_cut, None),
    ("deco gatsby luxury elegant gold golden", tiles.deco, "gold"),
    ("collage scrapbook magazine", tiles.collage, "candy"),
    ("neon cyberpunk cyber city hacker robot", tones.neon, "neon"),
    ("space galaxy stars starry cosmic night universe astronaut", tones.starlight, "neon"),
    ("sea ocean underwater water reef diver", tones.deep_sea, "ocean"),
    ("sunset sunrise warm summer desert hour", tones.golden_hour, "autumn"),
    ("dream dreamy fairy magic pastel soft cute", tones.dream, "candy"),
    ("photo photograph film movie cinematic realistic portrait", tones.cinematic, None),
    ("duotone risograph minimal abstract", tones.duotone, None),
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
    "anime": (strokes.ink, None),
    "art": (strokes.oil, None),
    "disney": (strokes.ink, "candy"),
    "furry": (strokes.comic, "candy"),
    "mjv6": (tones.cinematic, "ocean"),
    "realism": (tones.cinematic, None),
    "scenery": (tones.golden_hour, "autumn"),
    "collage-artstyle": (tiles.collage, None),
    "creepcute": (strokes.comic, "dusk"),
    "cyberpunk-anime-style": (tones.neon, "neon"),
    "deco-pulse": (tiles.deco, "gold"),
    "deep-sea-particle-enhencer": (tones.deep_sea, "ocean"),
    "faetastic-details": (tones.dream, "forest"),
    "fractal-geometry": (tiles.low_poly, "candy"),
    "galactixy-illustrations-style": (tones.starlight, "neon"),
    "geometric-woman": (tiles.low_poly, "rose"),
    "graphic-portrait": (tiles.halftone, None),
    "mat-miller-art": (strokes.engraving, "dusk"),
    "moebius-style": (strokes.comic, "arctic"),
    "ob3d-isometric-3d-room": (tiles.mosaic, "candy"),
    "paper-quilling-and-layering-style": (tiles.paper_cut, None),
    "remes-abstract-poster-style": (tiles.halftone, "autumn"),
    "mystic-realism": (tones.dream, "dusk"),
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
