"""Words from anywhere, made fit to be shown to people."""

from pathlib import Path
from traceback import TracebackException

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


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
