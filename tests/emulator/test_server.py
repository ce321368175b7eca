"""The emulator as a server: starting, stopping, and what it tells about itself."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import attrs
import pytest
from support.rig import Api, HandClock, MakeApi, img2img

from piapi_async.emulator import Constant, Emulator, Options
from piapi_async.emulator._service.service import Service
from piapi_async.emulator._service.settings import Settings
from piapi_async.emulator._service.validation import read_submission


async def test_it_listens_on_loopback_under_a_free_port() -> None:
    """Two emulators at once do not meet; nobody else can reach them."""
    async with Emulator() as one, Emulator() as other:
        assert one.url.startswith("http://127.0.0.1:")
        assert one.url != other.url
        assert repr(one) == f"<Emulator on {one.url}, tasks=0, seed=0>"
    assert repr(one) == "<Emulator not running, tasks=0, seed=0>"


def test_the_constructor_does_nothing_but_remember() -> None:
    """No loop, no socket; what it would answer now is nothing."""
    emulator = Emulator(seed=3, credits=5, api_key="k")
    assert (len(emulator.tasks), emulator.requests, emulator.charges, emulator.credits) == (0, (), (), 5)
    assert (emulator.api_key, emulator.options.seed) == ("k", 3)


async def test_starting_twice_is_a_mistake() -> None:
    """A second start would leave the first server running for ever."""
    async with Emulator() as emulator:
        with pytest.raises(RuntimeError, match=f"already running on {emulator.url}"):
            await emulator.start()


async def test_a_taken_port_is_told_and_can_be_tried_again() -> None:
    """After an OSError nothing is half open."""
    async with Emulator() as first:
        second = Emulator(port=int(first.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            await second.start()
        assert "not running" in repr(second)
    async with second:
        assert second.url == first.url


async def test_closing_does_not_wait_for_stalled_requests(api: Api) -> None:
    """Closing takes less than 0.2 s whatever hangs, and may be done twice."""
    api.emulator.faults.next("create", "stall")
    pending = asyncio.create_task(api.create())
    await asyncio.sleep(0.05)
    assert len(api.emulator.requests) == 1
    began = time.perf_counter()
    await api.emulator.aclose()
    await api.emulator.aclose()
    assert time.perf_counter() - began < 0.2
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await pending


def test_it_can_be_asked_when_its_loop_is_gone_and_be_started_in_another() -> None:
    """A test may look at it after `asyncio.run`; tasks go on living where its time stood still."""
    clock = HandClock()
    emulator = Emulator(clock=clock, durations=Constant(10.0), queue_delay=Constant(0.0))

    async def run(after: float) -> None:
        async with emulator, aiohttp.ClientSession(headers={"X-API-Key": emulator.api_key}) as http:
            await http.post(emulator.url + "/api/v1/task", json=img2img())
            clock.seconds += after

    asyncio.run(run(4))
    clock.seconds = 1e6
    assert [view.status for view in emulator.tasks.values()] == ["processing"]
    asyncio.run(run(7))
    assert [view.status for view in emulator.tasks.values()] == ["completed", "processing"]
    assert [view.created_at for view in emulator.tasks.values()] == [0.0, 4.0]


async def test_every_request_is_recorded(api: Api) -> None:
    """Method, path, endpoint, task and status of each, in order."""
    data = await api.finished()
    await api.send("DELETE", f"/api/v1/task/{data['task_id']}")
    await api.send("GET", data["output"]["image_url"])
    await api.send("GET", "/nowhere")
    seen = [(r.method, r.endpoint, r.task_id == data["task_id"], r.status) for r in api.emulator.requests]
    assert seen == [
        ("POST", "create", True, 200),
        ("GET", "get", True, 200),
        ("DELETE", "cancel", True, 400),
        ("GET", "result", True, 200),
        ("GET", "unknown", False, 404),
    ]
    assert [record.time for record in api.emulator.requests] == [0.0, 3600.0, 3600.0, 3600.0, 3600.0]
    assert api.emulator.requests[2].refusal == (
        f"task {data['task_id']} is completed, only a pending task can be canceled"
    )


@pytest.mark.parametrize(
    ("headers", "had_key"), [({}, False), ({"x-api-key": "secret"}, True), ({"Authorization": "secret"}, True)]
)
async def test_results_need_no_key_and_the_record_tells_who_sent_one(
    api: Api, headers: dict[str, str], had_key: bool
) -> None:
    """Downloading must not send the key (B-SAVE); a test can see whether a client did, but not the key."""
    link = (await api.finished())["output"]["image_url"]
    reply = await api.send("GET", link, headers={**headers, "X-Other": "kept"})
    record = api.emulator.requests[-1]
    assert (reply.status, record.had_key, record.headers["X-Other"]) == (200, had_key, "kept")
    assert "secret" not in str(attrs.asdict(record))


async def test_old_records_and_tasks_make_room_for_new_ones(make_api: MakeApi) -> None:
    """Memory has a bound: the oldest are forgotten, and a forgotten task is a 404."""
    api = await make_api(keep_requests=2, keep_tasks=2)
    ids = [(await api.finished())["task_id"] for _ in range(3)]
    assert len(api.emulator.requests) == 2
    assert list(api.emulator.tasks) == ids[1:]
    assert (await api.send("GET", f"/api/v1/task/{ids[0]}")).status == 404
    assert len(api.emulator.charges) == 3


async def test_the_same_picture_is_held_once(api: Api) -> None:
    """A thousand tasks with one data URI hold one string; short strings and other values are left alone."""
    uri = "data:image/png;base64," + "A" * 2000
    controls = [{"control_type": "depth", "control_image": uri}]
    task = img2img("Qubico/flux1-dev-advanced", image=uri, control_net_settings=controls)
    for _ in range(2):
        await api.create({**task, "task_type": "controlnet-lora"})
    first, second = (view.input for view in api.emulator.tasks.values())
    assert first["image"] is second["image"] is second["control_net_settings"][0]["control_image"]
    assert first["image"] == uri


async def test_only_the_last_different_pictures_are_remembered_as_shared(make_api: MakeApi) -> None:
    """What many different tasks sent is not kept twice, and not kept for ever either."""
    api = await make_api(keep_tasks=1)
    for i in range(70):
        await api.create(img2img(image="https://example.com/" + "a" * 1500 + str(i)))
    assert len(api.emulator._service._texts._seen) == 64


async def test_the_same_seed_gives_the_same_ids_durations_and_links(make_api: MakeApi) -> None:
    """Everything random comes from the seed and the number of the task."""

    async def run(seed: int) -> list[Any]:
        api = await make_api(seed, durations={}, queue_delay=Options().queue_delay)
        done = [await api.finished(img2img(batch_size=2)) for _ in range(3)]
        return [(data["task_id"], data["meta"], data["output"]["image_urls"][0][-40:]) for data in done]

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)


async def test_what_a_task_gets_does_not_depend_on_what_was_refused_or_looked_at_between(make_api: MakeApi) -> None:
    """The n-th accepted task is the n-th accepted task."""
    calm, busy = await make_api(), await make_api()
    await busy.send("POST", "/api/v1/task", json=img2img(denoise=7))
    for api in (calm, busy):
        await api.get((await api.create())["task_id"]) if api is busy else await api.create()
        await api.create()
    assert list(calm.emulator.tasks) == list(busy.emulator.tasks)


async def test_two_emulators_share_nothing(make_api: MakeApi) -> None:
    """State is per instance: a task of one is unknown to the other."""
    one, other = await make_api(1), await make_api(2)
    task_id = (await one.create())["task_id"]
    one.emulator.faults.next("get", "500")
    assert (await other.send("GET", f"/api/v1/task/{task_id}")).status == 404
    assert (len(other.emulator.tasks), other.emulator.charges) == (0, ())


@pytest.mark.parametrize(
    "options",
    [
        {"port": -1},
        {"concurrency": 0},
        {"credits": -1},
        {"result_life": -1.0},
        {"unreachable_images": "ignore"},
        {"output_shape": "list"},
        {"error_transport": "pigeon"},
        {"plan": "gold"},
        {"time_digits": 10},
        {"webhook_attempts": 0},
        {"status_words": "shouted"},
        {"status_words": {"done": "completed"}},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """A bad setting is told before anything starts."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Emulator(**options)


def test_an_unknown_option_is_refused() -> None:
    """A misspelt keyword is a TypeError, as for any function."""
    with pytest.raises(TypeError, match="concurency"):
        Emulator(concurency=3)


async def test_it_follows_the_time_of_its_loop() -> None:
    """On a loop whose time jumps, a task of ten minutes is over at once."""
    async with (
        Emulator(durations=Constant(600.0), queue_delay=Constant(0.0)) as emulator,
        aiohttp.ClientSession(headers={"X-API-Key": emulator.api_key}) as http,
    ):
        (await http.post(emulator.url + "/api/v1/task", json=img2img())).close()
        await asyncio.sleep(601)
        assert [view.status for view in emulator.tasks.values()] == ["completed"]


def test_twenty_thousand_tasks_stay_calm() -> None:
    """A poll of one task among 20,000 does not go through the others: 5,000 polls in far less than two seconds."""
    service = Service(Settings(Options(concurrency=500)))
    submission = read_submission(json.dumps(img2img()).encode())
    ids = [service.create(submission, now=i / 100).task_id for i in range(20_000)]
    began = time.process_time()
    for i, task_id in enumerate(ids[::4]):
        service.poll(task_id, now=200 + i / 100)
    assert time.process_time() - began < 1
