"""The pytest plugin, in small projects of its own: most run in this process, those about loading it in another one."""

import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parent / "plugin_example"
INI = """
[pytest]
asyncio_default_fixture_loop_scope = function
asyncio_mode = {mode}
filterwarnings = error
addopts = --strict-markers --strict-config -p no:cacheprovider
"""
HEAD = """
import asyncio, os, pytest
from piapi_async import Img2Img, Session
from piapi_async.emulator import Constant
from piapi_async.testing import VirtualTimeLoop

PHOTO = "https://example.com/a.jpg"

def is_virtual():
    return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
"""


def run(pytester: pytest.Pytester, code: str, *options: str, mode: str = "auto") -> pytest.RunResult:
    """Run tests in this process, where coverage sees the plugin, which is loaded by name and not as an entry point."""
    pytester.makeini(INI.format(mode=mode))
    pytester.makepyfile(HEAD + code)
    return pytester.runpytest_inprocess("-p", "no:piapi_async", "-p", "piapi_async.pytest_plugin", *options)


def says(result: pytest.RunResult, *lines: str, **outcomes: int) -> None:
    """The outcomes are these and no others, and the output has these lines."""
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines([f"*{line}" for line in lines])


class TestLoading:
    """What everybody gets who has the package and pytest."""

    @pytest.mark.parametrize("mode", ["auto", "strict"])
    def test_the_example(self, pytester: pytest.Pytester, mode: str) -> None:
        """The README's example passes as it stands, in either mode, by the entry point alone, in a few seconds."""
        for name in ("app.py", "test_app.py"):
            shutil.copy(EXAMPLE / name, pytester.path)
        pytester.makeini(INI.format(mode=mode))
        result = pytester.runpytest_subprocess(timeout=60)
        result.assert_outcomes(passed=2)
        assert result.duration < 30

    def test_is_cheap(self, pytester: pytest.Pytester) -> None:
        """Other tests pay for no web server, no pictures and no emulator."""
        pytester.makepyfile("""
            import sys

            def test_loaded(request):
                assert request.config.pluginmanager.hasplugin("piapi_async")
                heavy = {"aiohttp.web", "PIL", "click", "rich", "piapi_async.emulator", "piapi_async.testing"}
                assert not heavy & sys.modules.keys()
        """)
        pytester.makeini(INI.format(mode="auto"))
        pytester.runpytest_subprocess(timeout=60).assert_outcomes(passed=1)

    def test_entry_point(self) -> None:
        """It is found as `piapi_async`, which is also what `-p no:piapi_async` switches off."""
        (found,) = (point for point in entry_points(group="pytest11") if point.value == "piapi_async.pytest_plugin")
        assert found.name == "piapi_async"

    def test_is_described(self, pytester: pytest.Pytester) -> None:
        """`--markers` and `--fixtures` tell what there is, and not what is behind it."""
        markers = run(pytester, "", "--markers").stdout.str()
        assert all(f"@pytest.mark.piapi_{name}" in markers for name in ("emulator(", "faults(", "time("))
        fixtures = run(pytester, "", "--fixtures").stdout.str()
        assert "An emulator of PiAPI in the test's event loop" in fixtures
        assert "A `piapi_async.Session` on the test's emulator" in fixtures
        assert "_piapi_emulator" not in fixtures

    def test_without_pytest_asyncio(self, pytester: pytest.Pytester) -> None:
        """Without pytest-asyncio only a test that needs it fails, in one sentence."""
        pytester.makepyfile("""
            def test_other(): pass
            def test_ours(piapi_session): pass
        """)
        result = pytester.runpytest_inprocess(
            "-p", "no:asyncio", "-p", "no:piapi_async", "-p", "piapi_async.pytest_plugin"
        )
        says(result, "piapi_emulator needs pytest-asyncio: pip install 'pytest-asyncio>=1.5'", passed=1, errors=1)
        assert "Traceback" not in result.stdout.str()


class TestFixtures:
    """`piapi_emulator` and `piapi_session`."""

    def test_a_session_on_an_emulator(self, pytester: pytest.Pytester) -> None:
        """Both live in the test's loop, are fresh for each test, and a task is over after two or three polls."""
        code = """
@pytest.mark.parametrize("turn", range(2))
async def test_it(piapi_session, piapi_emulator, turn):
    info = await piapi_session.run(Img2Img(prompt="a bear", image=PHOTO))
    (task,) = piapi_emulator.tasks.values()
    assert task.task_id == info.task_id
    assert task.ended_at - task.created_at < 0.1
    assert not is_virtual()
"""
        run(pytester, code).assert_outcomes(passed=2)

    def test_the_environment_leads_there(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """A `Session()` made by a test or a fixture reaches the emulator, and afterwards all is as it was."""
        monkeypatch.setenv("PIAPI_BASE_URL", "https://real.example.com")
        monkeypatch.setenv("PIAPI_UPLOAD_URL", "https://upload.example.com")
        code = """
@pytest.fixture
async def app(piapi_emulator):
    async with Session() as session:
        yield session

async def test_it(app, piapi_emulator):
    await app.submit(Img2Img(prompt="a bear", image=PHOTO))
    piapi_emulator.check.exactly_tasks(1)
    assert "PIAPI_UPLOAD_URL" not in os.environ

def test_afterwards():
    assert os.environ["PIAPI_BASE_URL"] == "https://real.example.com"
    assert os.environ["PIAPI_UPLOAD_URL"] == "https://upload.example.com"
    assert "PIAPI_API_KEY" not in os.environ
"""
        run(pytester, code).assert_outcomes(passed=2)

    @pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
    def test_not_in_a_loop_that_is_shared(self, pytester: pytest.Pytester, scope: str) -> None:
        """A test in a loop of a wider scope is told how to have its own, and does so whatever the project's setting."""
        code = f"""
@pytest.mark.asyncio(loop_scope="{scope}")
async def test_marked(piapi_session): pass

async def test_set(piapi_emulator): pass

@pytest.mark.asyncio(loop_scope="function")
async def test_own(piapi_session):
    await piapi_session.submit(Img2Img(prompt="a bear", image=PHOTO))
"""
        result = run(pytester, code, "-o", f"asyncio_default_test_loop_scope={scope}")
        says(
            result,
            "piapi_emulator lives in the event loop of one test, and *loop_scope='function'*",
            passed=1,
            errors=2,
        )

    def test_may_be_built_upon(self, pytester: pytest.Pytester) -> None:
        """A project can put a `piapi_emulator` of its own around this one."""
        code = """
@pytest.fixture
async def piapi_emulator(piapi_emulator):
    piapi_emulator.set(progress="at-once")
    return piapi_emulator

async def test_it(piapi_session):
    handle = await piapi_session.submit(Img2Img(prompt="a bear", image=PHOTO))
    assert (await handle.refresh()).status == "completed"
"""
        run(pytester, code).assert_outcomes(passed=1)

    def test_not_in_a_test_that_is_not_async(self, pytester: pytest.Pytester) -> None:
        """A test that has no loop is told what to do, and so is one that was not marked in strict mode."""
        result = run(pytester, "def test_it(piapi_emulator): pass")
        says(result, "piapi_emulator lives in the event loop of an async test: mark the test*", errors=1)
        result = run(pytester, "async def test_it(piapi_emulator): pass", mode="strict")
        says(result, "piapi_emulator lives in the event loop of an async test: mark the test*", errors=1)


class TestTime:
    """Which tests have virtual time, and how long the others take."""

    def test_is_real_unless_it_is_asked_for(self, pytester: pytest.Pytester) -> None:
        """Only a test with the marker has another loop; the others are not touched, not even their names."""
        code = """
async def test_before():
    assert not is_virtual()

async def test_ours(piapi_emulator):
    assert not is_virtual()

@pytest.mark.piapi_time("virtual")
@pytest.mark.piapi_emulator(durations=Constant(3600))
async def test_asked_for(piapi_session):
    began = asyncio.get_running_loop().time()
    await piapi_session.run(Img2Img(prompt="a bear", image=PHOTO), timeout=4000)
    assert 3600 <= asyncio.get_running_loop().time() - began < 3603

async def test_after(request):
    assert not is_virtual()
    assert not hasattr(request.node, "callspec")
"""
        run(pytester, code).assert_outcomes(passed=4)

    def test_the_nearest_word_counts(self, pytester: pytest.Pytester) -> None:
        """Any async test can have virtual time; in a module of such tests one can have real time."""
        code = """
pytestmark = pytest.mark.piapi_time("virtual")

async def test_virtual():
    await asyncio.sleep(3600)

@pytest.mark.piapi_time("real")
async def test_real(piapi_emulator):
    assert not is_virtual()

def test_not_async():
    pass
"""
        run(pytester, code).assert_outcomes(passed=3)

    def test_a_shared_loop_on_request(self, pytester: pytest.Pytester) -> None:
        """A loop that is shared can be virtual, and the module's other tests have their own."""
        code = """
pytestmark = pytest.mark.asyncio(loop_scope="module")

async def test_before():
    assert not is_virtual()

@pytest.mark.piapi_time("virtual")
async def test_it():
    await asyncio.sleep(3600)

async def test_after():
    assert not is_virtual()
"""
        run(pytester, code).assert_outcomes(passed=3)

    @pytest.mark.parametrize("words", ["", "'slow'", "'real', 'virtual'", "kind='real'"])
    def test_no_other_word(self, pytester: pytest.Pytester, words: str) -> None:
        """Anything but one of the two words is an error, in one sentence."""
        result = run(pytester, f"@pytest.mark.piapi_time({words})\nasync def test_it(): pass")
        says(result, "piapi_time takes one word: 'virtual' or 'real'", errors=1)

    def test_beside_the_loops_of_a_project(self, pytester: pytest.Pytester) -> None:
        """A project's own loops stay those of its tests, but for those with virtual time."""
        pytester.makeconftest("""
            import asyncio

            class Own(asyncio.SelectorEventLoop): pass

            def pytest_asyncio_loop_factories(config, item):
                return {"own": Own}
        """)
        code = """
def kind():
    return type(asyncio.get_running_loop()).__name__

async def test_theirs():
    assert kind() == "Own"

async def test_ours(piapi_emulator):
    assert kind() == "Own"

@pytest.mark.piapi_time("virtual")
async def test_virtual(piapi_emulator):
    assert kind() == "VirtualTimeLoop"
"""
        run(pytester, code).assert_outcomes(passed=3)


class TestMarkers:
    """`piapi_emulator` and `piapi_faults`."""

    def test_options_add_up(self, pytester: pytest.Pytester) -> None:
        """What is nearer to the test goes before what is farther away, option by option."""
        code = """
pytestmark = pytest.mark.piapi_emulator(plan="free", seed=7, polls=9)

@pytest.mark.piapi_emulator(plan="creator", seed=8)
class TestIt:
    @pytest.mark.piapi_emulator(seed=9)
    async def test_it(self, piapi_emulator):
        options = piapi_emulator.options
        assert (options.plan, options.seed, options.polls) == ("creator", 9, 9)
"""
        run(pytester, code).assert_outcomes(passed=1)

    def test_faults_are_in_order(self, pytester: pytest.Pytester) -> None:
        """The module's come first, then the class's, then the test's from top to bottom; chance is no script."""
        code = """
pytestmark = pytest.mark.piapi_faults("get", "500")

@pytest.mark.piapi_faults("get", "502")
class TestIt:
    @pytest.mark.piapi_faults("get", "429", retry_after=2)
    @pytest.mark.piapi_faults("get", "503", times=2)
    @pytest.mark.piapi_faults("get", "404", probability=0)
    async def test_it(self, piapi_emulator, piapi_session):
        names = [fault["name"] for fault in piapi_emulator.faults.planned()]
        assert names == ["500", "502", "429", "503", "503", "404"]
        await piapi_session.run(Img2Img(prompt="a bear", image=PHOTO))
        assert len(piapi_emulator.faults.planned()) == 1
"""
        run(pytester, code).assert_outcomes(passed=1)

    @pytest.mark.parametrize(
        ("marker", "sentence"),
        [
            ("piapi_faults('gett', '503')", "piapi_faults: 'gett' is no endpoint; there is create, get*"),
            ("piapi_faults('get')", "piapi_faults: *missing 1 required positional argument: 'name'"),
            ("piapi_emulator(plann='free')", "piapi_emulator: *unexpected keyword argument 'plann'*"),
            ("piapi_emulator(chaos=2)", "piapi_emulator: 'chaos' must be <= 1: 2"),
            ("piapi_emulator('free')", "piapi_emulator takes its options by name, not 'free'"),
        ],
    )
    def test_mistakes(self, pytester: pytest.Pytester, marker: str, sentence: str) -> None:
        """A marker that means nothing is an error of the test, in one sentence."""
        result = run(pytester, f"@pytest.mark.{marker}\nasync def test_it(piapi_emulator): pass")
        says(result, sentence, errors=1)
        assert "Traceback" not in result.stdout.str()

    def test_no_emulator_to_be_about(self, pytester: pytest.Pytester) -> None:
        """A test that scripts faults and has no emulator is an error; in a module's marks that is no mistake."""
        code = """
pytestmark = pytest.mark.piapi_emulator(plan="free")

async def test_other(): pass

@pytest.mark.piapi_faults("get", "503")
async def test_it(): pass
"""
        sentence = "piapi_faults has no effect on a test without piapi_emulator: name that among the test's arguments"
        says(run(pytester, code), sentence, passed=1, errors=1)

    def test_beside_tests_that_are_no_functions(self, pytester: pytest.Pytester) -> None:
        """Doctests and unittest's classes run as ever."""
        code = '''
import unittest

class TestOld(unittest.TestCase):
    def test_it(self): pass

def double(number):
    """
    >>> double(2)
    4
    """
    return 2 * number
'''
        run(pytester, code, "--doctest-modules").assert_outcomes(passed=2)


class TestScript:
    """Faults that never happened."""

    def test_unused_faults_fail(self, pytester: pytest.Pytester) -> None:
        """A test that passes without them fails, and is told which."""
        code = """
@pytest.mark.piapi_faults("create", "429")
@pytest.mark.piapi_faults("get", "503", times=2)
async def test_it(piapi_emulator): pass
"""
        sentence = (
            "the test passed without scripted faults: create 429, get 503 (2 times); "
            "piapi_emulator.faults.clear() forgets them"
        )
        says(run(pytester, code), sentence, failed=1)

    def test_where_it_is_right(self, pytester: pytest.Pytester) -> None:
        """Faults that were cleared, and those that come by chance or always, need not happen."""
        code = """
@pytest.mark.piapi_faults("create", "429")
async def test_cleared(piapi_emulator):
    piapi_emulator.faults.clear()

@pytest.mark.piapi_faults("create", "429", probability=0.5)
async def test_chance(piapi_emulator):
    piapi_emulator.faults.always("get", "503")
"""
        run(pytester, code).assert_outcomes(passed=2)

    def test_a_failure_is_not_buried(self, pytester: pytest.Pytester) -> None:
        """A test that fails anyhow fails for its own reason."""
        code = """
@pytest.mark.piapi_faults("create", "429")
async def test_it(piapi_emulator):
    raise RuntimeError("its own")
"""
        result = run(pytester, code)
        says(result, "RuntimeError: its own", failed=1)
        assert "scripted" not in result.stdout.str()


def test_a_session_made_by_another_fixture_goes_to_the_emulator(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixture that makes a `Session()` and is named first never sees the key and the address of the real service."""
    monkeypatch.setenv("PIAPI_API_KEY", "a-real-key")
    pytester.makepyfile(
        """
        import pytest
        from piapi_async import Session

        @pytest.fixture
        def client():
            return Session()

        async def test_app(client, piapi_emulator):
            assert piapi_emulator.url in repr(client)
        """
    )
    pytester.runpytest_subprocess("-o", "asyncio_mode=auto").assert_outcomes(passed=1)
