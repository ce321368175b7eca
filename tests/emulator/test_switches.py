"""Every switch at every value: what PiAPI may do where its documentation is silent (section 8 of the facts)."""

import base64
import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs
import pytest
from support.rig import Api, MakeApi, Reply, data_uri, img2img, picture

from piapi_async.emulator import Options, options

DEV = "Qubico/flux1-dev"
CHOICES = {name: hint for name, hint in get_type_hints(Options).items() if get_origin(hint) is Literal}


async def post(api: Api, task: dict[str, Any] | None = None, **more: Any) -> Reply:
    """Create a task; the whole answer."""
    return await api.send("POST", "/api/v1/task", json=task or img2img(), **more)


@pytest.mark.parametrize("field", attrs.fields(Options), ids=lambda field: field.name)
def test_every_option_explains_itself(field: Any) -> None:
    """A command line and a page of settings are made from name, type, default and explanation."""
    assert field.metadata["about"].endswith(".")


@pytest.mark.parametrize("name", CHOICES)
def test_the_first_word_of_a_switch_is_its_default_and_no_other_word_is_taken(name: str) -> None:
    """A closed set of words, the default first; each of them can be set."""
    words = get_args(CHOICES[name])
    assert getattr(Options(), name) == words[0]
    for word in words:
        assert getattr(Options(**{name: word}), name) == word
    with pytest.raises(ValueError, match=name):
        Options(**{name: "nonsense"})


@pytest.mark.parametrize(("key_header", "status"), [("x-api-key", 401), ("x-api-key-or-bearer", 200)])
async def test_the_key_may_be_taken_from_authorization(make_api: MakeApi, key_header: str, status: int) -> None:
    """1.2 (T): some clients send Bearer; whether that works is unknown."""
    api = await make_api(key_header=key_header)
    assert (await post(api, headers={"Authorization": f"Bearer {api.emulator.api_key}"})).status == status
    assert (await post(api, headers={"Authorization": "Bearer wrong"})).status == 401
    assert (await post(api)).status == 200


async def test_over_the_limit_a_task_may_stay_pending(make_api: MakeApi) -> None:
    """9.4: the default, as for a task that waits for a worker."""
    api = await make_api(concurrency=1, over_limit="pending")
    assert [(await api.create())["status"] for _ in range(3)] == ["pending"] * 3


async def test_over_the_limit_a_task_may_be_staged(make_api: MakeApi) -> None:
    """4.4 (D UNI, for Midjourney): beyond the concurrency tasks are staged, 50 at most, and then start in turn."""
    api = await make_api(concurrency=2, over_limit="staged")
    seen = [(await api.create())["status"] for _ in range(52)]
    assert seen == ["pending"] * 2 + ["staged"] * 50
    reply = await post(api)
    assert (reply.status, reply.json["message"]) == (429, "too many staged tasks")
    counts = (await api.send("GET", "/account/active_tasks")).json["data"]["flux"]
    assert (counts["staged_count"], counts["pending_count"]) == (50, 2)
    third = list(api.emulator.tasks)[2]
    for api.clock.seconds, status in ((5, "staged"), (12, "processing"), (60, "completed")):
        assert (await api.get(third))["status"] == status


async def test_over_the_limit_a_task_may_be_refused(make_api: MakeApi) -> None:
    """4.9 (T SKILLS): 429 with `Retry-After: 12`; nothing is made and nothing frozen; later there is a place."""
    api = await make_api(concurrency=1, over_limit="429")
    await api.create()
    credits_before = api.emulator.credits
    reply = await post(api)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "12")
    assert (len(api.emulator.tasks), api.emulator.credits) == (1, credits_before)
    api.clock.seconds = 60
    assert (await post(api)).status == 200


@pytest.mark.parametrize(
    ("out_of_credit", "status", "code"), [("402", 402, 402), ("400", 400, 400), ("500", 500, 500), ("200", 200, 402)]
)
async def test_the_status_of_lacking_credit_can_be_chosen(
    make_api: MakeApi, out_of_credit: str, status: int, code: int
) -> None:
    """9.2: the words "failed to freeze point" are known, their status is not."""
    reply = await post(await make_api(credits=0, out_of_credit=out_of_credit))
    assert (reply.status, reply.json["code"], reply.json["message"]) == (status, code, "failed to freeze point")


@pytest.mark.parametrize(("failed_tasks", "cost"), [("refunded", 0), ("charged", 15_000)])
async def test_a_failed_task_may_be_charged(make_api: MakeApi, failed_tasks: str, cost: int) -> None:
    """9.13: T KB says that only successful tasks consume; it is not official."""
    api = await make_api(credits=100_000, failed_tasks=failed_tasks)
    api.emulator.faults.next("create", "task-fails")
    data = await api.finished()
    assert data["meta"]["usage"]["consume"] == cost
    assert api.emulator.credits == 100_000 - cost
    assert sum(charge.points for charge in api.emulator.charges) == cost
    assert api.emulator.tasks[data["task_id"]].cost == cost


@pytest.mark.parametrize(("cancel", "status"), [("pending-only", 200), ("404", 404), ("405", 405)])
async def test_cancelling_flux_may_not_exist(make_api: MakeApi, cancel: str, status: int) -> None:
    """9.5: DELETE is documented for other models only."""
    api = await make_api(cancel=cancel)
    task_id = (await api.create())["task_id"]
    assert (await api.send("DELETE", f"/api/v1/task/{task_id}")).status == status
    assert api.emulator.tasks[task_id].status == ("canceled" if status == 200 else "pending")


async def test_a_new_task_may_be_invisible_for_a_while(make_api: MakeApi) -> None:
    """9.21: whether a GET right after the create finds the task is unknown; polls that do not see it do not count."""
    api = await make_api(visible_after=3.0)
    task_id = (await api.create())["task_id"]
    for api.clock.seconds, status in ((0, 404), (2.9, 404), (3, 200)):
        assert (await api.send("GET", f"/api/v1/task/{task_id}")).status == status
    assert api.emulator.tasks[task_id].polls == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("starting", ["starting", "processing", "completed"]),
        ("retry", ["pending", "retry", "completed"]),
        ("staged", ["staged", "processing", "completed"]),
        ("unknown", ["pending", "rendering", "completed"]),
    ],
)
async def test_other_words_may_be_seen_on_the_way(make_api: MakeApi, words: str, expected: list[str]) -> None:
    """4.4, 9.12: `starting` and `retry` stand on the get-task page, `staged` in the schema; new ones may come."""
    api = await make_api(status_words=words)
    task_id = (await api.create())["task_id"]
    seen = []
    for api.clock.seconds in (0, 5, 60):
        seen.append((await api.get(task_id))["status"])
    assert seen == expected


ZERO = "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("unset", "queued", "started"),
    [("zero", ZERO, "2024"), ("empty", "", "2024"), ("zero-while-processing", ZERO, ZERO)],
)
async def test_times_that_have_not_come_can_be_written_in_three_ways(
    make_api: MakeApi, unset: str, queued: str, started: str
) -> None:
    """4.6: Go's zero time or an empty string (D); the zero may stay while the task is processing (T)."""
    api = await make_api(unset_times=unset)
    data = await api.create()
    assert (data["meta"]["started_at"], data["meta"]["ended_at"]) == (queued, queued)
    api.clock.seconds = 5
    assert (await api.get(data["task_id"]))["meta"]["started_at"].startswith(started)
    api.clock.seconds = 60
    meta = (await api.get(data["task_id"]))["meta"]
    assert (meta["started_at"][:4], meta["ended_at"][:4]) == ("2024", "2024")


@pytest.mark.parametrize("digits", range(10))
async def test_times_may_have_any_number_of_digits(make_api: MakeApi, digits: int) -> None:
    """4.6: 0 to 9 fractional digits were seen; what is cut off is not rounded."""
    api = await make_api(time_digits=digits)
    api.clock.seconds = 0.987654
    created_at = (await api.create())["meta"]["created_at"]
    fraction = ".987654"[: digits + 1] if digits else ""
    assert re.fullmatch(rf"2024-09-25T07:40:08{re.escape(fraction)}\d*Z", created_at)
    assert len(created_at) == len("2024-09-25T07:40:08Z") + digits + bool(digits)


@pytest.mark.parametrize(
    ("usage", "alive", "over"),
    [
        (
            "consume-first",
            {"type": "llm", "frozen": 0, "consume": 15_000},
            {"type": "llm", "frozen": 0, "consume": 15_000},
        ),
        (
            "frozen-first",
            {"type": "llm", "frozen": 15_000, "consume": 0},
            {"type": "llm", "frozen": 0, "consume": 15_000},
        ),
        ("absent", None, None),
    ],
)
async def test_usage_may_be_frozen_first_or_absent(make_api: MakeApi, usage: str, alive: Any, over: Any) -> None:
    """6.2, 4.3: examples show `consume` at creation; the words suggest a freeze; the get-task page has no usage."""
    api = await make_api(usage=usage)
    data = await api.create()
    assert data["meta"].get("usage") == alive
    api.clock.seconds = 60
    assert (await api.get(data["task_id"]))["meta"].get("usage") == over


@pytest.mark.parametrize("usage_type", ["llm", "quota", "point", "credit"])
async def test_the_type_of_usage_can_be_chosen(make_api: MakeApi, usage_type: str) -> None:
    """4.6: four were seen."""
    api = await make_api(usage_type=usage_type)
    task_id = (await api.create())["task_id"]
    assert (await api.get(task_id))["meta"]["usage"]["type"] == usage_type
    assert api.emulator.tasks[task_id].usage["type"] == usage_type


async def test_a_healthy_error_may_be_null(make_api: MakeApi) -> None:
    """8.4: null instead of an object with code 0; a real error stays an object."""
    api = await make_api(healthy_error="null")
    assert (await api.create())["error"] is None
    api.emulator.faults.next("create", "task-fails")
    assert (await api.finished())["error"]["code"] == 10000


async def test_empty_logs_may_be_null(make_api: MakeApi) -> None:
    """4.7: an array or null; logs with something in them stay an array."""
    api = await make_api(empty_logs="null")
    assert (await api.create())["logs"] is None
    api.emulator.faults.next("create", "task-fails", where="logs", reason="why")
    assert (await api.finished())["logs"] == ["why"]


@pytest.mark.parametrize(
    ("transport", "content_type", "body"),
    [
        ("text", "text/plain", b"invalid task type <b>\n"),
        ("html", "text/html", b"<h1>400 invalid task type &lt;b&gt;</h1>"),
    ],
)
async def test_errors_may_be_plain_text_or_a_page(
    make_api: MakeApi, transport: str, content_type: str, body: bytes
) -> None:
    """4.9 (T): plain text and HTML were seen; what the client sent cannot become markup."""
    reply = await post(await make_api(error_transport=transport), {**img2img(), "task_type": "<b>"})
    assert (reply.status, reply.headers["Content-Type"].partition(";")[0]) == (400, content_type)
    assert body in reply.body


@pytest.mark.parametrize(
    "task",
    [
        {**img2img(), "metadata": {}},
        img2img(aspect_ratio="16:9"),
        {**img2img(), "config": {"retries": 3}},
        {**img2img(), "config": {"webhook_config": {"method": "PUT"}}},
        {
            **img2img("Qubico/flux1-dev-advanced", lora_settings=[{"lora_type": "mjv6", "weight": 1}]),
            "task_type": "img2img-lora",
        },
    ],
)
async def test_unknown_fields_may_be_refused(make_api: MakeApi, task: dict[str, Any]) -> None:
    """9.20: whether unknown fields are refused is unknown; by default they are dropped."""
    assert (await post(await make_api(), task)).status == 200
    reply = await post(await make_api(unknown_fields="refused"), task)
    assert reply.status == 400
    assert reply.json["message"].startswith("json: unknown field")


@pytest.mark.parametrize(
    ("batches", "status", "images"), [("refused", 400, 0), ("ignored", 200, 1), ("honoured", 200, 3)]
)
async def test_batches_on_other_models_may_be_ignored_or_honoured(
    make_api: MakeApi, batches: str, status: int, images: int
) -> None:
    """9.9: batch_size above 1 on dev is documented not to work, and not what happens then."""
    api = await make_api(other_batches=batches, output_shape="image_urls")
    assert (await post(api, img2img(DEV, batch_size=3))).status == status
    if images:
        data = await api.finished(img2img(DEV, batch_size=3))
        assert len(data["output"]["image_urls"]) == images
        assert data["meta"]["usage"]["consume"] == 150_000 * images


@pytest.mark.parametrize(
    ("inline_images", "uri", "bare"),
    [
        ("accepted", "completed", "completed"),
        ("data-uri-only", "completed", "failed"),
        ("fail", "failed", "failed"),
    ],
)
async def test_images_inside_the_request_may_not_work(
    make_api: MakeApi, inline_images: str, uri: str, bare: str
) -> None:
    """9.6: whether base64 is officially accepted is unknown."""
    api = await make_api(inline_images=inline_images)
    assert (await api.finished(img2img(image=data_uri(picture()))))["status"] == uri
    assert (await api.finished(img2img(image=base64.b64encode(picture()).decode())))["status"] == bare


@pytest.mark.parametrize(
    ("expired", "status", "content_type", "is_empty"),
    [("404", 404, "text/plain", False), ("html", 200, "text/html", False), ("empty", 200, "image/png", True)],
)
async def test_an_expired_link_can_be_answered_in_three_ways(
    make_api: MakeApi, expired: str, status: int, content_type: str, is_empty: bool
) -> None:
    """7.9 (D STO, B-SAVE): a link that is too old may give HTML or nothing; the same holds for uploads here."""
    api = await make_api(expired_links=expired)
    upload = {"file_name": "a.png", "file_data": ""}
    links = [
        (await api.finished())["output"]["image_url"],
        (await api.send("POST", "/api/ephemeral_resource", json=upload)).json["data"]["url"],
    ]
    api.clock.seconds = 10 * 24 * 3600
    for link in links:
        reply = await api.send("GET", link)
        assert (reply.status, reply.headers["Content-Type"].partition(";")[0]) == (status, content_type)
        assert (reply.body == b"") == is_empty


def test_the_plans_are_those_of_the_switch() -> None:
    """Each plan has a concurrency."""
    assert set(options.CONCURRENCY) == set(get_args(options.Plan))
