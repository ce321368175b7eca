"""The project's metadata: versions that agree, and extras as the design has them."""

import importlib
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import piapi_async

HOME = Path(__file__).parents[1]


def project() -> dict[str, Any]:
    """The `[project]` table of `pyproject.toml`."""
    table: dict[str, Any] = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def named(requirements: list[str]) -> set[str]:
    """Requirements without their version bounds."""
    return {re.split(r"[<>=~!; ]", requirement)[0] for requirement in requirements}


def test_there_is_one_version() -> None:
    """`__version__`, the installed metadata, `pyproject.toml` and the changelog's newest release agree."""
    changelog = (HOME / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, flags=re.MULTILINE)
    assert piapi_async.__version__ == version("piapi_async") == project()["version"] == released[0]
    assert released == sorted(released, key=lambda text: tuple(map(int, text.split("."))), reverse=True)


def test_the_core_depends_on_three_packages() -> None:
    """aiohttp, attrs and tenacity, each with a lower bound, and nothing else."""
    requirements = project()["dependencies"]
    assert named(requirements) == {"aiohttp", "attrs", "tenacity"}
    assert all(">=" in requirement and "<" not in requirement for requirement in requirements)


@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("images", {"pillow"}),
        ("cli", {"click", "rich"}),
        ("emulator", {"pillow"}),
        ("otel", {"opentelemetry-api"}),
        ("ray", {"ray[data]"}),
        ("all", {"piapi_async[images,cli,emulator,otel,ray]"}),
    ],
)
def test_each_extra_brings_its_packages(extra: str, packages: set[str]) -> None:
    """The extras are the design's."""
    assert named(project()["optional-dependencies"][extra]) == packages


def test_the_lowest_versions_are_tested() -> None:
    """`.ci/lowest.txt` has what the core, each extra and the tests need, at the lower bound that is declared.

    Left out are `ray`, of which no code exists, and the tools of `dev`.
    """
    extras = project()["optional-dependencies"]
    declared = set(project()["dependencies"]).union(
        *(extras[it] for it in ("images", "cli", "emulator", "otel", "test"))
    )
    lines = (HOME / ".ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    lowest = [line.replace("==", ">=") for line in lines if not line.startswith("#")]
    assert sorted(lowest) == sorted(it for it in declared if not it.startswith("piapi_async["))


def test_there_are_no_other_extras() -> None:
    """Besides the six for users there are `test` and `dev` for us."""
    extras = {"images", "cli", "emulator", "otel", "ray", "all", "test", "dev"}
    assert set(project()["optional-dependencies"]) == extras


def test_the_script_can_be_found() -> None:
    """`piapi-async`, and no other script, is installed, and leads to a function."""
    scripts = project()["scripts"]
    assert list(scripts) == ["piapi-async"]
    module, function = scripts["piapi-async"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_package_is_typed() -> None:
    """The marker that tells type checkers to read our annotations is there."""
    assert (Path(piapi_async.__file__).parent / "py.typed").is_file()


def test_the_top_level_is_as_the_owner_wants_it() -> None:
    """Beside the six agreed entries and the licence, the project's top level holds only dot-files."""
    agreed = {"pyproject.toml", "piapi_async", "tests", "benchmarks", "README.md", "CHANGELOG.md", "LICENSE"}
    assert agreed <= {path.name for path in HOME.iterdir()}
