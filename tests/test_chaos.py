"""Hundreds of runs at once on a service of which every fifth request goes wrong: nothing is lost, nothing paid twice.

`CHAOS_SEEDS=20` in the environment tries twenty seeds; one is enough for every day.
"""

import asyncio
import os
from collections import Counter
from typing import Any

import attrs
import pytest

from piapi_async import Img2Img, Polling, Session
from piapi_async.emulator import Emulator, RequestRecord
from piapi_async.errors import PiAPIError, SubmissionInDoubtError, TaskFailedError
from piapi_async.events import Submitted
from piapi_async.task import TaskInfo
from piapi_async.testing import EventLog

SEEDS = range(int(os.environ.get("CHAOS_SEEDS", "1")))


@attrs.frozen(kw_only=True)
class Tally:
    """What the runs came to, by the tasks that their results and errors name."""

    completed: set[str]
    failed: set[str]
    unseen: set[str]
    """Accepted, and their end not seen: too many polls in a row went wrong."""
    in_doubt: int
    refused: int
    """Submits that certainly made no task."""

    @property
    def reported(self) -> set[str]:
        """All tasks that the client knows."""
        return self.completed | self.failed | self.unseen


def sorted_out(outcome: TaskInfo | PiAPIError) -> tuple[str, str]:
    """Which kind an outcome is of, and which task it names."""
    if isinstance(outcome, TaskInfo):
        return "completed", outcome.task_id
    if isinstance(outcome, TaskFailedError):
        return "failed", outcome.info.task_id
    if isinstance(outcome, SubmissionInDoubtError):
        return "in doubt", ""
    if outcome.task_id is not None:
        return "unseen", outcome.task_id
    assert outcome.safe_to_resubmit, outcome
    return "refused", ""


def tallied(outcomes: list[TaskInfo | PiAPIError]) -> Tally:
    """Count them; no task is named twice."""
    found = [sorted_out(outcome) for outcome in outcomes]
    ids = Counter(task_id for _, task_id in found if task_id)
    assert set(ids.values()) <= {1}
    kinds = Counter(kind for kind, _ in found)
    sets = {kind: {task_id for each, task_id in found if each == kind} for kind in ("completed", "failed", "unseen")}
    return Tally(in_doubt=kinds["in doubt"], refused=kinds["refused"], **sets)


async def storm(emulator: Emulator, *, runs: int, **given: Any) -> Tally:
    """So many runs at once, each with a prompt of its own; what is not a typed error is raised."""

    async def run(session: Session, number: int) -> TaskInfo | PiAPIError:
        try:
            return await session.run(Img2Img(prompt=f"bear {number}", image="https://example.com/a.jpg"))
        except PiAPIError as error:
            return error

    async with Session(emulator.api_key, base_url=emulator.url, **given) as session:
        return tallied(await asyncio.gather(*(run(session, number) for number in range(runs))))


def creates(emulator: Emulator, *outcomes: str) -> list[RequestRecord]:
    """The submits that came to one of these outcomes."""
    return [record for record in emulator.requests if record.endpoint == "create" and record.outcome in outcomes]


def assert_all_accounted_for(emulator: Emulator, tally: Tally) -> None:
    """What the client reports and what the emulator knows are the same."""
    emulator.check.no_submit_repeated()
    emulator.check.charged_once_each()
    emulator.check.all_known(tally.reported, in_doubt=tally.in_doubt)
    # An answer that breaks off after the task's id counts as lost over there, and is an acceptance here.
    assert 0 <= len(tally.reported) - len(creates(emulator, "answered")) <= len(creates(emulator, "lost"))
    assert len(emulator.tasks) == len(creates(emulator, "answered", "lost"))
    ends = {task_id: view.status for task_id, view in emulator.tasks.items()}
    assert {ends[task_id] for task_id in tally.completed} <= {"completed"}
    assert {ends[task_id] for task_id in tally.failed} <= {"failed"}


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_and_nothing_twice_in_chaos(seed: int) -> None:
    """Every run ends well or in a typed error; tasks made are those reported and in doubt; no submit is sent twice."""
    log = EventLog()
    async with Emulator(seed, chaos=0.2, concurrency=100) as emulator:
        tally = await storm(emulator, runs=500, observers=[log])
        await asyncio.sleep(3600)
    assert len(tally.reported) + tally.in_doubt + tally.refused == 500
    assert len(tally.completed) > 350
    assert_all_accounted_for(emulator, tally)
    assert {event.info.task_id for event in log.of(Submitted)} == tally.reported


async def test_a_wait_that_gives_up_in_chaos_names_its_task() -> None:
    """When most polls fail and time is short, waits end early; their errors still tell which task was paid for."""
    async with Emulator(chaos=0.2, concurrency=100) as emulator:
        with emulator.faults.often("get", "503", probability=0.7):
            tally = await storm(emulator, runs=100, polling=Polling(timeout=10))
        await asyncio.sleep(3600)
    assert len(tally.unseen) > 15
    assert len(tally.completed) > 5
    assert_all_accounted_for(emulator, tally)
