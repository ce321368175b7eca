"""The app's tests: no key, no money, no network."""

from pathlib import Path

import pytest
from app import restyle

from piapi_async import TaskFailedError
from piapi_async.emulator import Constant, Emulator

pytestmark = pytest.mark.asyncio

PHOTO = "https://example.com/cat.jpg"


@pytest.mark.piapi_time("virtual")
@pytest.mark.piapi_emulator(durations=Constant(600))
@pytest.mark.piapi_faults("create", "429", retry_after=2)
@pytest.mark.piapi_faults("get", "503")
async def test_it_is_patient(piapi_emulator: Emulator, tmp_path: Path) -> None:
    """The app bears a refusal and an outage, waits ten minutes, and pays once."""
    path = await restyle(PHOTO, "Hokusai", tmp_path)

    assert path.read_bytes().startswith(b"\x89PNG")
    piapi_emulator.check.exactly(2, "create")  # one was refused
    piapi_emulator.check.exactly_tasks(1)
    piapi_emulator.check.charged_once_each()
    (task,) = piapi_emulator.tasks.values()
    assert task.ended_at is not None
    assert task.ended_at > 600  # and the test takes a moment


async def test_it_says_why(piapi_emulator: Emulator, tmp_path: Path) -> None:
    """The app tells the reason when a task fails, and leaves no file."""
    piapi_emulator.faults.next("create", "task-fails", reason="no bears today")

    with pytest.raises(TaskFailedError, match="no bears today"):
        await restyle(PHOTO, "Klimt", tmp_path)
    assert not list(tmp_path.iterdir())
