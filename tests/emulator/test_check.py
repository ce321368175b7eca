"""Assertions about what the emulator saw, and the ledger they rest on."""

from typing import Any

import aiohttp
import pytest
from support.rig import Api, MakeApi, img2img

from piapi_async.emulator import Charge, Check, Emulator


async def submit(api: Api, prompt: str) -> Any:
    """One create; None when there is no usable answer."""
    try:
        return await api.send("POST", "/api/v1/task", json=img2img(prompt=prompt))
    except (aiohttp.ClientError, ValueError):
        return None


async def test_counts_of_requests(make_api: MakeApi) -> None:
    """Counted by endpoint, also when the records were dropped since."""
    api = await make_api(keep_requests=1)
    for _ in range(3):
        await api.create()
    check = api.emulator.check
    check.exactly(3, "create")
    check.at_most(3, "create")
    check.exactly(0, "get")
    check.exactly_tasks(3)
    with pytest.raises(AssertionError, match=r"^3 create requests came, not 1$"):
        check.exactly(1, "create")
    with pytest.raises(AssertionError, match=r"^3 create requests came, more than 2$"):
        check.at_most(2, "create")
    with pytest.raises(AssertionError, match=r"^there are 3 tasks, not 1$"):
        check.exactly_tasks(1)


@pytest.mark.parametrize(
    "fault", ["cut-before-accept", "cut-after-accept", "503", "503-after-accept", "html", "garbled", "redirect-away"]
)
async def test_a_submit_that_may_have_been_accepted_must_not_be_repeated(api: Api, fault: str) -> None:
    """The client cannot know, so the second one may be paid for twice."""
    api.emulator.faults.next("create", fault)
    await submit(api, "a bear")
    await submit(api, "a cat")
    api.emulator.check.no_submit_repeated()
    await submit(api, "a bear")
    with pytest.raises(AssertionError, match=rf"create of 0 s \((lost|not-done), {fault}\) was sent again at 0 s"):
        api.emulator.check.no_submit_repeated()


async def test_a_submit_that_was_answered_must_not_be_repeated(api: Api) -> None:
    """Least of all that one."""
    await submit(api, "a bear")
    await submit(api, "a bear")
    with pytest.raises(AssertionError, match=r"create of 0 s \(answered\) was sent again"):
        api.emulator.check.no_submit_repeated()


@pytest.mark.parametrize("transport", ["status", "code"])
async def test_a_submit_that_was_refused_may_be_repeated(make_api: MakeApi, transport: str) -> None:
    """A 429 or any other refusal, however it travels, says that nothing was made."""
    api = await make_api(credits=0, error_transport=transport)
    api.emulator.faults.next("create", "429")
    for _ in range(3):
        await submit(api, "a bear")
    assert [record.outcome for record in api.emulator.requests] == ["not-done", "refused", "refused"]
    api.emulator.check.no_submit_repeated()


async def test_polls_at_one_task_have_to_be_apart(api: Api) -> None:
    """Counted for each task by itself."""
    first, second = [(await api.create())["task_id"] for _ in range(2)]
    for task_id, pause in ((first, 0.0), (second, 1.0), (first, 0.5), (second, 0.0)):
        await api.get(task_id)
        api.clock.seconds += pause
    api.emulator.check.polls_apart(1.0)
    with pytest.raises(
        AssertionError, match=rf"polls at /api/v1/task/{first} at 0 s and 1 s are 1 s apart, less than 2"
    ):
        api.emulator.check.polls_apart(2.0)


async def test_who_saw_the_key(api: Api) -> None:
    """By endpoint, and by the name under which the emulator was reached."""
    await api.create()
    await api.send("GET", "/temp/x.png", headers={})
    check = api.emulator.check
    check.key_only_on("create")
    check.key_only_for("127.0.0.1")
    await api.send("GET", api.emulator.url.replace("127.0.0.1", "localhost") + "/temp/x.png")
    with pytest.raises(AssertionError, match=r"^GET /temp/x.png brought a key to result, not only to create, get$"):
        api.emulator.check.key_only_on("create", "get")
    with pytest.raises(AssertionError, match=r"brought a key to localhost, not only to 127.0.0.1"):
        api.emulator.check.key_only_for("127.0.0.1")


async def test_a_host_may_come_without_a_port(api: Api) -> None:
    """Then the whole header is its name."""
    await api.send("GET", "/temp/x.png", headers={"Host": "files.test", "X-API-Key": "k"})
    api.emulator.check.key_only_for("files.test")


async def test_charges_are_one_for_each_completed_task(api: Api) -> None:
    """Not for those that failed or still work."""
    api.emulator.faults.next("create", "task-fails")
    await api.finished()
    done = await api.finished()
    await api.create()
    check = api.emulator.check
    check.charged_once_each()
    (charge,) = check.charges
    assert charge.task_id == done["task_id"]
    with pytest.raises(AssertionError, match=f"task {charge.task_id} was charged 2 times"):
        altered(check, charges=[charge, charge]).charged_once_each()
    with pytest.raises(AssertionError, match=f"task {charge.task_id} completed and was not charged"):
        altered(check, charges=[]).charged_once_each()


def altered(check: Check, *, charges: list[Charge]) -> Check:
    """A check of an emulator that charges wrongly."""
    return Check(requests=check.requests, counts=check.counts, tasks=check.tasks, charges=charges)


async def test_every_task_has_to_be_known_or_in_doubt(api: Api) -> None:
    """What the client reported and what it doubts covers what there is; a task from elsewhere is a mistake."""
    ids = [(await api.create())["task_id"] for _ in range(5)]
    check = api.emulator.check
    check.all_known(ids)
    check.all_known(ids[1:], in_doubt=1)
    check.all_known(ids, in_doubt=3)
    with pytest.raises(AssertionError, match=r"2 of 5 tasks were not reported, and 1 submits are in doubt: \S+, \S+$"):
        check.all_known(ids[2:], in_doubt=1)
    with pytest.raises(AssertionError, match=r"5 of 5 tasks were not reported.*: \S+, \S+, \S+, \.\.\.$"):
        check.all_known([])
    with pytest.raises(AssertionError, match=r"^elsewhere was never made here$"):
        check.all_known([*ids, "elsewhere"])


async def test_the_ledger_tells_what_became_of_each_request(api: Api) -> None:
    """Four outcomes; a fault that only delays or disguises the answer leaves it an answer."""
    for fault in ("slow-body", "wrong-type", "clock-skew", "task-fails", "html", "503"):
        api.emulator.faults.next("create", fault)
        await submit(api, "a bear")
    await api.send("GET", "/nowhere")
    outcomes = [record.outcome for record in api.emulator.requests]
    assert outcomes == ["answered"] * 4 + ["lost", "not-done", "refused"]


async def test_a_fingerprint_is_of_method_path_query_and_body(api: Api) -> None:
    """The same request has the same one, in any emulator and on any day; every difference shows."""
    for method, path, json in (
        ("POST", "/api/v1/task", {"a": 1}),
        ("POST", "/api/v1/task", {"a": 1}),
        ("POST", "/api/v1/task", {"a": 2}),
        ("POST", "/api/v1/task?x=1", {"a": 1}),
        ("POST", "/api/v1/tasks", {"a": 1}),
        ("PUT", "/api/v1/task", {"a": 1}),
    ):
        await api.send(method, path, json=json)
    prints = [record.fingerprint for record in api.emulator.requests]
    assert prints[0] == prints[1] == "098ddcc48eef4764"
    assert len(set(prints)) == 5


async def test_a_misspelt_endpoint_is_refused() -> None:
    """An assertion about an endpoint that does not exist is a mistake, and no success."""
    async with Emulator() as emulator:
        for ask in (emulator.check.exactly, emulator.check.at_most):
            with pytest.raises(ValueError, match="endpoint must be one of create, get"):
                ask(0, "craete")
