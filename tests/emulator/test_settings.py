"""Options that change while the emulator runs."""

from typing import Any

import pytest
from support.rig import Api, MakeApi

from piapi_async.emulator import Constant, Emulator, Options
from piapi_async.emulator._service.service import Service
from piapi_async.emulator._service.settings import FIXED, Settings


async def test_a_change_holds_from_the_next_request_on(api: Api) -> None:
    """The same task is shown in other words."""
    task_id = (await api.create())["task_id"]
    api.emulator.set(status_words="capitalised")
    assert (await api.get(task_id))["status"] == "Pending"
    assert api.emulator.options.status_words == "capitalised"


async def test_a_refusal_changes_its_transport_too(api: Api) -> None:
    """Nothing keeps a copy of what it was made with."""
    api.emulator.set(error_transport="code")
    reply = await api.send("GET", "/api/v1/task/unknown")
    assert (reply.status, reply.json["code"]) == (200, 404)


@pytest.mark.parametrize("name", FIXED)
def test_what_it_is_made_with_stays(name: str) -> None:
    """Five options cannot change; the sentence names the one that was tried."""
    with pytest.raises(ValueError, match=f"^{name} cannot change any more; it is chosen when the emulator is made$"):
        Settings(Options()).change(**{name: 1})


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"concurrency": 0}, ValueError), ({"output_shape": "list"}, ValueError), ({"concurency": 3}, TypeError)],
)
def test_a_bad_change_changes_nothing(changes: dict[str, Any], error: type[Exception]) -> None:
    """Values are checked as in the constructor, and one bad value spoils all of them."""
    settings = Settings(Options())
    with pytest.raises(error, match=next(iter(changes))):
        settings.change(result_life=5.0, **changes)
    assert settings.current == Options(durations=settings.current.durations)


def test_it_can_be_changed_before_it_runs() -> None:
    """No loop is needed."""
    emulator = Emulator(seed=3)
    emulator.set(concurrency=2)
    assert (emulator.options.seed, emulator.options.concurrency) == (3, 2)


async def test_more_places_help_from_now_on(make_api: MakeApi) -> None:
    """What waited starts when the places came, not when it could have started with them."""
    api = await make_api(concurrency=1, queue_delay=Constant(0.0))
    for _ in range(3):
        await api.create()
    api.clock.seconds = 4.0
    api.emulator.set(concurrency=2)
    assert [view.started_at for view in api.emulator.tasks.values()] == [0.0, 4.0, None]


async def test_fewer_places_turn_nobody_out(make_api: MakeApi) -> None:
    """Those that work go on; the next one starts when few enough are left."""
    api = await make_api(concurrency=2, queue_delay=Constant(0.0))
    for _ in range(3):
        await api.create()
        api.clock.seconds += 1.0
    api.emulator.set(concurrency=1)
    api.clock.seconds = 60.0
    assert [view.started_at for view in api.emulator.tasks.values()] == [0.0, 1.0, 11.0]


def test_a_service_without_a_server_can_change_too() -> None:
    """Nobody has to be told."""
    settings = Settings(Options())
    Service(settings).change(now=5.0, chaos=0.1)
    assert settings.current.chaos == 0.1
