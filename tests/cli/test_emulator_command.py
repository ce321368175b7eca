"""`piapi-async emulator`: each switch of the emulator is an option; in this process and in virtual time."""

import asyncio
import signal
import socket
import sys
from typing import Any, Literal, get_args, get_origin, get_type_hints

import aiohttp
import attrs
import click
import pytest
from click.testing import CliRunner, Result

from piapi_async.cli._emulator import HEADINGS, run_emulator
from piapi_async.cli._errors import Program
from piapi_async.cli._interrupt import Setting
from piapi_async.emulator import Emulator, Options
from piapi_async.testing import VirtualTimeLoop

pytestmark = pytest.mark.usefixtures("heed_ctrl_c")

FIELDS = attrs.fields(Options)
HINTS = get_type_hints(Options)


def command(*args: str, obj: Setting | None = None) -> Result:
    """Run `piapi-async emulator` to its end."""
    names = {"help_option_names": ["-h", "--help"]}
    program = Program("piapi-async", commands={"emulator": run_emulator}, context_settings=names)
    return CliRunner().invoke(program, ["emulator", *args], obj=obj, max_content_width=100, terminal_width=100)


class Visit:
    """Runs the command, asks the emulator for its options while it runs, and presses Ctrl-C."""

    def __init__(self, *args: str) -> None:
        self.options: dict[str, Any] = {}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.result = command("--port", str(self.port), *args, obj=Setting(runner=self._runner))

    def _runner(self) -> asyncio.Runner:
        runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        loop = runner.get_loop()
        loop.call_later(1.0, lambda: asyncio.ensure_future(self._poll(), loop=loop))
        return runner

    async def _poll(self) -> None:
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/_emulator/state") as answer:
            self.options = (await answer.json())["options"]
        signal.raise_signal(signal.SIGINT)


def another(field: "attrs.Attribute[Any]") -> Any:
    """A value of a field that is not its default."""
    words = [hint for hint in (HINTS[field.name], *get_args(HINTS[field.name])) if get_origin(hint) is Literal]
    if words:
        return get_args(words[0])[-1]
    values: dict[str, Any] = {"host": "localhost", "api_key": "a-key", "time_digits": 3, "concurrency": 7}
    values |= {"durations": "5", "queue_delay": "0.5:2"}
    return values.get(field.name, 0.25 if HINTS[field.name] is float else 12345)


def line(result: Result) -> str:
    """What stands on stderr, which must be one line."""
    (only,) = result.stderr.splitlines()
    return only


class TestOptions:
    """One option for each field of `Options`."""

    def test_every_field_arrives(self) -> None:
        """Each field can be set, by its name with dashes, and the emulator that runs has the values."""
        given = {field.name: another(field) for field in FIELDS if field.name != "port"}
        words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        visit = Visit(*words)
        shown = {"durations": "Constant(seconds=5.0)", "queue_delay": "Uniform(low=0.5, high=2.0)", "port": visit.port}
        assert visit.result.exit_code == 0
        assert visit.options == given | shown

    def test_without_options(self) -> None:
        """Left alone, all is as in `Emulator()`."""
        visit = Visit()
        usual = attrs.evolve(Emulator().options, port=visit.port)
        same = {name for name in visit.options if visit.options[name] == getattr(usual, name)}
        assert attrs.fields_dict(Options).keys() - same == {"durations", "queue_delay"}
        assert visit.options["queue_delay"] == repr(usual.queue_delay)

    def test_seconds(self) -> None:
        """The former name of --durations goes on to work."""
        assert Visit("--seconds", "2").options["durations"] == "Constant(seconds=2.0)"

    @pytest.mark.parametrize(
        ("args", "sentence"),
        [
            ("--chaos 2", "'--chaos': must be <= 1: 2.0"),
            ("--chaos nan", "'--chaos': 'nan' is not a number"),
            ("--plan gold", "'--plan': 'gold' is not one of 'pro', 'creator', 'free'"),
            ("--status-words upper", "'--status-words': 'upper' is not one of *"),
            ("--concurrency 0", "'--concurrency': must be >= 1: 0"),
            ("--polls 1.5", "'--polls': '1.5' is not a valid integer"),
            ("--port 65536", "'--port': 65536 is not in the range 0<=x<=65535"),
            ("--port -1", "'--port': -1 is not in the range 0<=x<=65535"),
            ("--durations soon", "'--durations' / '--seconds': 'soon' is not a number"),
            ("--queue-delay -1", "'--queue-delay': '-1' is less than 0 seconds"),
            ("--queue-delay 5:1", "'--queue-delay': high is 1.0, less than low, which is 5.0"),
            ("--queue-delay 5:", "'--queue-delay': '' is not a number"),
        ],
    )
    def test_mistakes(self, args: str, sentence: str) -> None:
        """A value that `Options` or the type refuses is one line and exit code 2, before anything starts."""
        result = command(*args.split())
        start, _, end = sentence.partition("*")
        assert result.exit_code == 2
        assert line(result).startswith(f"error: Invalid value for {start}")
        assert line(result).endswith(f"{end}; see 'piapi-async emulator --help'")


class TestHelp:
    """`piapi-async emulator --help`."""

    def test_headings(self) -> None:
        """The options stand under headings, in the order of the fields, each behind the first field that it names."""
        text = command("--help").output
        marks = [
            f"\n{HEADINGS[field.name]}:\n  --{field.name.replace('_', '-')}"
            for field in FIELDS
            if field.name in HEADINGS
        ]
        places = [text.index(mark) for mark in [*marks, "\nHelp:\n  -h, --help"]]
        assert len(marks) == len(HEADINGS)
        assert places == sorted(places)

    def test_every_field_is_explained(self) -> None:
        """Each option has its explanation, its choices, its default, and nothing that only Python has."""
        text = " ".join(command("--help").output.split())
        assert all(f"--{field.name.replace('_', '-')}" in text for field in FIELDS)
        assert "--over-limit [pending|staged|429] A task beyond the concurrency waits as pending;" in text
        assert "by default what the plan has" in text
        assert "[default: (by the model)]" in text
        assert "None:" not in text

    def test_is_made_when_needed(self) -> None:
        """The options are made once, and are all there for shells that complete words."""
        ctx = click.Context(run_emulator)
        assert run_emulator.get_params(ctx) == run_emulator.get_params(ctx)
        assert len(run_emulator.params) == len(FIELDS)


class TestRunning:
    """What it prints."""

    def test_introduces_itself(self) -> None:
        """Stdout has the two variables alone, fit for `eval`; stderr says where to watch and how to end it."""
        visit = Visit("--api-key", "k")
        assert visit.result.exit_code == 0
        assert visit.result.stdout == f"export PIAPI_BASE_URL={visit.url}\nexport PIAPI_API_KEY=k\n"
        running, gone = visit.result.stderr.splitlines()
        assert running == f"the emulator is running; watch it at {visit.url} , Ctrl-C ends it"
        assert gone == "the emulator is gone, and its tasks with it"

    def test_no_pillow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without Pillow it runs all the same, and warns that there will be no pictures."""
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
        result = Visit().result
        assert result.exit_code == 0
        assert result.stderr.startswith("warning: pictures need Pillow")

    def test_port_taken(self) -> None:
        """A port that is taken is one line and exit code 1."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            result = command("--port", str(taken.getsockname()[1]))
        assert result.exit_code == 1
        assert "address already in use" in line(result)
