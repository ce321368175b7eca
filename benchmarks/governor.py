"""What the governor does for a thousand tasks on a server that bears 20 requests a second and answers 429 beyond.

    python benchmarks/governor.py [--tasks 1000] [--rate 20] [--write]

Client and emulator share one event loop in virtual time, over real sockets: seconds pass as in reality for both of
them, but waiting costs none, so that minutes take seconds here and nothing depends on the machine. Its 429s ask to wait
for a second. Four clients take turns:

- one whose governor is told nothing, one that is told the rate;
- one without a governor, where each request honours the `Retry-After` of its own 429s only;
- the same with a patience that has no end, as the usual one loses most tasks.

The ideal time is that of the requests that were answered well, at the server's rate. The first 20 s are warm-up.

A second table is of a server that bears any rate and answers 429 to 5 % of all requests at random, beside one that does
not; there the ideal time is that of the latter.
"""

import argparse
import asyncio
import math
import sys
from pathlib import Path
from typing import Any

import attrs

from piapi_async import Backoff, Governor, Img2Img, PiAPIError, Polling, RetryPolicy, Session
from piapi_async.emulator import Constant, Emulator, Uniform
from piapi_async.testing import run_in_virtual_time

WARM_UP = 20.0
POLLING = Polling(wait=Backoff())
RESULTS = Path(__file__).parent / "results" / "governor.md"
HEAD = """\
| governor | completed | requests | 429s | 429s after warm-up | seconds | ideal | seconds / ideal |
|---|---:|---:|---:|---:|---:|---:|---:|"""


RANDOM_HEAD = """\
| refused at random | completed | requests | 429s | seconds | seconds / without |
|---|---:|---:|---:|---:|---:|"""


class NoGovernor(Governor):
    """Each request has a queue of its own, and nothing is learned."""

    def turn(self, kind: Any = "poll", **options: Any) -> Any:
        """A permit of a queue that nobody else uses."""
        return Governor().turn(kind, max_wait=options["max_wait"])


@attrs.frozen(kw_only=True)
class Client:
    """One way to send a thousand tasks."""

    name: str
    governor: Governor
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    polling: Polling = POLLING


@attrs.frozen(kw_only=True)
class Outcome:
    """What one client came to."""

    completed: int
    seconds: float
    ideal: float
    statuses: list[int]
    late: list[int]

    def random_row(self, name: str, *, ideal: float) -> str:
        """A line of the second table."""
        return (
            f"| {name} | {self.completed} | {len(self.statuses)} | {self.statuses.count(429)} | {self.seconds:.1f} |"
            f" {self.seconds / ideal:.2f} |"
        )

    def row(self, name: str) -> str:
        """A line of the table."""
        refused, late = self.statuses.count(429), self.late.count(429)
        share = f"{late} of {len(self.late)} ({late / max(1, len(self.late)):.2%})"
        return (
            f"| {name} | {self.completed} | {len(self.statuses)} | {refused} | {share} | {self.seconds:.0f} |"
            f" {self.ideal:.0f} | {self.seconds / self.ideal:.2f} |"
        )


def clients(rate: float) -> list[Client]:
    """All of them."""
    endless = {
        "retry": RetryPolicy(attempts=10**6, timeout=10**6),
        "polling": attrs.evolve(POLLING, timeout=None, max_errors=10**6),
    }
    return [
        Client(name="told nothing", governor=Governor()),
        Client(name=f"told {rate:g} a second", governor=Governor(requests_per_second=rate)),
        Client(name="none", governor=NoGovernor()),
        Client(name="none, endless patience", governor=NoGovernor(), **endless),  # type: ignore[arg-type] # as named
    ]


async def measure(client: Client, *, tasks: int, rate: float | None, random: float = 0.0) -> Outcome:
    """Run all tasks at once; a part of all requests may be refused at random."""
    request = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
    work, loop = Uniform(3.0, 12.0), asyncio.get_running_loop()
    async with Emulator(
        requests_per_second=rate, concurrency=10**6, queue_delay=Constant(1.0), durations=work, keep_requests=10**6
    ) as server:
        began = loop.time()
        for endpoint in ("create", "get") if random else ():
            server.faults.often(endpoint, "429", probability=random, retry_after=1)
        async with Session(
            server.api_key, base_url=server.url, governor=client.governor, retry=client.retry, polling=client.polling
        ) as session:
            done = await asyncio.gather(*(session.run(request) for _ in range(tasks)), return_exceptions=True)
        seconds, requests = loop.time() - began, server.requests
    failures = [one for one in done if isinstance(one, BaseException)]
    if not all(isinstance(one, PiAPIError) for one in failures):
        raise ExceptionGroup("these were not expected", [one for one in failures if isinstance(one, Exception)])
    statuses = [(one.time, one.status or 0) for one in requests]
    return Outcome(
        completed=tasks - len(failures),
        seconds=seconds,
        ideal=sum(status == 200 for _, status in statuses) / (rate or math.inf),
        statuses=[status for _, status in statuses],
        late=[status for time, status in statuses if time > WARM_UP],
    )


def report(*, tasks: int, rate: float) -> str:
    """All clients, as a table."""
    rows = []
    for client in clients(rate):
        outcome = run_in_virtual_time(measure(client, tasks=tasks, rate=rate))
        rows.append(outcome.row(client.name))
        print(f"{client.name}: {client.governor!r}", file=sys.stderr)
    rows = [f"{tasks} tasks of 4 to 13 s, {rate:g} requests a second borne.", "", HEAD, *rows, "", RANDOM_HEAD]
    ideal = 0.0
    for random in (0.0, 0.01, 0.05):
        outcome = run_in_virtual_time(
            measure(Client(name="", governor=Governor()), tasks=tasks, rate=None, random=random)
        )
        ideal = ideal or outcome.seconds
        rows.append(outcome.random_row(f"{random:.0%}", ideal=ideal))
    return "\n".join(rows)


def main() -> None:
    """Read the arguments, run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--write", action="store_true", help="write the table to results/governor.md, too")
    given = parser.parse_args()
    table = report(tasks=given.tasks, rate=given.rate)
    print(table)
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(f"# benchmarks/governor.py\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
