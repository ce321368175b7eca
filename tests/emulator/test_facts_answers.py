"""What PiAPI's documentation says about its answers, limits and prices: facts of grade D in sections 4 to 6.

Facts of section 3.2 (webhooks) are in `test_webhooks`, those of uploads in `test_uploads`. Not emulated: credits that
expire, recharges and seats (6.1).
"""

import re
from typing import Any

import pytest
from support.rig import Api, MakeApi, img2img

SCHNELL, DEV, ADVANCED = "Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced"
REQUIRED = {"task_id", "model", "task_type", "status", "input", "output", "meta", "detail", "logs", "error"}


async def statuses(api: Api) -> list[str]:
    """The words of one task's life."""
    task_id = (await api.create())["task_id"]
    seen = []
    for api.clock.seconds in (0, 5, 60):
        seen.append((await api.get(task_id))["status"])
    return seen


async def test_everything_is_in_an_envelope(api: Api) -> None:
    """4 (D I2I, OAS): code, data, message; ten required keys; success is code 200, and not 0."""
    reply = await api.send("POST", "/api/v1/task", json=img2img())
    assert (reply.json.keys(), reply.json["code"]) == ({"code", "data", "message"}, 200)
    assert reply.json["data"].keys() >= REQUIRED


async def test_numbers_that_were_not_set_are_echoed_as_zero(api: Api) -> None:
    """4.1 (D I2I): width, height and steps; the negative prompt is an empty string."""
    given = (await api.create())["input"]
    assert (given["width"], given["height"], given["steps"], given["negative_prompt"]) == (0, 0, 0, "")


async def test_consume_is_set_at_creation(api: Api) -> None:
    """4.1, 6.2 (D I2I): `frozen: 0` and `consume` above 0 at pending and at completed."""
    created = await api.create()
    done = await api.finished()
    for data in (created, done):
        assert (data["meta"]["usage"]["frozen"], data["meta"]["usage"]["consume"]) == (0, 15_000)


async def test_a_healthy_task_has_an_error_object(api: Api) -> None:
    """4.1, 4.7 (D I2I): code 0 and empty strings, never null."""
    for data in (await api.create(), await api.finished()):
        assert data["error"] == {"code": 0, "raw_message": "", "message": "", "detail": None}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lowercase", ["pending", "processing", "completed"]),
        ("capitalised", ["Pending", "Processing", "Completed"]),
        ("flux-page", ["pending", "processing\t", "success"]),
        ("starting", ["starting", "processing", "completed"]),
    ],
)
async def test_every_documented_vocabulary_can_be_spoken(make_api: MakeApi, words: str, expected: list[str]) -> None:
    """4.3, 4.4 (D I2I, KON; OAS, UNI; GET): lowercase, capitalised, `success` with a TAB at processing, `starting`."""
    assert await statuses(await make_api(status_words=words)) == expected


async def test_staged_tasks_are_fifty_at_most(make_api: MakeApi) -> None:
    """4.4, 5 (D UNI): over the limit, queued, at most 50; written Staged in the unified schema."""
    api = await make_api(concurrency=1, over_limit="staged", status_words="capitalised")
    seen = [(await api.create())["status"] for _ in range(51)]
    assert seen == ["Pending"] + ["Staged"] * 50
    assert (await api.send("POST", "/api/v1/task", json=img2img())).status == 429


async def test_pending_and_processing_count_as_concurrent(make_api: MakeApi) -> None:
    """4.4 (D UNI): both are "concurrent jobs"; a task that is over is not."""
    api = await make_api(concurrency=2, over_limit="429")
    await api.create()
    api.clock.seconds = 5
    await api.create()
    assert (await api.send("POST", "/api/v1/task", json=img2img())).status == 429
    api.clock.seconds = 12
    assert (await api.send("POST", "/api/v1/task", json=img2img())).status == 200


@pytest.mark.parametrize(("count", "key"), [(1, "image_url"), (2, "image_urls"), (4, "image_urls")])
async def test_links_are_in_image_url_or_in_image_urls(api: Api, count: int, key: str) -> None:
    """4.5 (D I2I): "when result contains 1 image", "when result contains multiple images"; base64 is empty."""
    output = (await api.finished(img2img(batch_size=count)))["output"]
    links = [output[key]] if key == "image_url" else output[key]
    assert (len(set(links)), output["image_base64"]) == (count, "")


async def test_output_is_null_until_it_is_done(api: Api) -> None:
    """4.1, 4.5 (D I2I)."""
    task_id = (await api.create())["task_id"]
    for api.clock.seconds in (0, 5):
        assert (await api.get(task_id))["output"] is None


@pytest.mark.parametrize("digits", [0, 9])
async def test_times_are_rfc_3339_in_utc(make_api: MakeApi, digits: int) -> None:
    """4.6 (D I2I, KON): Z, with 0 to 9 digits."""
    meta: dict[str, Any] = (await (await make_api(time_digits=digits)).finished())["meta"]
    for name in ("created_at", "started_at", "ended_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{9})?Z", meta[name])
        assert len(meta[name]) == (20 if digits == 0 else 30)


@pytest.mark.parametrize(("unset", "written"), [("zero", "0001-01-01T00:00:00Z"), ("empty", "")])
async def test_not_yet_is_the_zero_time_or_empty(make_api: MakeApi, unset: str, written: str) -> None:
    """4.1, 4.3, 4.6 (D I2I; D-old for the empty string)."""
    meta = (await (await make_api(unset_times=unset)).create())["meta"]
    assert (meta["started_at"], meta["ended_at"]) == (written, written)


@pytest.mark.parametrize("usage_type", ["quota", "llm"])
async def test_usage_has_a_type(make_api: MakeApi, usage_type: str) -> None:
    """4.1, 4.2 (D I2I: quota; D KON: llm)."""
    assert (await (await make_api(usage_type=usage_type)).create())["meta"]["usage"]["type"] == usage_type


async def test_usage_may_be_missing(make_api: MakeApi) -> None:
    """4.3 (D GET): the example has none."""
    assert "usage" not in (await (await make_api(usage="absent")).create())["meta"]


async def test_a_failure_has_code_and_message(api: Api) -> None:
    """4.7, 4.8 (D I2I; D T2I for 1100): code, raw_message, message, detail."""
    api.emulator.faults.next("create", "task-fails", code=1100, reason="no")
    error = (await api.finished())["error"]
    assert error == {"code": 1100, "raw_message": "no", "message": "no", "detail": None}


async def test_the_account_tells_its_concurrency(make_api: MakeApi) -> None:
    """5 (D ACC): `max_concurrent_task_count`."""
    api = await make_api(concurrency=7)
    assert (await api.send("GET", "/account/info")).json["data"]["max_concurrent_task_count"] == 7


async def test_results_live_for_three_days(api: Api) -> None:
    """5 (D STO): then they are deleted."""
    url = (await api.finished())["output"]["image_url"]
    for api.clock.seconds, status in ((11 + 3 * 86_400 - 1, 200), (11 + 3 * 86_400, 404)):
        assert (await api.send("GET", url)).status == status


@pytest.mark.parametrize(("answer", "start"), [("html", b"<!DOCTYPE html>"), ("empty", b"")])
async def test_a_dead_link_may_give_html_or_nothing(make_api: MakeApi, answer: str, start: bytes) -> None:
    """5 (D B-SAVE): check that the bytes are an image."""
    api = await make_api(expired_links=answer, result_life=1.0)
    reply = await api.send("GET", (await api.finished())["output"]["image_url"])
    assert (reply.status, reply.body[: len(start)]) == (200, start)


async def test_results_need_no_key(api: Api) -> None:
    """5 (D B-SAVE): do not send the key to the result URL."""
    url = (await api.finished())["output"]["image_url"]
    assert (await api.send("GET", url, headers={})).status == 200


@pytest.mark.parametrize(("model", "dollars"), [(SCHNELL, 0.0015), (DEV, 0.015), (ADVANCED, 0.02)])
async def test_a_picture_costs_what_the_page_says(make_api: MakeApi, model: str, dollars: float) -> None:
    """6.1 (D PAGE, B-FLUX): USD per image, as the balance shows it."""
    api = await make_api(credits=10_000_000)
    await api.finished(img2img(model))
    assert (await api.send("GET", "/account/info")).json["data"]["equivalent_in_usd"] == pytest.approx(1 - dollars)


async def test_nothing_makes_a_create_idempotent(api: Api) -> None:
    """6.3 (D B-RETRY): the same request twice is two tasks and two prices, whatever key is sent along."""
    headers = {"X-API-Key": api.emulator.api_key, "Idempotency-Key": "one"}
    ids = {
        (await api.send("POST", "/api/v1/task", json=img2img(), headers=headers)).json["data"]["task_id"]
        for _ in range(2)
    }
    api.clock.seconds = 60
    assert (len(ids), len(api.emulator.charges)) == (2, 2)


async def test_giving_up_cancels_nothing(api: Api) -> None:
    """6.3 (D B-POLL): a local deadline is not a remote failure; a task nobody looks at completes and costs."""
    task_id = (await api.create())["task_id"]
    api.clock.seconds = 3600
    assert (api.emulator.tasks[task_id].status, api.emulator.tasks[task_id].polls) == ("completed", 0)
    assert len(api.emulator.charges) == 1
