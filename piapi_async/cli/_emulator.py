"""`piapi-async emulator`: every field of the emulator's `Options` as an option of the command line."""

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import attrs
import click

from piapi_async.cli import _types as types
from piapi_async.cli._interrupt import Interrupted, Setting, run
from piapi_async.cli._runtime import PICTURES_MISSING, emulator, has_pillow, serve

if TYPE_CHECKING:
    from piapi_async.emulator import Emulator
    from piapi_async.emulator.durations import Duration

HEADINGS: Mapping[str, str] = {
    "seed": "Server",
    "plan": "Account",
    "durations": "Time and trouble",
    "status_words": "Answers",
    "unknown_fields": "Requests and pictures",
    "result_life": "Files",
    "history_lag": "History",
    "webhooks": "Webhooks",
    "keep_tasks": "Memory",
}
"""What stands above a field and those behind it in the help; `Options` has them in that order."""


def duration(value: str) -> "Duration":
    """Seconds, or LOW:HIGH for anything between the two."""
    from piapi_async.emulator.durations import Constant, Uniform  # noqa: PLC0415 - brings the web server

    low, colon, high = value.partition(":")
    try:
        return Uniform(types.seconds(low), types.seconds(high)) if colon else Constant(types.seconds(low))
    except ValueError as error:  # of which click 8.2 shows nothing
        raise click.BadParameter(str(error)) from None


_DURATION = {"type": duration, "metavar": "SECONDS|LOW:HIGH"}

_SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "port": {"type": click.IntRange(0, 65535)},
    "durations": {**_DURATION, "help": "Seconds of work, for all models.", "show_default": "by the model"},
    "queue_delay": {**_DURATION, "show_default": "about 1"},
}
"""What a field does not tell, or tells in Python."""

_FORMER = {"durations": "--seconds"}
"""Names of before there was an option for each field."""

_NUMBERS: Mapping[object, Mapping[str, Any]] = {
    int: {"type": int},
    float: {"type": types.number, "metavar": "NUMBER"},
    str: {"type": str, "metavar": "TEXT"},
}


class _Command(click.Command):
    """A command whose options are made when they are first needed, as the web server comes with `Options`."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options, and the one for help."""
        self.params: list[click.Parameter] = self.params or list(_options())
        return super().get_params(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them under their headings."""
        for heading, lines in self._sections(ctx).items():
            with formatter.section(heading):
                formatter.write_dl(lines)

    def _sections(self, ctx: click.Context) -> Mapping[str, list[tuple[str, str]]]:
        sections: dict[str, list[tuple[str, str]]] = {}
        heading = ""
        for param in self.get_params(ctx):
            heading = HEADINGS.get(str(param.name), heading if param in self.params else "Help")
            sections.setdefault(heading, []).extend(filter(None, [param.get_help_record(ctx)]))
        return sections


@click.command("emulator", cls=_Command)
@click.make_pass_decorator(Setting, ensure=True)
def run_emulator(setting: Setting, /, **options: Any) -> None:
    """Run a local server that behaves like PiAPI, until Ctrl-C.

    It prints the two environment variables that send every other command, and every Session, to it, and where its page
    is. Ctrl-C is its normal end: the exit code is 0.

    Each option is a field of piapi_async.emulator.Options. [D] marks what PiAPI's documentation says, [T] what third
    parties report; where both are silent, the first choice is a guess. The page changes most of them while it runs.
    """
    server = emulator(**{name: value for name, value in options.items() if value is not None})
    if not has_pillow():
        click.echo(f"warning: {PICTURES_MISSING}", err=True)
    try:
        run(serve(server, ready=_introduce), setting=setting, say=click.echo)
    except Interrupted:
        click.echo("the emulator is gone, and its tasks with it", err=True)


def _introduce(server: "Emulator") -> None:
    for name, value in (("PIAPI_BASE_URL", server.url), ("PIAPI_API_KEY", server.api_key)):
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(f"the emulator is running; watch it at {server.url} , Ctrl-C ends it", err=True)


def _options() -> Iterator[click.Option]:
    from piapi_async.emulator.options import Options  # noqa: PLC0415 - brings the web server

    hints = get_type_hints(Options)
    for field in attrs.fields(Options):
        kind = _SPECIAL.get(field.name) or _kind(hints[field.name])
        yield click.Option(_spellings(field.name), callback=_checked, **{**_plain(field), **kind})


def _plain(field: "attrs.Attribute[Any]") -> Mapping[str, Any]:
    default = field.default if isinstance(field.default, int | float | str) else None
    # None is how Python says that something was not given.
    return {"default": default, "show_default": True, "help": field.metadata["about"].replace("None:", "by default")}


def _kind(hint: Any) -> Mapping[str, Any]:
    """What fits a field's type; of a union's types the first, which is the one that a word can say."""
    if get_origin(hint) is Literal:
        return {"type": click.Choice(get_args(hint))}
    return _NUMBERS[hint] if hint in _NUMBERS else _kind(get_args(hint)[0])


def _spellings(name: str) -> list[str]:
    return ["--" + name.replace("_", "-"), *filter(None, [_FORMER.get(name)])]


def _checked(_ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """A value that `Options` accepts."""
    from piapi_async.emulator.options import Options  # noqa: PLC0415 - brings the web server

    if value is not None:
        try:
            Options(**{str(param.name): value})
        except ValueError as error:
            raise click.BadParameter(error.args[0].removeprefix(f"'{param.name}' ")) from None
    return value
