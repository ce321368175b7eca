"""How the command line speaks when something is wrong: one line on stderr and an exit code, never a traceback."""

import logging
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from piapi_async._text import one_line, unforeseen
from piapi_async.cli._interrupt import Interrupted
from piapi_async.errors import ConfigurationError, Hint, PiAPIError

FAILED = 1
"""Exit code: the operation failed."""

MISUSED = 2
"""Exit code: it could not begin, because of how it was asked for."""

INTERRUPTED = 130
"""Exit code: Ctrl-C, as shells count it."""

_SILENT = logging.NullHandler()
_SAID_OTHERWISE = (
    (re.compile(r"session\.task\(['\"]([^'\"]*)['\"]\)\.wait\(\)"), r"'piapi-async task wait \1'"),
    (re.compile(r"pass api_key= or set PIAPI_API_KEY"), "set PIAPI_API_KEY"),
    (re.compile(r"on_doubt='(\w+)'"), r"--on-doubt \1"),
    (re.compile(r"^name must be a template"), "--name must be a template"),
    (re.compile(r"\bmax_spend_usd="), "--max-spend "),
    (re.compile(r"\bmax_spend_usd\b"), "--max-spend"),
    (re.compile(r"forget\('([^']*)'\) that one"), r"'piapi-async ledger forget FILE \1' that one"),
    (re.compile(r"\bSession\(max_pixels=\.\.\.\)|\bmax_pixels\b"), "--max-pixels"),
    (re.compile(r" \(max_image_bytes\)"), ""),
    (re.compile(r"report it to the maintainers with its traceback, error\.__cause__"), "report this line to them"),
)
"""What errors advise in Python, and what that is on the command line."""

_ADVICE = {
    Hint.CHECK_UPLOAD_PLAN: "uploads need a valid API key and the Creator plan or higher: leave --local-images upload"
    " out to send pictures without one",
    Hint.CHECK_BASE_URL: "PIAPI_BASE_URL may be wrong: set it to the address of the API itself, without /api/v1",
}
"""What to do about an error, where the command line says it otherwise than `str(error)`."""


class Program(click.Group):
    """A click group that tells every error in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and leave with the exit code."""
        sys.exit(self.run(*args, **extra))

    def run(self, args: Sequence[str] | None = None, **extra: Any) -> int:
        """Run, and return the exit code.

        Args:
            args: The words of the command line after the program's name; by default those of this process.

            **extra: What `click.Group.main` takes.
        """
        extra["prog_name"] = "piapi-async"
        with _calm_warnings():
            return _exit_code(lambda: super(Program, self).main(args, **{**extra, "standalone_mode": False}))


def _exit_code(act: Callable[[], Any]) -> int:
    # Without a handler of its own, what the logger says would come twice: from logging, and from the events.
    logging.getLogger("piapi_async").addHandler(_SILENT)
    try:
        return int(act() or 0)
    except Interrupted as interrupted:
        return _farewell(interrupted)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted", code=INTERRUPTED)
    except click.ClickException as error:
        return _complain(f"error: {_usage(error)}", code=error.exit_code)
    except (ConfigurationError, ValueError, TypeError) as error:
        return _complain(f"error: {spoken(error)}", code=MISUSED)
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody at a terminal; the line says where it was
        is_bug = not isinstance(error, PiAPIError | OSError)
        bug = f"unforeseen {unforeseen(error)}, a bug in piapi_async; please report this line to the maintainers"
        return _complain(f"error: {bug if is_bug else spoken(error)}", code=FAILED)


def _complain(line: str, *, code: int) -> int:
    click.echo(line, err=True)
    return code


def _farewell(interrupted: Interrupted) -> int:
    number = interrupted.number
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    for line in (what, *interrupted.lines):
        click.echo(line, err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    interrupted.leave(128 + number)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    help_at = "" if context is None else f"; see '{context.command_path} --help'"
    return one_line(error.format_message()).rstrip(".") + help_at


def spoken(error: Exception) -> str:
    """An error and its notes in one line, what to do next in the words of the command line."""
    words = "; ".join([_words(error), *getattr(error, "__notes__", ())])
    for python, command in _SAID_OTHERWISE:
        words = python.sub(command, words)
    return one_line(words)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename2 or error.filename}: {error.strerror}"  # of a rename, where it was to go
    if isinstance(error, PiAPIError) and error.hint is not None and error.hint in _ADVICE:
        return f"{error.args[0]}; {_ADVICE[error.hint]}"
    return str(error) or type(error).__name__


@contextmanager
def _calm_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, *_where: Any, **_more: Any) -> None:
    click.echo(f"warning: {one_line(str(message))}", err=True)
