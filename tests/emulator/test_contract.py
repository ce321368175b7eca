"""Answers of the three task endpoints, held against the documented examples (sections 1, 4 and 6 of the facts)."""

import re
import uuid
from typing import Any

import pytest
from support.rig import Api, MakeApi, img2img

SECRET = {"webhook_config": {"endpoint": "https://webhook.site/xxxx", "secret": "s3cret"}}


async def test_create_answers_like_the_documented_example(api: Api) -> None:
    """4.1: envelope, echo with zeros, null output, zero times, healthy error object, price already in `consume`."""
    reply = await api.send("POST", "/api/v1/task", json={**img2img(), "config": SECRET})
    data = reply.json["data"]
    assert (reply.status, reply.json["code"], reply.json["message"]) == (200, 200, "success")
    assert data == {
        "task_id": data["task_id"],
        "model": "Qubico/flux1-schnell",
        "task_type": "img2img",
        "status": "pending",
        "config": SECRET,
        "input": {
            "prompt": "a bear",
            "negative_prompt": "",
            "image": "https://i.ibb.co/J7ZNgSG/01.jpg",
            "width": 0,
            "height": 0,
            "steps": 0,
        },
        "output": None,
        "meta": {
            "created_at": "2024-09-25T07:40:08.000000000Z",
            "started_at": "0001-01-01T00:00:00Z",
            "ended_at": "0001-01-01T00:00:00Z",
            "usage": {"type": "llm", "frozen": 0, "consume": 15000},
            "is_using_private_pool": False,
        },
        "detail": None,
        "logs": [],
        "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
    }


async def test_task_ids_are_uuids_of_version_4(api: Api) -> None:
    """1.3: a task id is a UUID v4 in every example."""
    assert uuid.UUID((await api.create())["task_id"]).version == 4


async def test_a_completed_task_polls_like_the_documented_one(api: Api) -> None:
    """4.2: one link in `image_url`, `image_base64` empty, three times with nine digits."""
    data = await api.create()
    api.clock.seconds = 12.5
    data = await api.get(data["task_id"])
    assert data["status"] == "completed"
    assert data["output"].keys() == {"image_url", "image_base64"}
    assert re.fullmatch(re.escape(api.emulator.url) + r"/temp/[0-9a-f-]{36}\.png", data["output"]["image_url"])
    assert data["output"]["image_base64"] == ""
    assert data["meta"]["started_at"] == "2024-09-25T07:40:09.000000000Z"
    assert data["meta"]["ended_at"] == "2024-09-25T07:40:19.000000000Z"


async def test_a_processing_task_has_started_and_shows_no_output(api: Api) -> None:
    """4.5: output is null until the task is done."""
    data = await api.create()
    api.clock.seconds = 5
    data = await api.get(data["task_id"])
    assert (data["status"], data["output"]) == ("processing", None)
    assert data["meta"]["started_at"].startswith("2024-09-25T07:40:09")
    assert data["meta"]["ended_at"] == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("where", "error", "logs"), [("error", "out of memory", []), ("logs", "task failed", ["out of memory"])]
)
async def test_the_reason_of_a_failure_is_in_error_or_in_logs(
    api: Api, where: str, error: str, logs: list[str]
) -> None:
    """4.7 (T, four sources): the real cause is often in `logs` only; code 10000 is the generic failure."""
    api.emulator.faults.next("create", "task-fails", reason="out of memory", where=where)
    data = await api.finished()
    assert data["status"] == "failed"
    assert data["error"] == {"code": 10000, "raw_message": error, "message": error, "detail": None}
    assert data["logs"] == logs
    assert data["output"] is None


async def test_a_failing_task_polls_healthy_until_it_fails(api: Api) -> None:
    """The failure is not given away before its time."""
    api.emulator.faults.next("create", "task-fails")
    assert (await api.create())["error"]["code"] == 0


async def test_what_was_set_is_echoed_as_it_was_sent(api: Api) -> None:
    """4.1: the input is echoed; what the client set stays, beside the zeros of what it left out."""
    data = await api.create(img2img(denoise=0.5, guidance_scale=2, batch_size=2, negative_prompt="blur"))
    assert data["input"]["denoise"] == 0.5
    assert data["input"]["guidance_scale"] == 2
    assert data["input"]["batch_size"] == 2
    assert data["input"]["negative_prompt"] == "blur"


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer emulator-key"}])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/v1/task"), ("GET", "/api/v1/task/x"), ("DELETE", "/api/v1/task/x")]
)
async def test_a_missing_or_wrong_key_gives_401(api: Api, method: str, path: str, headers: dict[str, str]) -> None:
    """1.2, 4.8: the key goes into X-API-Key; otherwise "failed to verify api key"."""
    reply = await api.send(method, path, headers=headers)
    assert reply.status == 401
    assert reply.json == {"code": 401, "data": None, "message": "failed to verify api key"}


async def test_the_name_of_the_key_header_has_no_case(api: Api) -> None:
    """1.2: documented as X-API-Key, x-api-key and X-API-KEY."""
    headers = {"x-api-KEY": api.emulator.api_key}
    assert (await api.send("POST", "/api/v1/task", json=img2img(), headers=headers)).status == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_task_gives_404(api: Api, method: str) -> None:
    """4.9: 404 for a task that is not there."""
    reply = await api.send(method, "/api/v1/task/00000000-0000-4000-8000-000000000000")
    assert (reply.status, reply.json["code"], reply.json["message"]) == (404, 404, "task not found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v1/tasks"), ("PUT", "/api/v1/task"), ("POST", "/api/v1/task/x/cancel"), ("GET", "/")],
)
async def test_an_unknown_path_gives_plain_text(api: Api, method: str, path: str) -> None:
    """4.9: `404 page not found`, as plain text and without an envelope."""
    reply = await api.send(method, path)
    assert (reply.status, reply.body) == (404, b"404 page not found\n")
    assert reply.headers["Content-Type"].startswith("text/plain")


async def test_head_is_no_poll(api: Api) -> None:
    """PiAPI documents GET only; a HEAD finds nothing and counts as nothing."""
    task_id = (await api.create())["task_id"]
    assert (await api.send("HEAD", f"/api/v1/task/{task_id}")).status == 404
    assert api.emulator.tasks[task_id].polls == 0


async def test_a_body_that_is_too_large_is_refused_in_the_known_words(make_api: MakeApi) -> None:
    """4.8: "task input too large"; nothing is made, nothing is frozen."""
    api = await make_api(max_body=2000)
    reply = await api.send("POST", "/api/v1/task", json=img2img(prompt="x" * 3000))
    assert (reply.status, reply.json["message"]) == (400, "task input too large")
    assert len(api.emulator.tasks) == 0


async def test_a_refused_create_makes_no_task(api: Api) -> None:
    """4.9: a 400 means that there is nothing to pay for."""
    reply = await api.send("POST", "/api/v1/task", json=img2img(denoise=0))
    assert (reply.status, reply.json["data"]) == (400, None)
    assert reply.json["message"] == "denoise must be > 0 and <= 1"
    assert len(api.emulator.tasks) == 0


async def test_cancel_answers_like_the_documented_sample(api: Api) -> None:
    """1.3.1: `{"code":200,"message":"task ... canceled"}` without data, while the task is pending."""
    task_id = (await api.create())["task_id"]
    reply = await api.send("DELETE", f"/api/v1/task/{task_id}")
    assert (reply.status, reply.json) == (200, {"code": 200, "message": f"task {task_id} canceled"})
    data = await api.get(task_id)
    assert (data["status"], data["output"], data["meta"]["usage"]["consume"]) == ("canceled", None, 0)


@pytest.mark.parametrize(("seconds", "status"), [(5, "processing"), (60, "completed")])
async def test_only_a_pending_task_can_be_canceled(api: Api, seconds: int, status: str) -> None:
    """1.3.1: once processing it cannot be cancelled."""
    task_id = (await api.create())["task_id"]
    api.clock.seconds = seconds
    reply = await api.send("DELETE", f"/api/v1/task/{task_id}")
    assert reply.status == 400
    assert f"is {status}" in reply.json["message"]
    assert (await api.get(task_id))["status"] == status


async def test_a_batch_of_schnell_has_its_links_in_image_urls(api: Api) -> None:
    """4.5: `image_urls` "when result contains multiple images"."""
    output = (await api.finished(img2img(batch_size=3)))["output"]
    assert output["image_url"] == ""
    assert len(set(output["image_urls"])) == 3


SHAPES: list[tuple[str, Any]] = [
    ("documented", lambda one: {"image_url": one, "image_base64": ""}),
    ("image_url", lambda one: {"image_url": one, "image_base64": ""}),
    ("image_urls", lambda one: {"image_url": "", "image_base64": "", "image_urls": [one]}),
    ("both", lambda one: {"image_url": one, "image_base64": "", "image_urls": [one]}),
    ("null-urls", lambda one: {"image_url": one, "image_base64": "", "image_urls": None}),
    ("null", lambda _one: None),
]


@pytest.mark.parametrize(("shape", "expected"), SHAPES)
async def test_the_shape_of_the_output_can_be_chosen(make_api: MakeApi, shape: str, expected: Any) -> None:
    """8.3: every shape that was seen, or feared, is a switch."""
    api, reference = await make_api(output_shape=shape), await make_api()
    link = (await reference.finished())["output"]["image_url"].replace(reference.emulator.url, api.emulator.url)
    assert (await api.finished())["output"] == expected(link)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lowercase", ["pending", "processing", "completed"]),
        ("capitalised", ["Pending", "Processing", "Completed"]),
        ("flux-page", ["pending", "processing\t", "success"]),
        ({"pending": "staged"}, ["staged", "processing", "completed"]),
        (
            {"pending": "a", "processing": "b", "completed": "c", "failed": "d", "canceled": "e"},
            ["a", "b", "c"],
        ),
    ],
)
async def test_the_words_for_the_status_can_be_chosen(make_api: MakeApi, words: Any, expected: list[str]) -> None:
    """4.4: each documented vocabulary, and any other; the emulator's own views keep theirs."""
    api = await make_api(status_words=words)
    task_id = (await api.create())["task_id"]
    seen = []
    for api.clock.seconds in (0, 5, 60):
        seen.append((await api.get(task_id))["status"])
    assert seen == expected
    assert api.emulator.tasks[task_id].status == "completed"


@pytest.mark.parametrize(
    ("transport", "status", "body"),
    [
        ("status", 404, {"code": 404, "data": None, "message": "task not found"}),
        ("code", 200, {"code": 404, "data": None, "message": "task not found"}),
        ("error", 404, {"error": "task not found"}),
        ("description", 404, {"description": "task not found"}),
    ],
)
async def test_the_transport_of_errors_can_be_chosen(
    make_api: MakeApi, transport: str, status: int, body: dict[str, Any]
) -> None:
    """4.9 (T): errors arrive by HTTP status, by `code` in a 200, or as `error` or `description`."""
    api = await make_api(error_transport=transport)
    reply = await api.send("GET", "/api/v1/task/x")
    assert (reply.status, reply.json) == (status, body)


async def test_links_lead_to_where_the_client_reached_the_server(api: Api) -> None:
    """Behind another name for this machine, results are linked under that name."""
    data = await api.finished()
    headers = {"X-API-Key": api.emulator.api_key, "Host": "piapi.test:81"}
    reply = await api.send("GET", f"/api/v1/task/{data['task_id']}", headers=headers)
    assert reply.json["data"]["output"]["image_url"].startswith("http://piapi.test:81/temp/")
