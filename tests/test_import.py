"""What `import piapi_async` does, and what it leaves alone; each in an interpreter of its own."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import piapi_async

HEAVY = (
    *("aiohttp.web", "click", "rich", "PIL", "sqlite3", "argparse", "mmap", "importlib.metadata"),
    *("piapi_async.emulator", "piapi_async.testing", "piapi_async.batch", "piapi_async.ledger"),
    *("piapi_async.files", "piapi_async.picture"),
)
"""Modules that neither an import of the root nor a first session may bring along."""


def run(code: str, *options: str) -> str:
    """What a fresh interpreter prints; it has to end well and to warn of nothing."""
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_importing_is_silent_and_light() -> None:
    """With every warning an error the import prints nothing, and loads nothing that most users do not need."""
    code = f"import sys, piapi_async as p; p.Session('k'), p.Img2Img; print(sorted(set({HEAVY}) & set(sys.modules)))"
    assert run(code, "-W", "error") == "[]\n"


@pytest.mark.parametrize("module", ["piapi_async", "piapi_async.errors", "piapi_async.pytest_plugin"])
def test_importing_loads_what_is_used(module: str) -> None:
    """The root, its errors, and the plugin that pytest loads in every project import nothing of aiohttp."""
    assert run(f"import sys, {module}; print([name for name in sys.modules if name == 'aiohttp'])") == "[]\n"


def test_names_are_imported_once() -> None:
    """The root keeps a name once it was used, and imports it no second time."""
    code = "import piapi_async as p; p.LoRA, p.__version__; print('LoRA' in vars(p), '__version__' in vars(p))"
    assert run(code) == "True True\n"


@pytest.mark.parametrize("name", ["account", "errors", "events", "files", "flux", "handle", "limits", "picture"])
def test_modules_are_attributes_of_the_root(name: str) -> None:
    """The modules that define the root's names can be reached through the root, without an import of their own."""
    assert run(f"import piapi_async; print(piapi_async.{name}.__name__)") == f"piapi_async.{name}\n"


def test_star_import() -> None:
    """`from piapi_async import *` binds all public names and nothing else."""
    code = "from piapi_async import *; print(*sorted(name for name in dir() if name[0] != '_'))"
    assert run(code).split() == sorted(piapi_async.__all__)


def test_type_checkers_see_the_same_names() -> None:
    """What the root imports for type checkers is what it imports on first use."""
    block = next(node for node in ast.parse(inspect.getsource(piapi_async)).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: importlib.import_module(str(node.module)) for node in imports for alias in node.names}
    assert sorted(typed) == piapi_async.__all__
    assert [name for name in typed if getattr(typed[name], name) is not getattr(piapi_async, name)] == []


def test_importing_starts_nothing() -> None:
    """After the import there is no thread, no event loop and no open socket, and making values needs no loop."""
    code = """
import threading, asyncio, socket, gc
import piapi_async
from piapi_async import Governor, Img2Img, Polling, RetryPolicy, Session
Session(api_key="k"), Governor(max_in_flight=2), Polling(), RetryPolicy(), Img2Img(prompt="a", image="https://e.com/a")
kinds = (socket.socket, asyncio.AbstractEventLoop)
print(threading.active_count(), [it for it in gc.get_objects() if isinstance(it, kinds)])
"""
    assert run(code, "-W", "error") == "1 []\n"


def test_every_module_can_be_imported_first() -> None:
    """No module depends on another having been imported before it."""
    names = sorted(path.stem for path in Path(piapi_async.__file__).parent.glob("*.py") if path.stem != "__init__")
    code = f"""
import importlib, sys
for name in {names}:
    for loaded in [key for key in sys.modules if key.split(".")[0] == "piapi_async"]:
        del sys.modules[loaded]
    importlib.import_module("piapi_async." + name)
print("done")
"""
    assert run(code) == "done\n"


def test_all_is_what_can_be_reached() -> None:
    """`__all__` names exactly the public names of the root that are no modules, sorted, and they are few."""
    values = {name: getattr(piapi_async, name) for name in dir(piapi_async) if not name.startswith("_")}
    reachable = {name for name, value in values.items() if not inspect.ismodule(value)}
    assert piapi_async.__all__ == sorted(reachable - {"TYPE_CHECKING"})
    assert len(piapi_async.__all__) <= 32


@pytest.mark.parametrize("name", piapi_async.__all__)
def test_every_public_name_knows_its_home(name: str) -> None:
    """Each name of the root has a docstring, and says where its source is, as notebooks show it."""
    value = getattr(piapi_async, name)
    assert inspect.getdoc(value)
    assert value.__module__.startswith("piapi_async.")
    assert inspect.getsource(value)


def test_a_name_that_is_not_there() -> None:
    """The root answers for a wrong name as any module does."""
    with pytest.raises(AttributeError, match=r"^module 'piapi_async' has no attribute 'Sesion'$"):
        piapi_async.Sesion  # noqa: B018 - the access is what is tried


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("events", "Looked", "Polled"),
        ("events", "LookFailed", "PollFailed"),
        ("events", "Detached", "WaitAbandoned"),
        ("emulator", "Spell", "Outage"),
    ],
)
def test_a_renamed_name_still_works_and_warns(module: str, old: str, new: str) -> None:
    """Code that uses an old name runs, and is told the new one; other names are missing as in any module."""
    home = importlib.import_module(f"piapi_async.{module}")
    with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}"):
        assert getattr(home, old) is getattr(home, new)
    with pytest.raises(AttributeError, match="has no attribute"):
        home.Nothing  # noqa: B018 - the access is what is tried


def test_the_modules_of_the_root_are_its_attributes() -> None:
    """`piapi_async.files` works without a further import, and so does each module that holds public names."""
    assert piapi_async.__getattr__("files") is importlib.import_module("piapi_async.files")


def test_the_demo_can_be_played_from_python() -> None:
    """`piapi_async.demo` offers what `piapi-async demo` does."""
    demo = importlib.import_module("piapi_async.demo")
    assert all(callable(getattr(demo, name)) for name in demo.__all__)
