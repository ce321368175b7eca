"""Words from anywhere, made fit to be shown to people."""

from pathlib import Path
from traceback import TracebackException
from typing import TypeVar, cast

T = TypeVar("T")

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


class Secret(str):
    """A text that `repr` does not show, so that no traceback with local variables can ship it.

    Error reporters, debuggers and test runners take the `repr` of what stands in a frame. It is a `str` in everything
    else: `str()` and formatting give the text itself.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


def masked(value: T) -> T:
    """A `Secret` in place of a `str`; anything else is given back, to be refused by whoever checks it."""
    return cast("T", Secret(value)) if isinstance(value, str) else value


def one_line(text: str) -> str:
    """A text from anywhere, fit for a terminal: one line, and no control characters that act on it."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def clipped(text: str, *, most: int) -> str:
    """The same, with no more than so many characters."""
    line = one_line(text)
    return line if len(line) <= most else line[: most - 1] + ELLIPSIS


def unforeseen(error: BaseException) -> str:
    """An exception that nobody foresaw, and where it was raised, in one line: what a report of a bug has to say."""
    told = TracebackException.from_exception(error)  # an exception whose `str` raises has a text there too
    *_, words = told.format_exception_only()
    frames = told.stack
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return clipped(words, most=300) + where


def counted(number: int, word: str) -> str:
    """The number with its word: `1 task`, `2,000 tasks`."""
    return f"{number:,} {word}" + "s" * (number != 1)
