"""What all tests share: virtual time for async tests, and an environment without the user's settings."""

import asyncio
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from piapi_async.testing import VirtualTimeLoop

if TYPE_CHECKING:
    from ground import Ground

EMULATOR_TESTS = Path(__file__).parent / "emulator"

MARKERS = (
    "still_time: run this async test on a loop whose time passes by waiting alone, however busy the machine is",
    "real_time: run this async test on an ordinary event loop, whose time passes as it does outside",
    "virtual_time: run this async test on a loop that jumps over idle time (the default, except in tests/emulator)",
)


class StillTimeLoop(VirtualTimeLoop):
    """A loop whose time passes by waiting alone, for what is to be known to a hundredth of a second."""

    def __init__(self) -> None:
        self._readings = 0
        super().__init__()

    def time(self) -> float:
        """A hair later at each reading, for no two things happen at once."""
        self._readings += 1
        return 1e-7 * self._readings + self._ahead

    def call_at(self, when: float, *others: Any, **more: Any) -> asyncio.TimerHandle:
        """At whole milliseconds: the selector does not jump to what is due in less than half of one."""
        return super().call_at(math.ceil(1000 * when) / 1000, *others, **more)


# A machine that is busy with other things is no reason for a property to fail.
hypothesis.settings.register_profile("piapi_async", deadline=None)
hypothesis.settings.load_profile("piapi_async")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known to `--strict-markers`."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose each async test's event loop: by its marker, else virtual time, but real time in tests/emulator."""
    real = item.get_closest_marker("real_time") is not None
    virtual = item.get_closest_marker("virtual_time") is not None
    if real or (EMULATOR_TESTS in item.path.parents and not virtual):
        return {"real": asyncio.SelectorEventLoop}
    if item.get_closest_marker("still_time") is not None:
        return {"still": StillTimeLoop}
    return {"virtual": VirtualTimeLoop}


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Take the PIAPI_* variables of whoever runs the tests out of the way; a test sets its own by `monkeypatch`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PIAPI_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def heed_ctrl_c() -> Iterator[None]:
    """Heed signals, here and in child processes, also where a shell started the tests in the background."""
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    before |= {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Iterator[Ground]":
    """A fresh emulator for commands, and an empty directory to work in."""
    from ground import Ground

    monkeypatch.chdir(tmp_path)
    ground = Ground(monkeypatch)
    yield ground
    for runner in ground.runners:
        runner.close()
