"""Curves of polls against lateness as SVG, without a plotting library."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import attrs

FONT = "font-family='Helvetica, Arial, sans-serif'"
INK, GREY, RULE = "#1f2937", "#6b7280", "#e5e7eb"


@attrs.frozen
class Curve:
    """A policy: points of (polls, seconds of lateness); one alone is a dot with its name beside it."""

    name: str
    points: list[tuple[float, float]]
    colour: str


@attrs.frozen(kw_only=True)
class Frame:
    """Where a panel is on the page, and what it shows; both axes are logarithmic."""

    left: float
    top: float
    width: float
    height: float
    across: tuple[float, float]
    up: tuple[float, float]

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """A point on the page."""
        x, y = point
        return (
            self.left + self.width * part(x, self.across),
            self.top + self.height * (1 - part(y, self.up)),
        )

    def shows(self, point: tuple[float, float]) -> bool:
        """Whether a point is within."""
        return 0 <= part(point[0], self.across) <= 1 and 0 <= part(point[1], self.up) <= 1


def part(value: float, bounds: tuple[float, float]) -> float:
    """How far along a logarithmic axis a value is."""
    low, high = bounds
    return math.log(value / low) / math.log(high / low)


def ticks(bounds: tuple[float, float]) -> list[float]:
    """1, 2 and 5 times powers of ten."""
    low, high = bounds
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def bounds(curves: Sequence[Curve], *, axis: int) -> tuple[float, float]:
    """What holds all points, with a margin."""
    values = [point[axis] for curve in curves for point in curve.points]
    return min(values) / 1.15, max(values) * 1.15


def text(
    x: float, y: float, words: str, *, size: float = 12, colour: str = INK, anchor: str = "start", more: str = ""
) -> str:
    """Words on the page."""
    style = f"{FONT} font-size='{size}' fill='{colour}' text-anchor='{anchor}' {more}"
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(words)}</text>"


def axes(frame: Frame, *, size: float, labels: bool) -> Iterator[str]:
    """Grid lines, numbers and what they count."""
    bottom, right = frame.top + frame.height, frame.left + frame.width
    for value in ticks(frame.across):
        x, _ = frame.at((value, frame.up[0]))
        yield f"<path d='M{x:.1f} {frame.top}V{bottom}' stroke='{RULE}'/>"
        yield text(x, bottom + size + 5, f"{value:g}", size=size, colour=GREY, anchor="middle")
    for value in ticks(frame.up):
        _, y = frame.at((frame.across[0], value))
        yield f"<path d='M{frame.left} {y:.1f}H{right}' stroke='{RULE}'/>"
        yield text(frame.left - 6, y + size / 3, f"{value:g}", size=size, colour=GREY, anchor="end")
    yield f"<path d='M{frame.left} {frame.top}V{bottom}H{right}' stroke='{GREY}' fill='none'/>"
    if labels:
        middle, side = frame.top + frame.height / 2, frame.left - 46
        yield text(frame.left + frame.width / 2, bottom + 40, "polls per task", size=13, anchor="middle")
        turn = f"transform='rotate(-90 {side:.1f} {middle:.1f})'"
        yield text(
            side, middle, "seconds from a task's end to the poll that shows it", size=13, anchor="middle", more=turn
        )


def line(frame: Frame, curve: Curve, *, width: float) -> Iterator[str]:
    """A policy with a knob to turn."""
    places = [frame.at(point) for point in curve.points if frame.shows(point)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    stroke = f"stroke='{curve.colour}' stroke-width='{width}' stroke-linejoin='round'"
    yield f"<polyline points='{path}' fill='none' {stroke}/>"
    for x, y in places:
        yield f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{width + 0.6:.1f}' fill='{curve.colour}'/>"


def dot(frame: Frame, curve: Curve, *, radius: float) -> str:
    """A policy without one."""
    x, y = frame.at(curve.points[0])
    return (
        f"<path d='M{x - radius:.1f} {y:.1f}L{x:.1f} {y - radius:.1f}L{x + radius:.1f} {y:.1f}"
        f"L{x:.1f} {y + radius:.1f}Z' fill='{curve.colour}'/>"
    )


def legend(curves: Sequence[Curve], *, left: float, top: float, size: float = 12) -> Iterator[str]:
    """Which line is which."""
    for number, curve in enumerate(curves):
        y = top + number * (size + 8)
        yield f"<path d='M{left} {y}h24' stroke='{curve.colour}' stroke-width='2.5'/>"
        yield text(left + 32, y + size / 3, curve.name, size=size)


def page(width: float, height: float, parts: Iterator[str] | list[str]) -> str:
    """The whole picture."""
    size = f"width='{width:g}' height='{height:g}' viewBox='0 0 {width:g} {height:g}'"
    ground = "<rect width='100%' height='100%' fill='#ffffff'/>"
    return "\n".join([f"<svg xmlns='http://www.w3.org/2000/svg' {size}>", ground, *parts, "</svg>\n"])


def one(curves: Sequence[Curve], *, title: str, path: Path) -> None:
    """A picture of one panel, with names."""
    lines, dots = [c for c in curves if len(c.points) > 1], [c for c in curves if len(c.points) == 1]
    frame = Frame(left=80, top=60, width=760, height=430, across=bounds(curves, axis=0), up=bounds(curves, axis=1))
    parts = [text(frame.left, 32, title, size=17, more="font-weight='600'"), *axes(frame, size=12, labels=True)]
    for curve in reversed(lines):
        parts += line(frame, curve, width=2.4)
    for curve in dots:
        x, y = frame.at(curve.points[0])
        ends = x > frame.left + 0.85 * frame.width
        parts += [
            dot(frame, curve, radius=6),
            text(
                x + (-10 if ends else 10),
                y - 8,
                curve.name,
                colour=curve.colour,
                anchor="end" if ends else "start",
                more="paint-order='stroke' stroke='#ffffff' stroke-width='4'",
            ),
        ]
    parts += legend(lines, left=frame.left + frame.width - 190, top=frame.top + 18)
    path.write_text(page(880, 550, parts), encoding="utf-8")


def several(panels: Mapping[str, Sequence[Curve]], *, path: Path) -> None:
    """A picture of small panels, without names but for the lines."""
    parts: list[str] = []
    columns, width, height = 4, 285.0, 250.0
    for number, (title, curves) in enumerate(panels.items()):
        row, column = divmod(number, columns)
        frame = Frame(
            left=50 + column * width,
            top=50 + row * height,
            width=width - 62,
            height=height - 80,
            across=bounds(curves, axis=0),
            up=bounds(curves, axis=1),
        )
        parts += [
            text(frame.left, frame.top - 10, title, size=13, more="font-weight='600'"),
            *axes(frame, size=10, labels=False),
        ]
        for curve in reversed(curves):
            parts += line(frame, curve, width=1.8) if len(curve.points) > 1 else [dot(frame, curve, radius=3.5)]
    rows = math.ceil(len(panels) / columns)
    lines = [curve for curve in next(iter(panels.values())) if len(curve.points) > 1]
    for number, curve in enumerate(lines):
        parts += legend([curve], left=50 + number * 190, top=60 + rows * height)
    left, top = 50 + len(lines) * 190, 60 + rows * height
    parts += [
        dot(
            Frame(left=left, top=top, width=1, height=0, across=(1, 2), up=(1, 2)),
            Curve("", [(1, 1)], "#b91c1c"),
            radius=4,
        ),
        text(left + 12, top + 4, "other SDKs' defaults"),
        text(
            50,
            top + 34,
            "Across: polls per task. Up: seconds from a task's end to the poll that shows it.",
            colour=GREY,
        ),
    ]
    path.write_text(page(50 + columns * width, top + 50, parts), encoding="utf-8")
