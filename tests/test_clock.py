"""The service's clock, learned from its answers, where the machine's own may be wrong."""

import asyncio
import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_server import RawServer, Received, answer

from piapi_async import Backoff, Batch, Polling, Session, Txt2Img
from piapi_async._asyncio import OFFSET_MAX, Clock
from piapi_async.testing import run_in_virtual_time

HOUR = 3600.0
SIMPLE = Polling(wait=Backoff())
HISTORY = "/api/open/tasks/histories"


def learned(*ahead: float, took: float = 0.2) -> float:
    """What a clock makes of servers that are ahead by so many seconds, one answer each."""

    async def answered() -> float:
        clock = Clock()
        for seconds in ahead:
            clock.learn(float(int(time.time() + seconds)), took=took)
        return clock.offset

    return asyncio.run(answered())


@given(ahead=st.floats(-20 * 86400, 20 * 86400), took=st.floats(0, 100), count=st.integers(2, 9))
def test_a_clock_that_is_wrong_is_set_right(ahead: float, took: float, count: int) -> None:
    """Whole seconds and slow answers cost no more than they have to; a right clock is left alone."""
    offset = learned(*[ahead] * count, took=took)
    assert abs(offset - ahead) <= took + 1.5
    assert abs(offset) <= abs(ahead) + 1.5


@pytest.mark.parametrize("took", [0.0, 0.5, 100.0])
def test_a_clock_that_is_right_stays_as_it_is(took: float) -> None:
    """What rounding down, and the time on the way, explain is no difference; it stays exactly 0."""
    assert learned(0, 0, 0, 0, 0, took=took) == 0.0


@pytest.mark.parametrize("odd", [-HOUR, HOUR, 20 * 86400])
def test_one_odd_answer_changes_nothing(odd: float) -> None:
    """One server of many, or a cache, may be wrong: it is outvoted, wherever it comes."""
    assert learned(odd) == 0.0
    for place in range(5):
        answers = [0.0] * 4
        answers.insert(place, odd)
        assert learned(*answers) == 0.0
        others = [100.0] * 5
        others.insert(place, odd)
        assert learned(*others) == pytest.approx(100, abs=1.5)


def test_a_clock_that_is_set_right_is_believed_again() -> None:
    """The last answers count, so a change is learned in both directions."""
    assert learned(*[HOUR] * 9) == pytest.approx(HOUR, abs=1.5)
    assert learned(*[HOUR] * 9, *[0.0] * 3) == 0.0


def test_what_cannot_be_is_not_believed() -> None:
    """A date of another age is no reading of a clock."""
    assert learned(*[OFFSET_MAX + 60] * 5, *[-OFFSET_MAX - 60] * 5) == 0.0


async def test_the_time_is_by_the_services_clock() -> None:
    """`now` is corrected, `monotonic` is not."""
    clock = Clock()
    before = clock.monotonic()
    for _ in range(3):
        clock.learn(float(int(time.time() + HOUR)), took=0.0)
    assert clock.now() - Clock().now() == pytest.approx(HOUR, abs=1.5)
    assert clock.monotonic() - before < HOUR / 2


def dated(ahead: float, **more: str) -> bytes:
    """A task that is over, from a server whose clock is ahead."""
    data = {"task_id": "t", "status": "processing"}
    return answer({"code": 200, "data": data}, headers={"Date": formatdate(time.time() + ahead, usegmt=True), **more})


async def test_a_session_learns_from_every_answer() -> None:
    """Three answers are enough; those of one second count once, and those without a date, or of a cache, not at all."""
    replies = [dated(HOUR), dated(HOUR), dated(HOUR + 1), dated(HOUR + 2)]
    others = [answer(b"{}"), dated(-9e5, Age="5"), answer(b"{}", headers={"Date": "nonsense"})]
    async with RawServer(*replies, *others) as server, Session("k", base_url=server.url) as session:
        seen = []
        for _ in replies:
            await session.get_task("t")
            seen.append(session.clock_offset)
        assert seen[:2] == [0.0, 0.0]
        assert seen[3] == pytest.approx(HOUR, abs=4)
        for _ in others:
            await asyncio.gather(session.get_task("t"), return_exceptions=True)
        assert session.clock_offset == seen[3]


class Ahead:
    """A service whose clock is ahead, and which loses the answer to its first submit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.tasks: dict[str, dict[str, Any]] = {}
        self.answers = 0

    async def __call__(self, received: Received, writer: asyncio.StreamWriter) -> None:
        """One answer, with the date by its clock."""
        now = Clock().now() + self.seconds
        method, path = received.line.split(" ")
        url = urlsplit(path)
        data: Any
        if method == "POST":
            data = json.loads(received.body) | {"task_id": f"t-{len(self.tasks) + 1}", "status": "pending"}
            self.tasks[data["task_id"]] = data
            data["meta"] = {"created_at": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}Z"}
            data["created"] = now
            if len(self.tasks) == 1:
                writer.close()
                return
        elif url.path == HISTORY:
            window = {name: int(text) for name, (text,) in parse_qs(url.query).items() if name.endswith("_time")}
            inside = [
                {"task_id": name}
                for name, one in self.tasks.items()
                if window["start_time"] <= one["created"] <= window["end_time"]
            ]
            data = {"data": inside}
        else:
            data = self.tasks[url.path.rpartition("/")[2]] | {
                "status": "completed",
                "output": {"image_url": "https://example.com/a.png"},
            }
        # In virtual time a server's date is still the machine's; here it moves on a little with each answer.
        self.answers += 1
        date = formatdate(time.time() + self.seconds + self.answers, usegmt=True)
        writer.write(answer({"code": 200, "data": data}, headers={"Date": date}))
        await writer.drain()


@pytest.mark.parametrize("ahead", [-HOUR, 5 * HOUR, 30.0])
def test_a_lost_task_is_found_though_the_machines_clock_is_wrong(ahead: float, tmp_path: Path) -> None:
    """The history is asked for the time of the submit by the service's clock."""

    async def main() -> list[str]:
        async with RawServer(Ahead(ahead)) as server, Session("k", base_url=server.url, polling=SIMPLE) as session:
            batch = Batch(session, ledger=tmp_path / "jobs.db", on_doubt="reconcile", max_in_flight=1)
            outcomes = await batch.gather([Txt2Img(prompt=f"a bear {number}") for number in range(4)])
            return [type(one).__name__ for one in outcomes]

    assert run_in_virtual_time(main()) == ["Succeeded"] * 4
