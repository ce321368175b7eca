"""What all tests share: virtual time for async tests, and an environment without the user's settings."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from piapi_async.testing import VirtualTimeLoop

if TYPE_CHECKING:
    from support.ground import Ground

REAL_TIME = "real_time: run this async test on an ordinary event loop; all others run on a VirtualTimeLoop"

# A machine that is busy with other things is no reason for a property to fail.
hypothesis.settings.register_profile("piapi_async", deadline=None)
hypothesis.settings.load_profile("piapi_async")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known to `--strict-markers`."""
    config.addinivalue_line("markers", REAL_TIME)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose each async test's event loop: virtual time, unless the test is marked `real_time`."""
    if item.get_closest_marker("real_time") is not None:
        return {"real": asyncio.SelectorEventLoop}
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
    from support.ground import Ground

    monkeypatch.chdir(tmp_path)
    ground = Ground(monkeypatch)
    yield ground
    for runner in ground.runners:
        runner.close()
