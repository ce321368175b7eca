"""Calls to the endpoints of clients (section 3.2 of the facts), in virtual time."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from support.receiver import Receiver
from support.rig import Api, HandClock, img2img

from piapi_async._asyncio import Clock
from piapi_async.emulator import Constant, Emulator

ELSEWHERE = "https://webhook.site/xxxx"


@asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[tuple[Api, Receiver]]:
    """An emulator on the time of its loop, one second of queue and ten of work, and an endpoint."""
    usual = {"durations": Constant(10.0), "queue_delay": Constant(1.0)}
    emulator = Emulator(**{**usual, **options})
    async with Receiver() as receiver, emulator, aiohttp.ClientSession() as http:
        yield Api(emulator, HandClock(), http), receiver


def hooked(endpoint: str, *, secret: str = "", **more: Any) -> dict[str, Any]:
    """The documented example with an endpoint."""
    return {**img2img(**more), "config": {"webhook_config": {"endpoint": endpoint, "secret": secret}}}


async def test_the_end_of_a_task_is_posted_without_anybody_looking() -> None:
    """3.2 (D WH): POST, JSON {timestamp, data}, data as from get-task, the secret in a header as plain text."""
    async with rig() as (api, receiver):
        task_id = (await api.create(hooked(receiver.url + "?token=a%2Fb", secret="s3cret")))["task_id"]
        (call,) = await receiver.count(1)
        data = await api.get(task_id)
        assert call.json.keys() == {"timestamp", "data"}
        assert call.json["data"] == data
        assert data["status"] == "completed"
        assert abs(call.json["timestamp"] - Clock().now()) < 2
        assert call.headers["x-webhook-secret"] == "s3cret"
        assert call.headers["Content-Type"] == "application/json"
        assert call.path == "/hook?token=a%2Fb"
        (delivery,) = api.emulator.deliveries
        assert (delivery.task_id, delivery.status, delivery.attempt, delivery.answer) == (task_id, "completed", 1, 200)
        assert 11 <= delivery.time < 12
        assert json.loads(delivery.body) == call.json


async def test_without_a_secret_there_is_no_header() -> None:
    """3.2: what an empty secret does is not documented; here the header is left out."""
    async with rig() as (api, receiver):
        await api.create(hooked(receiver.url))
        assert "x-webhook-secret" not in (await receiver.count(1))[0].headers


async def test_without_an_endpoint_nothing_is_sent_and_nothing_runs() -> None:
    """No scheduler, no delivery: tasks without a webhook cost nothing."""
    async with rig() as (api, _receiver):
        await api.create()
        await asyncio.sleep(60)
        assert api.emulator.deliveries == ()
        assert api.emulator._webhooks._owned == set()


@pytest.mark.parametrize(
    ("webhooks", "statuses"),
    [
        ("completion", ["completed"]),
        ("created-and-completed", ["pending", "completed"]),
        ("every-change", ["pending", "processing", "completed"]),
        ("never", []),
    ],
)
async def test_when_the_endpoint_is_called_can_be_chosen(webhooks: str, statuses: list[str]) -> None:
    """3.2: versions of the documentation differ, and for some models nothing seems to come (T)."""
    async with rig(webhooks=webhooks) as (api, receiver):
        await api.create(hooked(receiver.url))
        await asyncio.sleep(30)
        assert receiver.statuses == statuses
        assert [delivery.status for delivery in api.emulator.deliveries] == statuses


async def test_a_report_shows_the_task_as_it_was_at_that_moment() -> None:
    """A report that is late does not run ahead of its time."""
    async with rig(webhooks="every-change") as (api, receiver):
        await api.create(hooked(receiver.url))
        created, started, ended = [call.json["data"] for call in await receiver.count(3)]
        zero = "0001-01-01T00:00:00Z"
        assert (created["meta"]["started_at"], started["meta"]["ended_at"]) == (zero, zero)
        assert (started["output"], bool(ended["output"])) == (None, True)


@pytest.mark.parametrize(
    ("manner", "statuses"),
    [
        ("once", ["pending", "processing", "completed"]),
        ("duplicates", ["pending", "pending", "processing", "processing", "completed", "completed"]),
        ("out-of-order", ["completed", "processing", "pending"]),
    ],
)
async def test_the_manner_of_webhooks_can_be_chosen(manner: str, statuses: list[str]) -> None:
    """3.2 (D B-POLL): expect duplicates, and a late update after the end."""
    async with rig(webhooks="every-change", webhook_manner=manner) as (api, receiver):
        await api.create(hooked(receiver.url))
        await asyncio.sleep(30)
        assert receiver.statuses == statuses


@pytest.mark.parametrize(
    ("shape", "keys"),
    [("documented", {"timestamp", "data"}), ("flat", None), ("envelope", {"code", "data", "message"})],
)
async def test_the_body_of_a_webhook_can_be_chosen(shape: str, keys: set[str] | None) -> None:
    """3.2: the documented body, and the two that third parties show."""
    async with rig(webhook_body=shape) as (api, receiver):
        data = await api.create(hooked(receiver.url))
        (call,) = await receiver.count(1)
        assert call.json.keys() == (keys or data.keys())


@pytest.mark.parametrize("status", [500, 302, 404])
async def test_anything_but_a_2xx_is_tried_again_after_five_seconds_three_times_in_all(status: int) -> None:
    """3.2 (T, four sources): 5 s pause, at most 3 attempts, then nothing more; redirects are not followed."""
    async with rig() as (api, receiver):
        receiver.answers = [status] * 5
        await api.create(hooked(receiver.url))
        calls = await receiver.count(3)
        await asyncio.sleep(60)
        assert len(calls) == 3
        assert [round(call.time - calls[0].time) for call in calls] == [0, 5, 10]
        deliveries = api.emulator.deliveries
        assert [(each.attempt, each.answer, round(each.time)) for each in deliveries] == [
            (1, status, 11),
            (2, status, 16),
            (3, status, 21),
        ]


async def test_a_2xx_ends_the_attempts() -> None:
    """Any 2xx will do."""
    async with rig(webhook_attempts=5, webhook_pause=60.0) as (api, receiver):
        receiver.answers = [503, 204]
        await api.create(hooked(receiver.url))
        calls = await receiver.count(2)
        await asyncio.sleep(600)
        assert len(calls) == 2
        assert round(calls[1].time - calls[0].time) == 60


async def test_an_endpoint_that_does_not_answer_is_given_up() -> None:
    """No answer within the limit, and nobody listening, are failed attempts."""
    async with rig(webhook_timeout=2.0, webhook_attempts=1) as (api, receiver):
        receiver.answers = [0]
        await api.create(hooked(receiver.url))
        await api.create(hooked("http://127.0.0.1:1/closed"))
        await asyncio.sleep(30)
        assert [delivery.answer for delivery in api.emulator.deliveries] == [None, None]


@pytest.mark.parametrize("endpoint", [ELSEWHERE, "ftp://127.0.0.1/x", "hook", "http://127.0.0.1.evil.test/"])
async def test_no_other_machine_is_called(endpoint: str) -> None:
    """What would have been sent is recorded with attempt 0; nothing leaves the machine, and nothing runs for it."""
    async with rig(webhooks="created-and-completed") as (api, _receiver):
        task_id = (await api.create(hooked(endpoint)))["task_id"]
        assert api.emulator._webhooks._owned == set()
        await asyncio.sleep(20)
        first, second = api.emulator.deliveries
        assert (first.task_id, first.attempt, first.answer, first.endpoint) == (task_id, 0, None, endpoint)
        assert (second.status, second.time) == ("completed", pytest.approx(11, abs=0.2))
        assert json.loads(second.body)["data"]["status"] == "completed"


async def test_a_failed_and_a_canceled_task_are_reported_too() -> None:
    """3.2 (D WH): "on success, failure"; a cancelled task is over as well."""
    async with rig() as (api, receiver):
        api.emulator.faults.next("create", "task-fails")
        await api.create(hooked(receiver.url))
        canceled = await api.create(hooked(receiver.url))
        await api.send("DELETE", f"/api/v1/task/{canceled['task_id']}")
        await receiver.count(2)
        assert receiver.statuses == ["canceled", "failed"]


async def test_each_task_is_reported_at_its_own_time() -> None:
    """The scheduler sleeps to the next change, also when a task that comes later changes earlier."""
    durations = {"Qubico/flux1-schnell": Constant(2.0), "Qubico/flux1-dev": Constant(50.0)}
    async with rig(durations=durations) as (api, receiver):
        await api.create(hooked(receiver.url, model="Qubico/flux1-dev"))
        await asyncio.sleep(10)
        await api.create(hooked(receiver.url))
        quick, slow = await receiver.count(2)
        assert round(slow.time - quick.time) == 51 - 13


async def test_a_change_made_by_hand_is_reported_at_once() -> None:
    """A task whose end is nowhere in sight is waited for as well."""
    async with rig(progress="manual") as (api, receiver):
        task_id = (await api.create(hooked(receiver.url)))["task_id"]
        await asyncio.sleep(1000)
        assert receiver.calls == []
        api.emulator.finish(task_id)
        await receiver.count(1)
        assert receiver.statuses == ["completed"]


async def test_places_that_are_added_are_noticed() -> None:
    """A change of options moves what is to come."""
    async with rig(concurrency=1, durations=Constant(100.0)) as (api, receiver):
        for _ in range(2):
            await api.create(hooked(receiver.url))
        await asyncio.sleep(10)
        api.emulator.set(concurrency=2)
        first, second = await receiver.count(2)
        assert round(second.time - first.time) == 9


async def test_closing_does_not_wait_for_deliveries() -> None:
    """A hanging endpoint, a retry and a task that is not over: closing takes no time."""
    async with rig() as (api, receiver):
        receiver.answers = [0]
        await api.create(hooked(receiver.url))
        await receiver.count(1)
        await api.create(hooked("http://127.0.0.1:1/closed"))
        began = asyncio.get_running_loop().time()
        await api.emulator.aclose()
        assert asyncio.get_running_loop().time() - began < 1
        assert api.emulator._webhooks._owned == set()


async def test_what_was_not_delivered_is_delivered_after_the_next_start() -> None:
    """Closing is a pause: reports that were not through, and tasks that were not over, go on."""
    async with rig(webhook_timeout=3600.0, webhooks="every-change") as (api, receiver):
        receiver.answers = [0]
        await api.create(hooked(receiver.url))
        await receiver.count(1)
        await api.emulator.aclose()
        assert len(api.emulator.deliveries) == 0
        await api.emulator.start()
        await receiver.count(4)
        assert receiver.statuses == ["pending", "pending", "processing", "completed"]


async def test_changes_seen_while_it_is_closed_wait_for_the_next_start() -> None:
    """Asking a closed emulator plays what had happened by then; there is no loop to send it in."""
    clock = HandClock()
    async with rig(clock=clock) as (api, receiver):
        async with Emulator(clock=clock, durations=Constant(5.0), queue_delay=Constant(0.0)) as other:
            await other._webhooks.aclose()
            await Api(other, clock, api.http).create(hooked(receiver.url))
            clock.seconds += 60
        assert [view.status for view in other.tasks.values()] == ["completed"]
        assert other.deliveries == ()
        async with other:
            await receiver.count(1)
            await asyncio.sleep(1)
            assert len(other.deliveries) == 1
