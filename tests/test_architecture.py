"""The package's layers and habits, read from its source."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import piapi_async

ROOT = Path(piapi_async.__file__).parent

ORDER = [
    # 0: values
    [
        *("_text", "_media", "_checks", "errors", "prices", "_html", "task", "_table"),
        *("_flux_parts", "_flux_base", "flux", "account", "_content", "_calls", "_wire"),
        *("_history", "_ledger_states"),
    ],
    # 0: one value more, and what it takes to decode and to write it
    ["_structure", "_owner", "_disk", "_pillow", "picture"],
    # 1: policy
    [
        *("_clock", "_loop", "events", "retry", "_schedule", "_past", "_learning", "polling", "_watch"),
        *("_pace", "_slots", "_gate", "limits", "_budget"),
    ],
    # 2: I/O
    [
        *("_http", "_fitting", "_sources", "_arrival", "_naming", "_sidecar", "files"),
        *("_canonical", "_sqlite", "_ledger_schema", "_ledger_rows", "_ledger_acts", "ledger"),
    ],
    # 3: API
    ["_closing", "_api", "_uploads", "handle", "_arguments", "_candidates", "session"],
    # 4: compose
    ["_outcomes", "_reconcile", "_jobs", "_intake", "_brake", "_crew", "batch", "webhooks"],
]
"""The design's layers, and a fixed order within each: a module imports only what stands before it."""

CORE = [name for layer in ORDER for name in layer]

SURFACES = {"emulator", "testing", "display", "demo", "cli", "otel", "ray", "pytest_plugin", "_sheet"}
"""Layer 5, with the private modules of the command line (`_cli_…`) and of the report (`_report…`), and `__main__`;
nothing below imports these."""

FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "misc", "base"}


@attrs.frozen
class Import:
    """One name that a module imports: `from a import b` is `a.b`."""

    module: str
    target: str


def sources() -> dict[str, ast.Module]:
    """Every module of the package, parsed: `task`, `emulator._server`, and `""` for the root."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


SOURCES = sources()
NAMES = sorted(SOURCES)


def is_for_types(node: ast.AST) -> bool:
    """Whether this is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a module that run, those in functions included."""
    for child in ast.iter_child_nodes(tree):
        if not is_for_types(child):
            yield child
            yield from nodes(child)


def imported(name: str) -> set[str]:
    """The full names that a module imports."""
    found = set()
    for node in nodes(SOURCES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(name: str, package: str) -> bool:
    """Whether a module imports a package, or anything in it."""
    return any(f"{target}.".startswith(f"{package}.") for target in imported(name))


def ours(name: str) -> set[str]:
    """The modules of the package that a module imports; the root is `""`."""
    found = set()
    for target in imported(name):
        package, *parts = target.split(".")
        if package == "piapi_async":
            found.add(next((".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in SOURCES), ""))
    return found - {name}


def top(name: str) -> str:
    """The module or package at the top level that a module belongs to."""
    return name.partition(".")[0]


def is_surface(name: str) -> bool:
    """Whether a module is of layer 5."""
    return top(name) in SURFACES or name == "__main__" or name.startswith(("_cli_", "_report"))


def those_using(package: str) -> set[str]:
    """The top-level modules that import a package."""
    return {top(name) for name in NAMES if uses(name, package)}


def attributes(name: str, of: str) -> set[str]:
    """What a module takes from another by `of.something`."""
    return {
        node.attr
        for node in nodes(SOURCES[name])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of
    }


def test_every_module_has_its_place() -> None:
    """Each module is in the table of layers, so that a new one has to be given its place."""
    assert [name for name in NAMES if name and top(name) not in CORE and not is_surface(name)] == []


@pytest.mark.parametrize("name", [name for name in NAMES if name in CORE])
def test_a_module_imports_only_what_stands_before_it(name: str) -> None:
    """The modules below the surfaces are in one fixed order, and imports go against it only for types."""
    assert ours(name) <= set(CORE[: CORE.index(name)])


def test_the_root_is_a_table_of_contents() -> None:
    """The root runs no import of ours; all in it is `__all__`, and what is imported when it is asked for."""
    assert ours("") == set()
    kinds = [type(node) for node in SOURCES[""].body]
    assert set(kinds) <= {ast.Expr, ast.ImportFrom, ast.Assign, ast.If}
    assert kinds.count(ast.Assign) == kinds.count(ast.If) == kinds.count(ast.Expr) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if name])
def test_no_module_imports_the_root(name: str) -> None:
    """Inside the package names come from the modules that define them, never from the root."""
    assert "" not in ours(name)


def test_imports_have_no_cycle() -> None:
    """The surfaces, too, can be put in an order."""
    assert list(graphlib.TopologicalSorter({name: ours(name) for name in NAMES}).static_order())


@pytest.mark.parametrize("name", [name for name in NAMES if top(name) == "emulator"])
def test_the_emulator_stands_apart(name: str) -> None:
    """The emulator imports nothing of ours but `_clock`, so that a mistake cannot cancel itself out."""
    assert {top(module) for module in ours(name)} <= {"_clock", "emulator"}


def test_tenacity_drives_two_loops() -> None:
    """Only `retry` and the poller make an `AsyncRetrying`; `polling` names tenacity's types, and nobody else does."""
    assert those_using("tenacity") == {"retry", "polling", "_watch"}
    assert [name for name in NAMES if "AsyncRetrying" in attributes(name, "tenacity")] == ["_watch", "retry"]


def test_the_aiohttp_client_is_behind_one_door() -> None:
    """Only `_http` uses aiohttp's client; `_arrival` and `session` name some types of its, the emulator is apart."""
    assert those_using("aiohttp") <= {"_http", "_arrival", "session", "emulator", "webhooks"}
    assert attributes("_arrival", "aiohttp") == {"ClientResponse"}
    assert attributes("session", "aiohttp") <= {"ClientSession", "ClientTimeout"}


def test_the_aiohttp_server_is_behind_two_doors() -> None:
    """Only the emulator and the webhooks may use `aiohttp.web`."""
    assert those_using("aiohttp.web") <= {"emulator", "webhooks"}


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("sqlite3", {"_sqlite"}),
        ("PIL", {"_pillow", "_fitting", "emulator", "display", "demo", "_sheet", "_report_pictures"}),
        ("IPython", {"display"}),
        ("opentelemetry", {"otel"}),
        ("ray", {"ray"}),
        ("pytest", {"pytest_plugin"}),
        ("argparse", set()),
        ("requests", set()),
        ("subprocess", set()),
    ],
)
def test_each_heavy_package_has_its_users(package: str, users: set[str]) -> None:
    """Optional and heavy packages stay inside the modules that are about them."""
    assert those_using(package) <= users


@pytest.mark.parametrize("package", ["click", "rich"])
def test_the_command_line_keeps_its_packages(package: str) -> None:
    """Only the surfaces use click and rich, and the emulator does not."""
    assert all(is_surface(name) and name != "emulator" for name in those_using(package))


def test_clocks_and_chance_are_in_one_place() -> None:
    """Only `_clock` reads clocks and draws numbers, but for the loop that is a clock; a seeded `Random` is free."""
    harmless = {"time": {"gmtime", "strftime"}, "random": {"Random"}}
    used = {
        (name, f"{package}.{taken}")
        for package, free in harmless.items()
        for name in NAMES
        if uses(name, package)
        for taken in attributes(name, package) - free
    }
    assert used == {
        ("_clock", "time.time"),
        ("_clock", "random.random"),
        ("testing", "time.time"),
        ("testing", "time.monotonic"),
    }
    assert not [name for name in NAMES for target in imported(name) if target.startswith(("time.", "random."))]


@pytest.mark.parametrize("name", NAMES)
def test_nobody_asks_the_calendar(name: str) -> None:
    """No module reads the date or makes unseeded identifiers by itself."""
    assert not {"now", "utcnow", "today"} & (attributes(name, "datetime") | attributes(name, "date"))
    assert "uuid4" not in attributes(name, "uuid")


def test_no_module_is_a_drawer() -> None:
    """No module is named for being useful."""
    assert not {part.strip("_") for name in NAMES for part in name.split(".")} & FORBIDDEN_NAMES


def test_the_reading_of_imports_sees_what_there_is() -> None:
    """These tests read real imports: some that are known to be there are found, those for types alone are not."""
    assert {"_checks", "_clock", "_learning", "retry", "task"} <= ours("polling")
    assert ours("errors") == set()
    assert uses("session", "aiohttp")
    assert not uses("session", "aio")
    assert ours("emulator._server") >= {"_clock", "emulator._service"}
