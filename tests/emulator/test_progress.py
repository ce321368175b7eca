"""How tasks get to their end: by time, at once, by polls, or by hand."""

from typing import Any

import pytest
from support.rig import Api, MakeApi

from piapi_async.emulator import Constant, Emulator


async def statuses(api: Api, *, polls: int) -> list[str]:
    """What a new task shows when it is created and at each of so many polls."""
    task = await api.create()
    return [task["status"], *[(await api.get(task["task_id"]))["status"] for _ in range(polls)]]


async def test_at_once_the_first_poll_shows_the_end(make_api: MakeApi) -> None:
    """The clock stands still, and the task is over; it was pending in the answer to its create."""
    api = await make_api(progress="at-once")
    assert await statuses(api, polls=1) == ["pending", "completed"]
    assert api.clock.seconds == 0
    assert len(api.emulator.charges) == 1


@pytest.mark.parametrize(
    ("polls", "shown"),
    [
        (1, ["completed", "completed"]),
        (2, ["processing", "completed", "completed"]),
        (3, ["pending", "processing", "completed"]),
        (5, ["pending", "processing", "processing", "processing", "completed"]),
    ],
)
async def test_a_task_may_be_over_at_its_nth_poll(make_api: MakeApi, polls: int, shown: list[str]) -> None:
    """Time alone does nothing; the nth poll that reaches the task shows its end, and ends it then."""
    api = await make_api(progress="polls", polls=polls)
    api.clock.seconds = 1e6
    assert await statuses(api, polls=len(shown)) == ["pending", *shown]
    (view,) = api.emulator.tasks.values()
    assert (view.started_at, view.ended_at) == (1e6, 1e6)


async def test_a_poll_that_a_fault_kept_away_does_not_count(make_api: MakeApi) -> None:
    """Only a poll that was made is one."""
    api = await make_api(progress="polls", polls=1)
    task_id = (await api.create())["task_id"]
    api.emulator.faults.next("get", "503")
    await api.send("GET", f"/api/v1/task/{task_id}")
    assert api.emulator.tasks[task_id].status == "pending"
    assert (await api.get(task_id))["status"] == "completed"


async def test_a_canceled_task_is_over_whatever_the_polls(make_api: MakeApi) -> None:
    """Polls do not bring it back."""
    api = await make_api(progress="polls", polls=1)
    task_id = (await api.create())["task_id"]
    await api.send("DELETE", f"/api/v1/task/{task_id}")
    assert (await api.get(task_id))["status"] == "canceled"


@pytest.mark.parametrize("progress", ["time", "at-once", "polls"])
async def test_a_stalled_task_stalls_whatever_the_progress(make_api: MakeApi, progress: str) -> None:
    """`task-stalls` is stronger than any of them but the hand."""
    api = await make_api(progress=progress)
    api.emulator.faults.next("create", "task-stalls")
    task_id = (await api.create())["task_id"]
    api.clock.seconds = 1e6
    assert [(await api.get(task_id))["status"] for _ in range(4)][-1] == "processing"
    api.emulator.finish(task_id)
    assert (await api.get(task_id))["status"] == "completed"


async def test_a_task_may_move_only_when_told(make_api: MakeApi) -> None:
    """Neither time nor polls do anything; three methods do, at the time they are called."""
    api = await make_api(progress="manual")
    first, second = [(await api.create())["task_id"] for _ in range(2)]
    api.clock.seconds = 1e6
    assert (await api.get(first))["status"] == "pending"
    api.emulator.start_task(first)
    assert (await api.get(first))["status"] == "processing"
    api.clock.seconds += 5
    api.emulator.finish(first)
    api.emulator.fail(second, reason="no luck", where="logs", code=7)
    assert (await api.get(first))["status"] == "completed"
    data = await api.get(second)
    assert (data["status"], data["logs"], data["error"]["code"]) == ("failed", ["no luck"], 7)
    view = api.emulator.tasks[first]
    assert (view.started_at, view.ended_at) == (1e6, 1e6 + 5)
    assert [charge.task_id for charge in api.emulator.charges] == [first]


async def test_the_hand_is_stronger_than_time(api: Api) -> None:
    """A task that was to take its time, or to fail, completes when it is told to; the others keep their turns."""
    api.emulator.faults.next("create", "task-fails")
    first, second, third = [(await api.create())["task_id"] for _ in range(3)]
    api.emulator.finish(first)
    api.clock.seconds = 2.0
    api.emulator.finish(second)
    api.clock.seconds = 100.0
    ends = {task_id: (view.status, view.ended_at) for task_id, view in api.emulator.tasks.items()}
    assert ends == {first: ("completed", 0.0), second: ("completed", 2.0), third: ("completed", 11.0)}


async def test_a_place_that_the_hand_made_free_is_used_from_then_on(make_api: MakeApi) -> None:
    """The next in the queue starts when the hand ended the first."""
    api = await make_api(concurrency=1, queue_delay=Constant(0.0))
    first, second = [(await api.create())["task_id"] for _ in range(2)]
    api.clock.seconds = 4.0
    api.emulator.finish(first)
    assert api.emulator.tasks[second].started_at == 4.0


async def test_the_hand_needs_a_task_that_can_be_moved(api: Api) -> None:
    """What is over cannot end, what has started cannot start, what is not there cannot do either."""
    task_id = (await api.create())["task_id"]
    api.emulator.start_task(task_id)
    with pytest.raises(ValueError, match=f"task {task_id} is processing, only a pending task can be started"):
        api.emulator.start_task(task_id)
    api.emulator.finish(task_id)
    for move in (api.emulator.start_task, api.emulator.finish, api.emulator.fail):
        with pytest.raises(ValueError, match=f"task {task_id} is completed already"):
            move(task_id)
    with pytest.raises(ValueError, match="there is no task x"):
        api.emulator.finish("x")


async def test_progress_can_change_for_the_tasks_to_come(api: Api) -> None:
    """A task keeps the progress it was accepted with."""
    before = (await api.create())["task_id"]
    api.emulator.set(progress="at-once")
    after = (await api.create())["task_id"]
    views = api.emulator.tasks
    assert (views[before].status, views[after].status) == ("pending", "completed")


@pytest.mark.parametrize("options", [{"progress": "quickly"}, {"polls": 0}, {"chaos": 1.5}, {"chaos": -0.1}])
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    """A word that is none, no polls at all, and a probability that is none."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Emulator(**options)


async def test_ids_do_not_depend_on_the_progress(make_api: MakeApi) -> None:
    """The same seed gives the same ids and links, however tasks end."""
    ids = []
    for progress in ("time", "at-once", "polls", "manual"):
        api = await make_api(progress=progress)
        ids.append([(await api.create())["task_id"] for _ in range(3)])
    assert ids[0] == ids[1] == ids[2] == ids[3]
