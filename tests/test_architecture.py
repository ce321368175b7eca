"""The package's layers and who may use which library, read from its source."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import piapi_async

ROOT = Path(piapi_async.__file__).parent

ORDER = [
    # 0: foundations
    ["_renamed", "_text", "_media", "_asyncio", "_process", "_atomic"],
    # 1: values
    ["errors", "_validators", "prices", "_html", "task", "account", "events", "flux"],
    # 2: policies
    ["retry", "polling", "limits"],
    # 3: the service
    ["_client", "_images", "picture", "files", "_fingerprint", "_candidates"],
    # 4: what people hold
    ["handle", "_session_options", "session"],
    # 5: composition
    ["ledger", "batch", "webhooks"],
    # 6: surfaces
    ["display", "emulator", "cli", "demo", "testing", "pytest_plugin", "otel", "ray", "__main__"],
]
"""The layers, and the packages of each in a fixed order: a package imports only what stands before it."""

PACKAGES = [name for layer in ORDER for name in layer]
SURFACES = set(ORDER[-1])
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "misc"}


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
            depths = range(len(parts), 0, -1)
            found.add(next((".".join(parts[:n]) for n in depths if ".".join(parts[:n]) in SOURCES), ""))
    return found - {name}


def top(name: str) -> str:
    """The module or package at the top level that a module belongs to."""
    return name.partition(".")[0]


def packages_below(package: str) -> set[str]:
    """The other packages that a package's modules import."""
    return {top(module) for name in NAMES if top(name) == package for module in ours(name)} - {package}


def those_using(package: str) -> set[str]:
    """The modules that import a package."""
    return {name for name in NAMES if uses(name, package)}


def attributes(name: str, of: str) -> set[str]:
    """What a module takes from another by `of.something`."""
    return {
        node.attr
        for node in nodes(SOURCES[name])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of
    }


def test_every_package_has_its_place() -> None:
    """Each package is in the table of layers, so that a new one has to be given its place."""
    assert sorted({top(name) for name in NAMES if name} - set(PACKAGES)) == []


@pytest.mark.parametrize("package", sorted({top(name) for name in NAMES if name}))
def test_a_package_imports_only_what_stands_before_it(package: str) -> None:
    """The packages are in one fixed order, which leaves no room for a cycle."""
    assert packages_below(package) <= set(PACKAGES[: PACKAGES.index(package)])


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
    """The modules of each package, too, can be put in an order."""
    assert list(graphlib.TopologicalSorter({name: ours(name) for name in NAMES}).static_order())


def test_the_emulator_stands_apart() -> None:
    """The emulator imports nothing of ours but the clock and old names, so that a mistake cannot cancel itself out."""
    assert packages_below("emulator") == {"_asyncio", "_renamed"}


def test_tenacity_drives_two_loops() -> None:
    """Only `retry` and the poller make an `AsyncRetrying`; `polling` names tenacity's types, and nobody else does."""
    assert those_using("tenacity") == {"retry", "polling", "polling._poller"}
    assert [name for name in NAMES if "AsyncRetrying" in attributes(name, "tenacity")] == ["polling._poller", "retry"]


def test_the_aiohttp_client_is_in_one_module() -> None:
    """Only the transport uses aiohttp's client; two modules name some types of its, the emulator is apart."""
    users = {name for name in those_using("aiohttp") if top(name) not in {"emulator", "webhooks"}}
    assert users == {"_client.transport", "files._download", "session"}
    assert attributes("files._download", "aiohttp") == {"ClientResponse"}
    assert attributes("session", "aiohttp") <= {"ClientSession", "ClientTimeout"}


def test_the_aiohttp_server_is_in_two_packages() -> None:
    """Only the emulator and the webhooks may use `aiohttp.web`."""
    assert {top(name) for name in those_using("aiohttp.web")} <= {"emulator", "webhooks"}


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("sqlite3", {"ledger"}),
        ("PIL", {"_images", "emulator", "display", "cli"}),
        ("IPython", {"display"}),
        ("click", {"cli"}),
        ("rich", {"cli"}),
        ("opentelemetry", {"otel"}),
        ("ray", {"ray"}),
        ("pytest", {"pytest_plugin"}),
        ("argparse", set()),
        ("requests", set()),
        ("subprocess", set()),
    ],
)
def test_each_heavy_package_has_its_users(package: str, users: set[str]) -> None:
    """Optional and heavy packages stay inside the packages that are about them."""
    assert {top(name) for name in those_using(package)} <= users


def test_clocks_and_chance_are_in_one_place() -> None:
    """Only `_asyncio` reads clocks and draws numbers, but for the loop that is a clock; a seeded `Random` is free."""
    harmless = {"time": {"gmtime", "strftime"}, "random": {"Random"}}
    used = {
        (name, f"{package}.{taken}")
        for package, free in harmless.items()
        for name in NAMES
        if uses(name, package)
        for taken in attributes(name, package) - free
    }
    assert used == {
        ("_asyncio", "time.time"),
        ("_asyncio", "random.random"),
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
    assert {"_validators", "_asyncio", "polling._durations", "retry", "task"} <= ours("polling")
    assert ours("errors") == set()
    assert uses("session", "aiohttp")
    assert not uses("session", "aio")
    assert ours("emulator._server") >= {"_asyncio", "emulator._service.service"}
