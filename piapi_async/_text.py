"""Words from anywhere, made fit to be shown to people."""

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def one_line(text: str) -> str:
    """A text from anywhere, fit for a terminal: one line, and no control characters that act on it."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def clipped(text: str, *, most: int) -> str:
    """The same, with no more than so many characters."""
    line = one_line(text)
    return line if len(line) <= most else line[: most - 1] + ELLIPSIS


def counted(number: int, word: str) -> str:
    """The number with its word: `1 task`, `2,000 tasks`."""
    return f"{number:,} {word}" + "s" * (number != 1)
