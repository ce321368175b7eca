"""Plans, account info, active tasks and the history (sections 1.3 and 5 of the facts)."""

from typing import Any

import pytest
from support.rig import Api, MakeApi, img2img

ADVANCED = "Qubico/flux1-dev-advanced"
HISTORIES = "/api/open/tasks/histories"


async def info(api: Api) -> Any:
    """`data` of the account info."""
    return (await api.send("GET", "/account/info")).json["data"]


async def active(api: Api) -> Any:
    """What is active of Flux."""
    return (await api.send("GET", "/account/active_tasks")).json["data"]["flux"]


async def history(api: Api, query: str = "") -> Any:
    """`data` of the history."""
    return (await api.send("GET", f"{HISTORIES}?{query}")).json["data"]


@pytest.mark.parametrize("path", ["/account/info", "/account/active_tasks", HISTORIES])
async def test_the_account_needs_the_key(api: Api, path: str) -> None:
    """1.3.2 (D ACC): 401 on a bad key; here for all three."""
    reply = await api.send("GET", path, headers={"X-API-Key": "wrong"})
    assert (reply.status, reply.json["message"]) == (401, "failed to verify api key")


@pytest.mark.parametrize(("plan", "places"), [("pro", 30), ("creator", 5), ("free", 1)])
async def test_the_plan_gives_the_concurrency(make_api: MakeApi, plan: str, places: int) -> None:
    """5: `max_concurrent_task_count` (D ACC) by plan (T SKILLS: 1, 5, 30); that many tasks work at once."""
    api = await make_api(plan=plan)
    for _ in range(places + 1):
        await api.create()
    api.clock.seconds = 5
    data = await info(api)
    assert (data["plan"], data["max_concurrent_task_count"]) == (plan, places)
    counts = await active(api)
    assert (counts["staged_count"], counts["pending_count"], counts["processing_count"]) == (0, 1, places)


async def test_a_concurrency_that_is_given_goes_before_the_plan(make_api: MakeApi) -> None:
    """An account may have an allowance of its own; changing the plan changes what is not given."""
    api = await make_api(plan="free", concurrency=7)
    assert (await info(api))["max_concurrent_task_count"] == 7
    api.emulator.set(concurrency=None, plan="creator")
    assert (await info(api))["max_concurrent_task_count"] == 5


@pytest.mark.parametrize(("plan", "status"), [("pro", 200), ("creator", 200), ("free", 403)])
async def test_dev_advanced_needs_a_plan(make_api: MakeApi, plan: str, status: int) -> None:
    """2.1 (D PAGE): dev-advanced needs Creator or higher; the words of the refusal are not known."""
    api = await make_api(plan=plan)
    assert (await api.send("POST", "/api/v1/task", json=img2img(ADVANCED))).status == status


async def test_points_are_shown_free_frozen_and_used(make_api: MakeApi) -> None:
    """6.2: freeze, then consume; in the wallet, in the pack and in US dollars."""
    api = await make_api(credits=10_000_000)
    await api.finished()
    await api.create(img2img("Qubico/flux1-dev"))
    data = await info(api)
    wallet = data["wallet"]
    assert (wallet["point_remain"], wallet["point_frozen"], wallet["point_used"]) == (9_835_000, 150_000, 15_000)
    assert data["equivalent_in_usd"] == 0.9835
    pack = data["credit_pack_info"]
    assert pack["available_credits"] + pack["used_credits"] + pack["frozen_credits"] == pack["total_credits"]
    assert pack["total_credits"] == 10_000_000


async def test_active_tasks_leave_when_they_are_over(api: Api) -> None:
    """1.3.3 (D TL): counts by provider; only Flux ever has any here."""
    first = await api.create()
    second = await api.create()
    await api.send("DELETE", f"/api/v1/task/{second['task_id']}")
    assert (await active(api))["active_tasks"] == [{"task_id": first["task_id"], "status": "pending"}]
    api.clock.seconds = 60
    everything = (await api.send("GET", "/account/active_tasks")).json["data"]
    assert everything.keys() == {"flux", "kling", "luma", "midjourney", "music-s", "music-u"}
    assert all(counts["active_tasks"] == [] for counts in everything.values())


async def test_records_tell_the_outcome_and_not_the_prompt(api: Api) -> None:
    """1.3.4: `finished` and `failed`, newest first; points; no prompt and no image in it."""
    done = await api.finished(img2img(prompt="a secret bear"))
    api.emulator.faults.next("create", "task-fails")
    failed = await api.finished()
    newest, oldest = (await history(api))["data"]
    assert [(r["task_id"], r["status"], r["usage"]) for r in (newest, oldest)] == [
        (failed["task_id"], "failed", 0),
        (done["task_id"], "finished", 15_000),
    ]
    assert oldest["detail"]["output"] == done["output"]
    assert "output" not in newest["detail"]
    assert "secret" not in str(oldest)


async def test_pages_have_ten_records_unless_asked_otherwise(make_api: MakeApi) -> None:
    """1.3.4: page from 1, page_size 10 by default."""
    api = await make_api(concurrency=100)
    ids = [(await api.create())["task_id"] for _ in range(25)]
    api.clock.seconds = 60
    pages = [await history(api, f"page={page}") for page in (1, 2, 3, 4)]
    assert [len(page["data"]) for page in pages] == [10, 10, 5, 0]
    assert [record["task_id"] for page in pages for record in page["data"]] == ids[::-1]
    assert (pages[1]["page"], pages[1]["size"], pages[1]["total"]) == (2, 10, 25)
    assert len((await history(api, "page_size=100"))["data"]) == 25


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("page=0", "page must be >= 1"),
        ("page_size=101", "page_size must be >= 1 and <= 100"),
        ("page=x", "page is not an integer"),
        ("start_time=1.5", "start_time is not an integer"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(api: Api, query: str, words: str) -> None:
    """1.3.4: page_size at most 100, "error above"."""
    reply = await api.send("GET", f"{HISTORIES}?{query}")
    assert reply.status == 400
    assert reply.json["message"].startswith(words)


async def test_records_can_be_asked_for_by_model_and_time(api: Api) -> None:
    """1.3.4: model, start_time and end_time in unix seconds."""
    for api.clock.seconds in (0, 100, 200):
        await api.create()
    api.clock.seconds = 1000
    start = int(api.clock.now() - 1000)
    assert (await history(api, f"start_time={start + 50}&end_time={start + 150}"))["total"] == 1
    assert (await history(api, "model=flux"))["total"] == 3
    assert (await history(api, "model=kling"))["total"] == 0


async def test_the_history_can_lag(make_api: MakeApi) -> None:
    """6.3: the lag is unknown; with the switch a record comes that much later."""
    api = await make_api(history_lag=30.0)
    await api.create()
    for api.clock.seconds, total in ((40, 0), (41, 1)):
        assert (await history(api))["total"] == total


@pytest.mark.parametrize(("lists", "statuses"), [("ended", ["failed"]), ("all", ["failed", "processing"])])
async def test_tasks_that_run_may_be_in_the_history(make_api: MakeApi, lists: str, statuses: list[str]) -> None:
    """9.17: unknown; samples show only tasks that are over. That a cancelled one counts as failed is a guess."""
    api = await make_api(history_lists=lists)
    await api.create()
    canceled = await api.create()
    await api.send("DELETE", f"/api/v1/task/{canceled['task_id']}")
    api.clock.seconds = 5
    assert [record["status"] for record in (await history(api))["data"]] == statuses


async def test_the_history_may_come_without_its_envelope(make_api: MakeApi) -> None:
    """1.3.4: both forms were seen."""
    api = await make_api(history_shape="bare")
    await api.finished()
    reply = await api.send("GET", HISTORIES)
    assert reply.json.keys() == {"data", "page", "size", "total"}
    assert len(reply.json["data"]) == 1


async def test_more_requests_than_a_second_allows_are_refused(make_api: MakeApi) -> None:
    """5 and 9.3 (unknown): with 20 a second, 20 go at once, then one each 50 ms; a 429 says when there is room."""
    api = await make_api(requests_per_second=20)
    statuses = [(await api.send("GET", "/account/info")).status for _ in range(25)]
    assert statuses == [200] * 20 + [429] * 5
    reply = await api.send("GET", "/account/info")
    assert (reply.json["message"], reply.headers["Retry-After"]) == ("rate limit exceeded", "1")
    for seconds, expected in ((0.05, [200, 429]), (0.15, [200] * 3 + [429]), (60.0, [200] * 20 + [429])):
        api.clock.seconds += seconds
        assert [(await api.send("GET", "/account/info")).status for _ in expected] == expected


async def test_the_limit_is_on_all_kinds_of_requests_together(make_api: MakeApi) -> None:
    """Submits, polls and the rest use up the same second; a result, and a request with a wrong key, does not."""
    api = await make_api(requests_per_second=4)
    task_id = (await api.create())["task_id"]
    api.clock.seconds = 60
    url = (await api.get(task_id))["output"]["image_url"]
    for _ in range(9):
        assert (await api.send("GET", "/account/info", headers={"X-API-Key": "wrong"})).status == 401
        assert (await api.send("GET", url)).status == 200
    assert (await api.send("DELETE", f"/api/v1/task/{task_id}")).status == 400
    await active(api)
    await history(api)
    assert (await api.send("POST", "/api/v1/task", json=img2img())).status == 429
    assert len(api.emulator.tasks) == 1


async def test_a_rate_below_one_a_second_lets_one_go(make_api: MakeApi) -> None:
    """With one in four seconds there is room for one; the limit can be lifted while it runs."""
    api = await make_api(requests_per_second=0.25)
    first, second = [await api.send("GET", "/account/info") for _ in range(2)]
    assert (first.status, second.status, second.headers["Retry-After"]) == (200, 429, "4")
    assert (await api.send("GET", "/api/v1/task/unknown")).status == 429
    api.emulator.set(requests_per_second=None)
    assert {(await api.send("GET", "/account/info")).status for _ in range(9)} == {200}
