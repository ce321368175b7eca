"""Money: what a session may spend, what it spent, and what the account has."""

import asyncio
import json
import math
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_server import RawServer, Received, task
from support.strategies import JSON, answers

from piapi_async import Account, Backoff, Img2Img, Polling, Session, SubmissionInDoubtError, TaskRequest
from piapi_async._client.budget import TASKS_MAX, Budget
from piapi_async._client.responses import Answer, decode_account, parse_task
from piapi_async.emulator import Emulator
from piapi_async.errors import (
    ConfigurationError,
    InsufficientCreditsError,
    InvalidRequestError,
    PiAPIError,
    SpendLimitError,
    TaskError,
    TaskFailedError,
    UnexpectedResponseError,
)
from piapi_async.prices import PRICES

REQUEST = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
PRICE = 0.0015


def session(emulator: Emulator, **options: Any) -> Session:
    """A session on the emulator."""
    return Session(emulator.api_key, base_url=emulator.url, **options)


async def test_a_thousand_racing_runs_stop_exactly_at_the_limit() -> None:
    """Of 1,000 `run` at once with money for 137, 137 reach the server, and the others cost nothing."""
    async with Emulator() as emulator, session(emulator, max_spend_usd=137 * PRICE) as paying:
        runs = (paying.run(REQUEST) for _ in range(1000))
        outcomes = Counter(type(outcome).__name__ for outcome in await asyncio.gather(*runs, return_exceptions=True))
        assert outcomes == {"TaskInfo": 137, "SpendLimitError": 863}
        assert len(emulator.tasks) == 137
        assert paying.spent == pytest.approx(137 * PRICE)


async def test_the_refusal_tells_the_sums() -> None:
    """Price, what is spent, the limit; nothing was sent, so it is safe to submit again."""
    async with Emulator() as emulator, session(emulator, max_spend_usd=0.002) as paying:
        await paying.submit(REQUEST)
        with pytest.raises(SpendLimitError) as caught:
            await paying.submit(REQUEST)
        words = "this task costs about 0.0015 USD, and 0.0015 USD of max_spend_usd=0.002 are spent or in flight"
        assert words in str(caught.value)
        assert caught.value.safe_to_resubmit


async def test_a_limit_needs_prices() -> None:
    """With a limit, a model without a price is refused before it is sent; with a price of one's own it goes."""
    request = TaskRequest(model="Qubico/flux1-new", task_type="txt2img", input={"prompt": "a"})
    async with Emulator() as emulator:
        async with session(emulator, max_spend_usd=1) as paying:
            with pytest.raises(ConfigurationError, match="no price is known for model 'Qubico/flux1-new'"):
                await paying.submit(request)
        prices = PRICES.override({"Qubico/flux1-new": 0.5})
        for options in ({}, {"max_spend_usd": 1, "prices": prices}):
            async with session(emulator, **options) as paying:
                with pytest.raises(InvalidRequestError, match="invalid model"):
                    await paying.submit(request)
                assert paying.spent == 0


async def test_what_was_not_accepted_gives_its_money_back() -> None:
    """A refused submit, and one cancelled before it began, leave nothing reserved."""
    async with Emulator(credits=0) as emulator, session(emulator) as paying:
        submitting = asyncio.ensure_future(paying.submit(REQUEST))
        await asyncio.sleep(0)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        assert paying.spent == 0
        with pytest.raises(InsufficientCreditsError):
            await paying.run(REQUEST)
        assert paying.spent == 0


async def test_what_is_in_doubt_stays_reserved() -> None:
    """The answer is lost, and the task may be billed: its price counts."""
    async with Emulator() as emulator, session(emulator) as paying:
        emulator.faults.next("create", "cut-after-accept")
        with pytest.raises(SubmissionInDoubtError):
            await paying.submit(REQUEST)
        assert paying.spent == PRICE


@pytest.mark.parametrize(("failed_tasks", "spent"), [("refunded", 0), ("charged", PRICE)])
async def test_a_failed_task_costs_what_the_service_says(failed_tasks: str, spent: float) -> None:
    """Whether failures are charged is not public: what is reported counts, once, however often it is looked at."""
    async with Emulator(failed_tasks=failed_tasks) as emulator, session(emulator) as paying:
        emulator.faults.next("create", "task-fails")
        handle = await paying.submit(REQUEST)
        for _ in range(2):
            with pytest.raises(TaskFailedError):
                await handle
            await paying.get_task(handle.task_id)
        assert paying.spent == spent


@pytest.mark.parametrize("status", ["completed", "failed", "canceled"])
@pytest.mark.parametrize(
    "usage", [None, {}, [], {"frozen": 15000}, *({"consume": odd} for odd in (None, "much", "", -5, True, math.nan))]
)
async def test_a_cost_that_cannot_be_read_is_not_zero(usage: Any, status: str) -> None:
    """Under a limit for three tasks three are paid for, whatever stands where their costs should: unknown is not 0."""
    posts = 0

    async def reply(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        is_submit = request.head.startswith(b"POST")
        posts += is_submit
        seen = "pending" if is_submit else status
        writer.write(task(f"t-{posts}", seen, meta={"usage": usage}, output={"image_url": "https://e.com/a.png"}))
        await writer.drain()

    options: dict[str, Any] = {"max_spend_usd": 3 * PRICE, "polling": Polling(wait=Backoff())}
    async with RawServer(reply) as server, Session("k", base_url=server.url, **options) as paying:
        for _ in range(20):
            with suppress(TaskError, SpendLimitError):
                await paying.run(REQUEST)
        assert (posts, paying.spent) == (3, pytest.approx(3 * PRICE))


@pytest.mark.parametrize("consume", [10**400, "9" * 5000, 1e300])
async def test_an_absurd_cost_ends_the_spending(consume: Any) -> None:
    """A charge without end is believed, up to a number that sums and messages bear."""
    replies = task("t"), task("t", "completed", meta={"usage": {"consume": consume}})
    async with RawServer(*replies) as server, Session("k", base_url=server.url, max_spend_usd=1) as paying:
        with suppress(TaskError):
            await paying.run(REQUEST)
        assert paying.spent == 1e8
        with pytest.raises(SpendLimitError, match=r"100,000,000\.0000 USD"):
            await paying.run(REQUEST)


@pytest.mark.parametrize("limit", [1e300, 1.7e308, 10**300])
async def test_an_absurd_limit_is_a_limit(limit: float) -> None:
    """No number that may be spent overflows; an absurd price is refused under a sensible limit."""
    async with Emulator() as emulator:
        async with session(emulator, max_spend_usd=limit) as paying:
            await paying.submit(REQUEST)
        prices = PRICES.override({REQUEST.model: limit})
        async with session(emulator, max_spend_usd=5, prices=prices) as paying:
            with pytest.raises(SpendLimitError):
                await paying.submit(REQUEST)


async def test_what_the_service_does_not_report_stays_estimated() -> None:
    """`meta` may lack `usage`: then the price of the table counts, and nothing more is kept of the task."""
    async with Emulator(usage="absent") as emulator, session(emulator) as paying:
        info = await paying.run(REQUEST)
        assert info.usage is None
        assert paying.spent == PRICE
        assert not paying._api.budget._in_flight


def test_tasks_that_are_never_polled_do_not_pile_up() -> None:
    """Of endlessly many tasks that nobody polls the latest are remembered; the estimates of all of them count."""
    budget = Budget(prices=PRICES)
    price = PRICES.points(REQUEST)
    assert price is not None
    for number in range(TASKS_MAX + 2):
        budget.reserve(REQUEST).accepted(parse_task({"task_id": str(number), "status": "pending"}))
    assert len(budget._in_flight) == TASKS_MAX
    assert budget.points == price * (TASKS_MAX + 2)
    for number in (1, 2):  # one that was forgotten, and the oldest that was not
        budget.settle(parse_task({"task_id": str(number), "status": "failed", "meta": {"usage": {"consume": 0}}}))
    assert budget.points == price * (TASKS_MAX + 1)


async def test_tasks_of_others_are_not_this_sessions_spending() -> None:
    """A task found again by its id was paid for elsewhere."""
    async with Emulator() as emulator, session(emulator) as one, session(emulator) as other:
        info = await one.run(REQUEST)
        await other.task(info.task_id)
        assert (one.spent, other.spent) == (PRICE, 0)


@pytest.mark.parametrize("limit", [-1, math.nan, math.inf, True, "1"])
def test_a_limit_is_an_amount(limit: Any) -> None:
    """Said in one sentence, before anything is sent."""
    with pytest.raises((TypeError, ValueError), match="max_spend_usd must be US dollars >= 0, or None for no limit"):
        Session("key", max_spend_usd=limit)


def test_prices_are_a_table() -> None:
    """A plain mapping is refused: it has no date."""
    with pytest.raises(TypeError, match="prices must be of type PriceList"):
        Session("key", prices={})  # type: ignore[arg-type]


async def test_the_account() -> None:
    """Plan, balance and allowance, as the service tells them; the repr has no name in it."""
    async with Emulator(credits=10_000_000, concurrency=7) as emulator, session(emulator) as paying:
        await paying.submit(REQUEST)
        account = await paying.account()
    assert account.balance_usd == pytest.approx(1 - PRICE)
    assert (account.points_remaining, account.points_frozen, account.points_used) == (9_985_000, 15_000, 0)
    assert account.max_concurrent_tasks == 7
    assert account.raw["name"] == "emulator"
    assert "emulator" not in repr(account)


async def test_a_cancelled_submit_that_was_accepted_counts() -> None:
    """The POST had begun when the caller was cancelled: the task exists, and so does its price."""
    async with Emulator() as emulator, session(emulator) as paying:
        emulator.faults.next("create", "slow-headers", seconds=1.0)
        submitting = asyncio.ensure_future(paying.submit(REQUEST))
        await asyncio.sleep(0.5)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        assert (len(emulator.tasks), paying.spent) == (1, PRICE)


@pytest.mark.parametrize("data", [None, [], {}, "x"])
def test_an_answer_without_an_account_is_unexpected(data: Any) -> None:
    """It is said what was wanted."""
    with pytest.raises(UnexpectedResponseError, match="is not an account"):
        decode_account(answer(data), now=0)


def answer(data: object) -> Answer:
    """An envelope of the account endpoint."""
    return Answer(status=200, headers={}, body=json.dumps({"code": 200, "data": data}).encode())


def test_the_balance_may_stand_under_quota() -> None:
    """Some samples nest it there (piapi.ai/docs/account-info-api)."""
    assert decode_account(answer({"quota": {"equivalent_in_usd": 2}}), now=0) == Account(balance_usd=2.0)


@given(answers(st.builds(lambda data: json.dumps({"code": 200, "data": data}).encode(), JSON) | st.binary(max_size=20)))
def test_any_answer_is_an_account_or_an_error(given_: Answer) -> None:
    """Whatever the bytes: a value, or a `PiAPIError`."""
    try:
        account = decode_account(given_, now=0)
    except PiAPIError:
        return
    assert isinstance(account, Account)
