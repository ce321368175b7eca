"""A contact sheet: pictures in a grid, each with its caption."""

import io
from collections.abc import Sequence

import attrs
from PIL import Image, ImageDraw, ImageFont, ImageOps

COLUMNS = 4
WIDTH = 440
"""Pixels of a tile."""

MARGIN = 72
GAP = 36
CAPTION = 104
HEADER = 132

PAPER = (250, 248, 244)
INK = (34, 32, 30)
FAINT = (128, 122, 114)
FRAME = (222, 216, 206)


@attrs.frozen(kw_only=True)
class Tile:
    """One picture and what is written below it.

    Attributes:
        picture: The file's content.

        title: One line in ink; shortened when too long.

        notes: Fainter lines below it, two at most.
    """

    picture: bytes = attrs.field(repr=False)
    title: str
    notes: Sequence[str]


def compose(tiles: Sequence[Tile], *, title: str = "piapi_async", subtitle: str = "") -> Image.Image:
    """The sheet.

    Args:
        tiles: What to show, at least one; the shape of the first is that of all places.

        title: The heading.

        subtitle: A fainter line beside it.
    """
    pictures = [Image.open(io.BytesIO(tile.picture)).convert("RGB") for tile in tiles]
    place = WIDTH, _height(pictures[0])
    rows = -(-len(tiles) // COLUMNS)
    size = (
        2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP,
        2 * MARGIN + HEADER + rows * (place[1] + CAPTION) + (rows - 1) * GAP - (CAPTION - 84),
    )
    sheet = Image.new("RGB", size, PAPER)
    _head(sheet, title=title, subtitle=subtitle)
    for index, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        row, column = divmod(index, COLUMNS)
        corner = MARGIN + column * (WIDTH + GAP), MARGIN + HEADER + row * (place[1] + CAPTION + GAP)
        _hang(sheet, picture, corner=corner, place=place)
        _caption(sheet, tile, left=corner[0], top=corner[1] + place[1] + 14)
    return sheet


def _height(picture: Image.Image) -> int:
    shape = picture.height / picture.width
    return round(WIDTH * min(1.4, max(0.5, shape)))


def _head(sheet: Image.Image, *, title: str, subtitle: str) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN + 34), title, font=_font(52), fill=INK, anchor="ls")
    draw.text((MARGIN + 2, MARGIN + 78), subtitle, font=_font(22), fill=FAINT, anchor="ls")


def _hang(sheet: Image.Image, picture: Image.Image, *, corner: tuple[int, int], place: tuple[int, int]) -> None:
    shown = ImageOps.contain(picture, place, Image.Resampling.LANCZOS)
    left = corner[0] + (place[0] - shown.width) // 2
    top = corner[1] + (place[1] - shown.height) // 2
    sheet.paste(shown, (left, top))
    ImageDraw.Draw(sheet).rectangle((left - 1, top - 1, left + shown.width, top + shown.height), outline=FRAME)


def _caption(sheet: Image.Image, tile: Tile, *, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((left, top), fitted(tile.title, _font(22)), font=_font(22), fill=INK)
    for number, note in enumerate(tile.notes):
        draw.text((left, top + 30 + 24 * number), fitted(note, _font(17)), font=_font(17), fill=FAINT)


def fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, cut at its end until it is not wider than a tile."""
    if font.getlength(text) <= WIDTH:
        return text
    while font.getlength(text + "...") > WIDTH:
        text = text[:-1].rstrip()
    return text + "..."


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
