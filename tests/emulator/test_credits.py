"""Points: freeze, consume, refund (section 6 of the facts)."""

import pytest
from support.rig import Api, MakeApi, img2img

from piapi_async.emulator import Charge

SCHNELL, DEV, ADVANCED = "Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced"


@pytest.mark.parametrize(
    ("model", "batch", "points"),
    [(SCHNELL, 1, 15_000), (SCHNELL, 4, 60_000), (DEV, 1, 150_000), (ADVANCED, 1, 200_000)],
)
async def test_a_completed_task_costs_its_price(make_api: MakeApi, model: str, batch: int, points: int) -> None:
    """6.1: 0.0015 USD x batch_size, 0.015 and 0.02 USD, at 10,000,000 points per USD."""
    api = await make_api(credits=1_000_000)
    data = await api.finished(img2img(model, batch_size=batch))
    assert data["meta"]["usage"] == {"type": "llm", "frozen": 0, "consume": points}
    assert api.emulator.credits == 1_000_000 - points
    charge = Charge(task_id=data["task_id"], model=model, task_type="img2img", points=points, time=11.0)
    assert api.emulator.charges == (charge,)
    assert api.emulator.tasks[data["task_id"]].cost == points


async def test_points_are_frozen_until_the_task_is_over(make_api: MakeApi) -> None:
    """6.2: freeze, then consume; nothing is charged while the task lives."""
    api = await make_api(credits=100_000)
    data = await api.create()
    assert api.emulator.credits == 85_000
    assert api.emulator.charges == ()
    assert api.emulator.tasks[data["task_id"]].cost == 0


async def test_a_failed_task_gives_its_points_back(make_api: MakeApi) -> None:
    """6.2 (T): only successful tasks consume credits."""
    api = await make_api(credits=100_000)
    api.emulator.faults.next("create", "task-fails")
    data = await api.finished()
    assert data["meta"]["usage"]["consume"] == 0
    assert (api.emulator.credits, api.emulator.charges) == (100_000, ())


async def test_a_canceled_task_gives_its_points_back(make_api: MakeApi) -> None:
    """6.2: a task that never ran costs nothing, and gives back once only."""
    api = await make_api(credits=100_000)
    task_id = (await api.create())["task_id"]
    await api.send("DELETE", f"/api/v1/task/{task_id}")
    api.clock.seconds = 3600
    assert (api.emulator.credits, api.emulator.charges) == (100_000, ())


async def test_a_task_that_cannot_be_paid_is_refused(make_api: MakeApi) -> None:
    """4.8 (T, two sources): "failed to freeze point"; what is frozen cannot be spent a second time."""
    api = await make_api(credits=29_999)
    await api.create()
    reply = await api.send("POST", "/api/v1/task", json=img2img())
    assert (reply.status, reply.json["message"]) == (402, "failed to freeze point")
    assert len(api.emulator.tasks) == 1
    assert api.emulator.credits == 14_999


async def test_looking_costs_nothing(api: Api) -> None:
    """Polls are counted and free."""
    data = await api.finished()
    for _ in range(3):
        await api.get(data["task_id"])
    assert len(api.emulator.charges) == 1
    assert api.emulator.tasks[data["task_id"]].polls == 4
