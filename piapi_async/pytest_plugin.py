"""The pytest plugin: an emulator of PiAPI for each test that asks for one.

    async def test_app(piapi_emulator):
        await app()                                     # its Session finds the emulator by the environment
        piapi_emulator.check.exactly_tasks(1)

It comes with the package and needs pytest-asyncio 1.5 or newer, in either mode. Tests that ask for nothing of it run as
if it were not there; `-p no:piapi_async` switches it off.

Fixtures, both for async tests:

- `piapi_emulator`: an `Emulator` that runs in the test's event loop. `PIAPI_BASE_URL` and `PIAPI_API_KEY` lead to it
  while the test and its function-scoped fixtures run, so that a `Session()` made in them goes there. Its tasks end
  almost at once unless the test sets `durations`.
- `piapi_session`: a `Session` on it that polls every few milliseconds. Any other `Session` waits about a second before
  its first poll, as it would for the service, unless the test has virtual time.

Markers, on tests, classes and modules:

- `piapi_emulator(**options)`: fields of `Options`. The marker nearest to the test wins.
- `piapi_faults(endpoint, name, **options)`: as `Faults.next`, or with `probability` as `Faults.often`. Those of the
  module come first, then those of the class and of the test, from top to bottom.
- `piapi_time("virtual")`: the async test, which need not have an emulator, runs on a
  `piapi_async.testing.VirtualTimeLoop`, where ten minutes take milliseconds; read there what does not jump.
  `piapi_time("real")`, the default, takes that back for a test in such a class or module.

The emulator lives in the event loop of its test. A test that shares its loop with others (a `loop_scope` other than
"function") cannot have one.

A test that would pass although a fault that was scripted for it never happened fails: what it was meant to prove was
not tried. Where that is right, it ends with `piapi_emulator.faults.clear()`.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from piapi_async.emulator import Emulator
    from piapi_async.session import Session
    from piapi_async.testing import VirtualTimeLoop

_MARKERS = (
    "piapi_emulator(**options): how the test's piapi_emulator behaves; fields of piapi_async.emulator.Options",
    "piapi_faults(endpoint, name, **options): what goes wrong on it, as piapi_emulator.faults.next has it",
    "piapi_time(kind): whether the async test has 'real' time, the default, or 'virtual' time",
)
_ASK_FOR_EMULATOR = ("piapi_emulator", "piapi_faults")
_TASK_SECONDS = 0.01  # not zero, as a client learns nothing from tasks that took no time

_running = pytest.StashKey["Emulator"]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, and the fixtures that need pytest-asyncio."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if _has_pytest_asyncio(config):
        config.pluginmanager.register(_async_fixtures(), "piapi_async fixtures")


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Give a test that is marked for it an event loop with virtual time."""
    mark = metafunc.definition.get_closest_marker("piapi_time")
    if mark is not None and (mark.kwargs or mark.args not in (("virtual",), ("real",))):
        _fail("piapi_time takes one word: 'virtual' or 'real'")
    if mark is None or mark.args != ("virtual",) or not _has_pytest_asyncio(metafunc.config):
        return (yield)
    # Registered for this test alone: pytest-asyncio wants every test's loop from whoever has this hook.
    hooks = metafunc.config.pluginmanager
    hooks.register(_virtual_time)
    try:
        return (yield)
    finally:
        hooks.unregister(_virtual_time)


class _VirtualTime:
    @pytest.hookimpl(tryfirst=True)
    def pytest_asyncio_loop_factories(self) -> "Mapping[str, Callable[[], VirtualTimeLoop]]":
        from piapi_async.testing import VirtualTimeLoop  # noqa: PLC0415 - only for tests that ask for it

        return {"virtual": VirtualTimeLoop}


_virtual_time = _VirtualTime()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test whose own markers are about an emulator that it does not have; start the emulator first.

    A fixture that makes a `Session()` must find the emulator's address, whatever the order of the test's arguments:
    with the user's own key it would go to the real service.
    """
    fixtures: list[str] = getattr(item, "fixturenames", [])
    if "piapi_emulator" in fixtures:
        fixtures.remove("piapi_emulator")
        fixtures.insert(0, "piapi_emulator")
    names = [mark.name for mark in item.own_markers if mark.name in _ASK_FOR_EMULATOR]
    if names and "piapi_emulator" not in fixtures:
        _fail(f"{names[0]} has no effect on a test without piapi_emulator: name that among the test's arguments")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let a test fail that would pass without the faults that were scripted for it."""
    result = yield
    if _running in pyfuncitem.stash:
        planned = [fault for fault in pyfuncitem.stash[_running].faults.planned() if fault["probability"] is None]
        left = Counter(f"{fault['endpoint']} {fault['name']}" for fault in planned)
        names = ", ".join(f"{name} ({times} times)" if times > 1 else name for name, times in left.items())
        if names:
            _fail(f"the test passed without scripted faults: {names}; piapi_emulator.faults.clear() forgets them")
    return result


@pytest.fixture
def piapi_emulator(request: pytest.FixtureRequest) -> Iterator["Emulator"]:
    """An emulator of PiAPI in the test's event loop; `PIAPI_BASE_URL` and `PIAPI_API_KEY` lead to it."""
    _check_loop(request)
    emulator: Emulator = request.getfixturevalue("_piapi_emulator")
    request.node.stash[_running] = emulator
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PIAPI_BASE_URL", emulator.url)
        environment.setenv("PIAPI_API_KEY", emulator.api_key)
        environment.delenv("PIAPI_UPLOAD_URL", raising=False)  # uploads go to the same place
        yield emulator


@pytest.fixture
def piapi_session(piapi_emulator: "Emulator", request: pytest.FixtureRequest) -> "Session":  # noqa: ARG001 - runs it
    """A `piapi_async.Session` on the test's emulator, which polls every few milliseconds."""
    session: Session = request.getfixturevalue("_piapi_session")
    return session


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    """Whether it is there, under whatever name, and new enough."""
    return hasattr(config.hook, "pytest_asyncio_loop_factories")


def _check_loop(request: pytest.FixtureRequest) -> None:
    """Refuse a test that does not run in an event loop of its own."""
    if not _has_pytest_asyncio(request.config):
        _fail("piapi_emulator needs pytest-asyncio: pip install 'pytest-asyncio>=1.5'")
    mark = request.node.get_closest_marker("asyncio")
    if mark is None:
        _fail(
            "piapi_emulator lives in the event loop of an async test: mark the test with pytest.mark.asyncio, or set "
            "asyncio_mode to auto; a test that is not async can use piapi_async.testing.run_in_virtual_time"
        )
    scope = mark.kwargs.get("loop_scope") or mark.kwargs.get("scope")
    if (scope or request.config.getini("asyncio_default_test_loop_scope")) != "function":
        _fail(
            "piapi_emulator lives in the event loop of one test, and this test shares its loop: mark it with "
            "pytest.mark.asyncio(loop_scope='function')"
        )


def _async_fixtures() -> ModuleType:
    """The fixtures behind the public ones, which run in the test's event loop."""
    import pytest_asyncio  # noqa: PLC0415 - not everyone has it

    @pytest_asyncio.fixture(loop_scope="function")
    async def _piapi_emulator(request: pytest.FixtureRequest) -> "AsyncIterator[Emulator]":
        async with _described(request.node) as emulator:
            yield emulator

    @pytest_asyncio.fixture(loop_scope="function")
    async def _piapi_session(_piapi_emulator: "Emulator") -> "AsyncIterator[Session]":
        # Imported late: pytest loads the plugin in every project.
        from piapi_async.polling import Backoff, Polling  # noqa: PLC0415
        from piapi_async.session import Session  # noqa: PLC0415

        eager = Polling(wait=Backoff(initial=0.01, maximum=1.0, jitter=0.0))
        async with Session(_piapi_emulator.api_key, base_url=_piapi_emulator.url, polling=eager) as session:
            yield session

    fixtures = ModuleType("piapi_async_fixtures")
    fixtures.__dict__.update(_piapi_emulator=_piapi_emulator, _piapi_session=_piapi_session)
    return fixtures


def _described(item: pytest.Item) -> "Emulator":
    """The emulator that a test's markers describe."""
    from piapi_async.emulator import Constant, Emulator  # noqa: PLC0415 - brings aiohttp.web

    options: dict[str, Any] = {"durations": Constant(_TASK_SECONDS), "queue_delay": Constant(0.0)}
    for mark in _marks(item, "piapi_emulator"):
        options |= mark.kwargs
        if mark.args:
            _fail(f"piapi_emulator takes its options by name, not {mark.args[0]!r}")
    with _mistakes_of("piapi_emulator"):
        emulator = Emulator(**options)
    for mark in _marks(item, "piapi_faults"):
        with _mistakes_of("piapi_faults"):
            plan = emulator.faults.often if "probability" in mark.kwargs else emulator.faults.next
            plan(*mark.args, **mark.kwargs)
    return emulator


def _marks(item: pytest.Item, name: str) -> list[pytest.Mark]:
    """The markers of a name as one reads them: the module's, the class's, the test's, each from top to bottom."""
    return list(item.iter_markers(name))[::-1]


@contextmanager
def _mistakes_of(marker: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        _fail(f"{marker}: {error.args[0]}")  # attrs puts more behind its sentence


def _fail(sentence: str) -> NoReturn:
    pytest.fail(sentence, pytrace=False)
