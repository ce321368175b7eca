"""The pytest plugin: an emulator for each test that asks for one, on an event loop whose time jumps.

    async def test_app(piapi_emulator):
        await app()                                     # its Session finds the emulator by the environment
        piapi_emulator.check.exactly_tasks(1)

It comes with the package and needs pytest-asyncio 1.5 or newer, in either mode. Tests that ask for nothing of it run as
if it were not there; `-p no:piapi_async` switches it off.

Fixtures, both for async tests:

- `piapi_emulator`: an `Emulator` that runs in the test's event loop. `PIAPI_BASE_URL` and `PIAPI_API_KEY` lead to it
  while the test and its function-scoped fixtures run, so that a `Session()` made in them goes there.
- `piapi_session`: a `Session` on it.

Markers, on tests, classes and modules:

- `piapi_emulator(**options)`: fields of `Options`; what is nearer to the test goes before what is farther away.
- `piapi_faults(endpoint, name, **options)`: as `Faults.next`, or with `probability` as `Faults.often`. Those farther
  away come first, then from top to bottom.
- `piapi_time("virtual")` or `piapi_time("real")`: which time an async test has. Without it time is virtual, and ten
  minutes take milliseconds, in tests that have `piapi_emulator` among their fixtures. Two kinds of these are left
  alone: a loop shared between tests (a `loop_scope` other than function), as the others may count on it; and a loop
  chosen by `asyncio(loop_factories=...)`.

A test that would pass although a fault that was scripted one by one never happened fails: what it was meant to prove
was not tried. Where that is right, it ends with `piapi_emulator.faults.clear()`.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pytest

if TYPE_CHECKING:
    from piapi_async.emulator import Emulator
    from piapi_async.session import Session
    from piapi_async.testing import VirtualTimeLoop

_Scope = Literal["function", "class", "module", "package", "session"]

_SCOPES: tuple[_Scope, ...] = ("function", "class", "module", "package", "session")
_MARKERS = (
    "piapi_emulator(**options): how the test's piapi_emulator behaves; fields of piapi_async.emulator.Options",
    "piapi_faults(endpoint, name, **options): what goes wrong on it, as piapi_emulator.faults.next has it",
    "piapi_time(kind): whether the async test has 'virtual' or 'real' time",
)
_ASK_FOR_IT = ("piapi_emulator", "piapi_faults")

_running = pytest.StashKey["Emulator"]()
_at_the_end = pytest.StashKey[AsyncExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, and the fixtures that need pytest-asyncio."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if _has_pytest_asyncio(config):
        config.pluginmanager.register(_fixtures(), "piapi_async fixtures")


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Choose the event loop of a test that is to have virtual time, and of no other."""
    if not _is_to_jump(metafunc):
        return (yield)
    # Registered for this test alone: pytest-asyncio wants every test's loop from whoever has this hook.
    hooks = metafunc.config.pluginmanager
    hooks.register(_virtual_time)
    try:
        return (yield)
    finally:
        hooks.unregister(_virtual_time)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test whose own markers are about an emulator that it does not have; start the emulator first.

    A fixture that makes a `Session()` must find the emulator's address, whatever the order of the test's arguments.
    """
    fixtures: list[str] = getattr(item, "fixturenames", [])
    if "piapi_emulator" in fixtures:
        fixtures.remove("piapi_emulator")
        fixtures.insert(0, "piapi_emulator")
    names = [mark.name for mark in item.own_markers if mark.name in _ASK_FOR_IT]
    if names and "piapi_emulator" not in fixtures:
        _fail(f"{names[0]} has no effect on a test without piapi_emulator: name that among the test's arguments")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let a test fail that would pass without the faults that were scripted for it."""
    result = yield
    if _running in pyfuncitem.stash:
        _check_script(pyfuncitem.stash[_running])
    return result


@pytest.fixture
def piapi_emulator(request: pytest.FixtureRequest) -> Iterator["Emulator"]:
    """An emulator of PiAPI in the test's event loop; `PIAPI_BASE_URL` and `PIAPI_API_KEY` lead to it."""
    emulator: Emulator = request.getfixturevalue(_home(request))
    request.node.stash[_running] = emulator
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PIAPI_BASE_URL", emulator.url)
        environment.setenv("PIAPI_API_KEY", emulator.api_key)
        environment.delenv("PIAPI_UPLOAD_URL", raising=False)  # uploads go to the same place
        yield emulator


@pytest.fixture
def piapi_session(piapi_emulator: "Emulator", request: pytest.FixtureRequest) -> "Session":
    """A `piapi_async.Session` on the test's emulator."""
    from piapi_async.session import Session  # noqa: PLC0415 - pytest loads the plugin in every project

    session = Session(piapi_emulator.api_key, base_url=piapi_emulator.url)
    request.node.stash[_at_the_end].push_async_callback(session.aclose)
    return session


class _VirtualTime:
    """The plugin that chooses the loop, while a test that is to have it is collected."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_asyncio_loop_factories(self) -> "Mapping[str, Callable[[], VirtualTimeLoop]]":
        from piapi_async.testing import VirtualTimeLoop  # noqa: PLC0415 - only for tests that ask for it

        return {"virtual": VirtualTimeLoop}


_virtual_time = _VirtualTime()


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    """Whether it is there, under whatever name, and new enough."""
    return hasattr(config.hook, "pytest_asyncio_loop_factories")


def _is_to_jump(metafunc: pytest.Metafunc) -> bool:
    node = metafunc.definition
    if not _has_pytest_asyncio(metafunc.config) or "loop_factories" in _asyncio_words(node):
        return False
    if (mark := node.get_closest_marker("piapi_time")) is not None:
        return _kind(mark) == "virtual"
    return "piapi_emulator" in metafunc.fixturenames and _loop_scope(node) == "function"


def _kind(mark: pytest.Mark) -> object:
    if mark.kwargs or mark.args not in (("virtual",), ("real",)):
        _fail("piapi_time takes one word: 'virtual' or 'real'")
    return mark.args[0]


def _asyncio_words(node: pytest.Item) -> Mapping[str, Any]:
    mark = node.get_closest_marker("asyncio")
    return {} if mark is None else mark.kwargs


def _loop_scope(node: pytest.Item) -> object:
    words = _asyncio_words(node)
    return words.get("loop_scope") or words.get("scope") or node.config.getini("asyncio_default_test_loop_scope")


def _home(request: pytest.FixtureRequest) -> str:
    """The fixture that runs an emulator in the loop of this test."""
    if not _has_pytest_asyncio(request.config):
        _fail("piapi_emulator needs pytest-asyncio: pip install 'pytest-asyncio>=1.5'")
    if request.node.get_closest_marker("asyncio") is None:
        _fail(
            "piapi_emulator lives in the event loop of an async test: mark the test with pytest.mark.asyncio, or set "
            "asyncio_mode to auto; a test that is not async can use piapi_async.testing.run_in_virtual_time"
        )
    return _name(_loop_scope(request.node))


def _name(scope: object) -> str:
    return f"_piapi_emulator_in_{scope}_loop"


def _fixtures() -> ModuleType:
    """For each loop that pytest-asyncio may give a test, the fixture that runs an emulator in it."""
    fixtures = ModuleType("piapi_async_fixtures")
    for scope in _SCOPES:
        setattr(fixtures, _name(scope), _fixture(scope))
    return fixtures


def _fixture(scope: _Scope) -> object:
    import pytest_asyncio  # noqa: PLC0415 - not everyone has it

    @pytest_asyncio.fixture(name=_name(scope), loop_scope=scope)
    async def run(request: pytest.FixtureRequest) -> "AsyncIterator[Emulator]":
        async with AsyncExitStack() as stack:
            request.node.stash[_at_the_end] = stack
            yield await stack.enter_async_context(_emulator(request.node))

    return run


def _emulator(item: pytest.Item) -> "Emulator":
    """The emulator that a test's markers describe."""
    from piapi_async.emulator import Emulator  # noqa: PLC0415 - brings aiohttp.web, which other tests do not need

    options: dict[str, Any] = {}
    for mark in _marks(item, "piapi_emulator"):
        options |= mark.kwargs
        if mark.args:
            _fail(f"piapi_emulator takes its options by name, not {mark.args[0]!r}")
    with _told_of("piapi_emulator"):
        emulator = Emulator(**options)
    for mark in _marks(item, "piapi_faults"):
        with _told_of("piapi_faults"):
            plan = emulator.faults.often if "probability" in mark.kwargs else emulator.faults.next
            plan(*mark.args, **mark.kwargs)
    return emulator


def _marks(item: pytest.Item, name: str) -> list[pytest.Mark]:
    """The markers of a name as one reads them: the module's, the class's, the test's, each from top to bottom."""
    return list(item.iter_markers(name))[::-1]


@contextmanager
def _told_of(marker: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        _fail(f"{marker}: {error.args[0]}")  # attrs puts more behind its sentence


def _check_script(emulator: "Emulator") -> None:
    planned = [fault for fault in emulator.faults.planned() if fault["probability"] is None]
    left = Counter(f"{fault['endpoint']} {fault['name']}" for fault in planned)
    if left:
        names = ", ".join(f"{name} ({times} times)" if times > 1 else name for name, times in left.items())
        _fail(f"the test passed without faults that were scripted: {names}; piapi_emulator.faults.clear() forgets them")


def _fail(sentence: str) -> NoReturn:
    pytest.fail(sentence, pytrace=False)
