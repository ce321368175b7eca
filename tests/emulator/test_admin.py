"""The admin endpoints: who may use them, what they tell, what they change."""

import asyncio
import io
import itertools
import json
from typing import Any

import aiohttp
import attrs
import pytest
from PIL import Image
from support.rig import Api, MakeApi, data_uri, img2img, picture

from piapi_async.emulator import Constant, Emulator, Options, Uniform


async def state(api: Api, **query: Any) -> Any:
    """What GET state says."""
    reply = await api.send("GET", "/_emulator/state", params=query, headers={})
    assert reply.status == 200, reply
    return reply.json


async def post(api: Api, path: str, body: Any) -> Any:
    """What a POST is answered, if it is well."""
    reply = await api.send("POST", f"/_emulator/{path}", json=body, headers={})
    assert reply.status == 200, reply
    return reply.json


async def test_the_state_is_flat_and_complete(api: Api) -> None:
    """What a page needs, in numbers and words; newest first."""
    done = await api.finished(img2img(batch_size=2))
    api.emulator.faults.next("create", "task-fails", reason="no luck")
    failed = await api.finished()
    api.emulator.faults.next("get", "503")
    waiting = await api.create()
    seen = await state(api)
    assert seen["now"] == 7200.0
    assert (seen["credits"], seen["charged"], seen["charges"]) == (api.emulator.credits, 30_000, 1)
    assert seen["counts"] == {"pending": 1, "processing": 0, "completed": 1, "failed": 1, "canceled": 0}
    assert seen["asked"] == {"create": 3, "get": 2}
    assert seen["faults"] == [{"endpoint": "get", "name": "503", "probability": None}]
    assert [task["task_id"] for task in seen["tasks"]] == [waiting["task_id"], failed["task_id"], done["task_id"]]
    assert seen["tasks"][1]["reason"] == "no luck"
    assert seen["tasks"][2] == {
        "task_id": done["task_id"],
        "model": "Qubico/flux1-schnell",
        "task_type": "img2img",
        "status": "completed",
        "prompt": "a bear",
        "created_at": 0.0,
        "started_at": 1.0,
        "ended_at": 11.0,
        "cost": 30_000,
        "polls": 1,
        "reason": None,
        "pictures": [f"/_emulator/picture/{done['task_id']}/0", f"/_emulator/picture/{done['task_id']}/1"],
    }
    record = api.emulator.requests[-1]
    assert seen["requests"][0] == {
        "time": 7200.0,
        "method": "POST",
        "path": "/api/v1/task",
        "endpoint": "create",
        "task_id": waiting["task_id"],
        "status": 200,
        "outcome": "answered",
        "fault": None,
        "refusal": None,
        "fingerprint": record.fingerprint,
    }
    assert len(seen["requests"]) == 5


async def test_the_state_names_every_option(api: Api) -> None:
    """What is no JSON is shown as Python writes it."""
    options = (await state(api))["options"]
    assert options.keys() == attrs.fields_dict(Options).keys()
    assert (options["chaos"], options["durations"], options["progress"]) == (0.0, "Constant(seconds=10.0)", "time")


async def test_durations_by_model_are_shown_by_model(make_api: MakeApi) -> None:
    """A pair of model and task type becomes one word."""
    durations = {"Qubico/flux1-dev": Constant(1.0), ("Qubico/flux1-dev", "img2img"): Constant(2.0)}
    shown = (await state(await make_api(durations=durations)))["options"]["durations"]
    assert shown == {
        "Qubico/flux1-dev": "Constant(seconds=1.0)",
        "Qubico/flux1-dev/img2img": "Constant(seconds=2.0)",
    }


async def test_the_state_has_a_bound(api: Api) -> None:
    """As many tasks and requests as were asked for."""
    for _ in range(4):
        await api.create()
    seen = await state(api, most=2)
    assert (len(seen["tasks"]), len(seen["requests"]), seen["counts"]["pending"]) == (2, 2, 4)
    assert (await state(api, most=-1))["tasks"] == []


async def test_nothing_here_leaves_a_trace_or_meets_a_fault(make_api: MakeApi) -> None:
    """Not in the ledger, no key, no chaos; what is not here is not PiAPI's 404 either."""
    api = await make_api(chaos=1.0)
    for _ in range(20):
        await state(api)
    reply = await api.send("PUT", "/_emulator/whatever", headers={})
    assert (reply.status, reply.json["error"][:8]) == (404, "there is")
    assert api.emulator.requests == ()
    api.emulator.check.exactly(0, "unknown")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "rebound.example:80"},
        {"Host": "127.0.0.1.example"},
        {"Host": "192.168.0.2"},
        {"Origin": "https://example.com"},
        {"Origin": "http://localhost:1"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "state"), ("GET", "events"), ("POST", "options")])
async def test_a_page_of_another_site_is_refused(api: Api, headers: dict[str, str], method: str, path: str) -> None:
    """Whether it comes under its own name (DNS rebinding), or asks across origins."""
    reply = await api.send(method, f"/_emulator/{path}", headers=headers, json={"chaos": 1})
    assert reply.status == 403
    assert reply.json == {"error": "this is only for this machine: http://127.0.0.1 or http://localhost"}
    assert api.emulator.options.chaos == 0


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_its_own_page_is_welcome(api: Api, name: str) -> None:
    """A browser sends Origin with a POST to the same origin too."""
    url = api.emulator.url.replace("127.0.0.1", name)
    reply = await api.send("POST", url + "/_emulator/options", headers={"Origin": url}, json={"chaos": 1})
    assert (reply.status, api.emulator.options.chaos) == (200, 1)


async def test_a_form_is_refused(api: Api) -> None:
    """Old browsers send a form across sites without saying so; it cannot call itself JSON."""
    reply = await api.send("POST", "/_emulator/options", data='{"chaos": 1}', headers={"Content-Type": "text/plain"})
    assert (reply.status, reply.json) == (415, {"error": "the body must be application/json"})


async def test_options_can_be_changed(api: Api) -> None:
    """From the next request on; seconds and pairs of seconds stand for durations."""
    answer = await post(
        api, "options", {"chaos": 0.5, "status_words": "capitalised", "durations": 3, "queue_delay": [1, 2]}
    )
    options = api.emulator.options
    assert (options.chaos, options.status_words) == (0.5, "capitalised")
    assert (options.durations, options.queue_delay) == (Constant(3), Uniform(1, 2))
    assert answer["options"]["chaos"] == 0.5


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"chaos": 2}, "'chaos' must be <= 1: 2"),
        ({"chaos": "much"}, "not supported"),
        ({"progress": "quickly"}, "'progress' must be in"),
        ({"status_words": 5}, "status_words is 5, not lowercase"),
        ({"seed": 5}, "seed cannot change any more"),
        ({"sede": 5}, "there is no option 'sede'"),
        ({"durations": "long"}, "durations is 'long', it must be seconds or [low, high]"),
        ({"queue_delay": [1, 2, 3]}, "queue_delay is [1, 2, 3], it must be"),
        ({"queue_delay": [2, 1]}, "high is 1, less than low"),
        ([], "the body must be an object"),
    ],
)
async def test_bad_options_are_refused_in_a_sentence(api: Api, body: Any, sentence: str) -> None:
    """400, and nothing changed."""
    before = api.emulator.options
    reply = await api.send("POST", "/_emulator/options", json=body, headers={})
    assert reply.status == 400
    assert sentence in reply.json["error"]
    assert api.emulator.options is before


async def test_what_is_no_json_is_refused(api: Api) -> None:
    """400."""
    headers = {"Content-Type": "application/json"}
    reply = await api.send("POST", "/_emulator/options", data="{", headers=headers)
    assert reply.status == 400
    assert (await api.send("GET", "/_emulator/state", params={"most": "all"})).status == 400


async def test_faults_can_be_scripted_and_cleared(api: Api) -> None:
    """As with `next` and `often`."""
    await post(api, "faults", {"endpoint": "get", "name": "429", "times": 2, "retry_after": None})
    answer = await post(api, "faults", {"endpoint": "create", "name": "503", "probability": 1})
    assert answer["faults"] == [
        {"endpoint": "get", "name": "429", "probability": None},
        {"endpoint": "get", "name": "429", "probability": None},
        {"endpoint": "create", "name": "503", "probability": 1},
    ]
    reply = await api.send("GET", "/api/v1/task/x")
    assert (reply.status, "Retry-After" in reply.headers) == (429, False)
    cleared = await api.send("DELETE", "/_emulator/faults", headers={})
    assert cleared.json == {"faults": []}
    await api.create()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"endpoint": "get"}, "name is None, it must be a word"),
        ({"endpoint": ["get"], "name": "503"}, "endpoint is ['get'], it must be a word"),
        ({"endpoint": "get", "name": "explode"}, "'explode' is no fault"),
        ({"endpoint": "get", "name": "503", "probability": 3}, "probability is 3"),
    ],
)
async def test_bad_faults_are_refused_in_a_sentence(api: Api, body: Any, sentence: str) -> None:
    """400, and nothing is planned."""
    reply = await api.send("POST", "/_emulator/faults", json=body, headers={})
    assert (reply.status, api.emulator.faults.planned()) == (400, [])
    assert sentence in reply.json["error"]


async def test_tasks_can_be_moved(make_api: MakeApi) -> None:
    """Started, finished and failed, as by the methods of the emulator."""
    api = await make_api(progress="manual")
    first, second, third = [(await api.create())["task_id"] for _ in range(3)]
    assert (await post(api, f"tasks/{first}", {"action": "start"}))["task"]["status"] == "processing"
    assert (await post(api, f"tasks/{first}", {"action": "finish"}))["task"]["status"] == "completed"
    answer = await post(api, f"tasks/{second}", {"action": "fail", "reason": "no luck"})
    assert (answer["task"]["status"], answer["task"]["reason"]) == ("failed", "no luck")
    answer = await post(api, f"tasks/{third}", {"action": "fail"})
    assert answer["task"]["reason"] == "somebody wanted it to fail"


@pytest.mark.parametrize(
    ("task_id", "body", "status", "sentence"),
    [
        (None, {"action": "explode"}, 400, "'explode' is no action; there is start, finish, fail"),
        (None, {}, 400, "action is None, it must be a word"),
        ("unknown", {"action": "finish"}, 404, "there is no task unknown"),
    ],
)
async def test_tasks_cannot_be_moved_otherwise(
    api: Api, task_id: str | None, body: Any, status: int, sentence: str
) -> None:
    """An action or a task that does not exist."""
    task_id = task_id or (await api.create())["task_id"]
    reply = await api.send("POST", f"/_emulator/tasks/{task_id}", json=body, headers={})
    assert (reply.status, reply.json) == (status, {"error": sentence})


async def test_a_task_that_is_over_cannot_be_moved(api: Api) -> None:
    """400, in the words of the emulator's method."""
    task_id = (await api.finished())["task_id"]
    reply = await api.send("POST", f"/_emulator/tasks/{task_id}", json={"action": "fail"}, headers={})
    assert (reply.status, reply.json) == (400, {"error": f"task {task_id} is completed already"})


async def test_pictures_can_be_seen_without_a_trace(api: Api) -> None:
    """The same as behind the link, and the ledger does not know."""
    data = await api.finished()
    (path,) = (await state(api))["tasks"][0]["pictures"]
    seen = await api.send("GET", path, headers={})
    assert len(api.emulator.requests) == 2
    assert seen.body == (await api.send("GET", data["output"]["image_url"])).body


async def test_pictures_that_are_not_there_cannot_be_seen(api: Api) -> None:
    """Of a task that is not over, or beyond its last, or of no task."""
    task_id = (await api.create())["task_id"]
    for path in (f"{task_id}/0", "unknown/0"):
        assert (await api.send("GET", f"/_emulator/picture/{path}", headers={})).status == 404
    api.clock.seconds += 100
    for item, status in (("0", 200), ("1", 404), ("-1", 404), ("x", 404)):
        assert (await api.send("GET", f"/_emulator/picture/{task_id}/{item}", headers={})).status == status


async def test_the_input_can_be_seen_small(api: Api) -> None:
    """The picture that was sent, or the landscape that stands for one that is elsewhere."""
    for image in (data_uri(picture((800, 400))), "https://example.com/a.jpg"):
        task_id = (await api.create(img2img(image=image)))["task_id"]
        reply = await api.send("GET", f"/_emulator/input/{task_id}", headers={})
        with Image.open(io.BytesIO(reply.body)) as small:
            assert (small.format, max(small.size)) == ("PNG", 256)
    assert len(api.emulator.requests) == 2


async def test_an_input_that_cannot_be_had_is_a_404(make_api: MakeApi) -> None:
    """It is elsewhere, and nothing may stand for it."""
    api = await make_api(unreachable_images="fail")
    task_id = (await api.create())["task_id"]
    assert (await api.send("GET", f"/_emulator/input/{task_id}", headers={})).status == 404


async def test_a_task_without_an_image_has_no_thumbnail(api: Api) -> None:
    """As one made from words alone."""
    task_id = (await api.create())["task_id"]
    api.emulator._service.tasks[task_id].input = {"prompt": "a bear", "image": ""}
    assert (await api.send("GET", f"/_emulator/input/{task_id}", headers={})).status == 404


async def events(response: aiohttp.ClientResponse, *, count: int) -> list[Any]:
    """So many server-sent events."""
    found = []
    async for line in response.content:
        if line.startswith(b"data: "):
            found.append(json.loads(line.removeprefix(b"data: ")))
        if len(found) == count:
            break
    return found


async def test_events_tell_the_state_at_once_and_after_a_change(api: Api) -> None:
    """One event to begin with, none while nothing happens, one for many changes at once."""
    async with api.http.get(api.emulator.url + "/_emulator/events") as response:
        assert response.content_type == "text/event-stream"
        (first,) = await events(response, count=1)
        assert first["tasks"] == []
        api.emulator.set(chaos=0.1)
        api.emulator.set(chaos=0.2)
        (second,) = await events(response, count=1)
        assert second["options"]["chaos"] == 0.2


async def test_events_come_while_tasks_live_and_stop_when_all_are_over() -> None:
    """Five a second, so that a page can draw time; an idle emulator is silent."""
    async with (
        Emulator(durations=Constant(1.0), queue_delay=Constant(0.5)) as emulator,
        aiohttp.ClientSession(headers={"X-API-Key": emulator.api_key}) as http,
        http.get(emulator.url + "/_emulator/events") as response,
    ):
        await events(response, count=1)
        (await http.post(emulator.url + "/api/v1/task", json=img2img())).close()
        seen = await events(response, count=8)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(events(response, count=1), 60.0)
    statuses = [event["tasks"][0]["status"] for event in seen]
    assert statuses == sorted(statuses, key=["pending", "processing", "completed"].index)
    assert (statuses[0], statuses.count("processing"), statuses[-1]) == ("pending", 5, "completed")
    gaps = [later["now"] - earlier["now"] for earlier, later in itertools.pairwise(seen)]
    assert all(0.19 < gap < 0.25 for gap in gaps)


async def test_closing_does_not_wait_for_those_who_watch(api: Api) -> None:
    """An open page does not keep the emulator alive."""
    async with api.http.get(api.emulator.url + "/_emulator/events") as response:
        await events(response, count=1)
        await asyncio.wait_for(api.emulator.aclose(), 0.2)


async def test_state_without_a_bound_is_json() -> None:
    """A setting without a bound, such as results that live for ever, is still JSON that every reader understands."""
    async with Emulator(result_life=float("inf")) as emulator, aiohttp.ClientSession() as http:
        async with http.get(f"{emulator.url}/_emulator/state") as response:
            assert json.loads(await response.text(), parse_constant=pytest.fail)["options"]["result_life"] == "inf"
