"""What polling costs: `Learned` beside `Backoff`, fixed intervals and what other SDKs do by default.

    python benchmarks/polling.py [--seeds 16] [--tasks 20000]
    python benchmarks/polling.py --speed

A poll costs 1, and a second between a task's end and the poll that shows it costs the price. For each distribution of
durations the cost of a policy is averaged over 20,000 tasks and divided by that of the best schedule there is, found by
dynamic programming from 100,000 other draws of the same distribution. `Learned` is trained on as many tasks as the
column says, with polls between them as in life, so that it plans by what it had at its last refit; this is repeated for
each seed. Chance (jitter, the spread of polls) is averaged over. Nothing sleeps: a policy is a function of an age.

Four distributions are held out: no constant of `Learned` was chosen by them.

Only the standard library is used. The tables go to benchmarks/results/polling.md, the pictures beside it.
"""

import argparse
import math
import platform
import random
import statistics
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate, count, pairwise
from pathlib import Path

import attrs
import polling_chart as chart

from piapi_async.polling import Backoff, Learned

PRICES = (0.5, 2.0, 8.0)
SAMPLES = (0, 5, 20, 50, 200)
AFTER_CHANGE = (0, 10, 20, 40, 60)
DRAWN = 100_000
ROUNDS = 8
USUAL_ROUNDS = 64
"""So many schedules of a policy that has chance in it are averaged: of one that was trained, and of any other."""
RESULTS = Path(__file__).parent / "results"
KEY = ("Qubico/flux1-dev", "img2img")

Schedule = Sequence[float]
"""When a task is polled, in seconds since it was accepted; the last poll is after the last end."""

Draw = Callable[[random.Random], float]

Policy = Callable[[float, random.Random], list[float]]
"""Makes a schedule that ends after the given moment, with the given source of chance."""


def queue(rng: random.Random) -> float:
    """Most tasks start at once, a third wait for a worker."""
    return rng.lognormvariate(math.log(45), 0.4) if rng.random() < 0.35 else rng.lognormvariate(math.log(0.6), 0.3)


def work(rng: random.Random) -> float:
    """What the worker needs."""
    return rng.lognormvariate(math.log(12), 0.1)


def by_batch_size(rng: random.Random) -> float:
    """One picture, two or four."""
    (seconds,) = rng.choices((4.0, 7.2, 13.5), (0.6, 0.25, 0.15))
    return seconds * rng.lognormvariate(0, 0.06)


def warm_or_cold(rng: random.Random) -> float:
    """Two triangles."""
    return rng.triangular(3, 6, 4) if rng.random() < 0.5 else rng.triangular(15, 22, 20)


CHANGING = "regime change"
QUEUED = "bimodal (queue or none)"

DISTRIBUTIONS: dict[str, Draw] = {
    "log-normal": lambda rng: rng.lognormvariate(math.log(4.5), 0.3),
    QUEUED: lambda rng: queue(rng) + work(rng),
    "shifted exponential": lambda rng: 8 + rng.expovariate(1 / 6),
    "gamma": lambda rng: rng.gammavariate(4, 5),
    "Pareto": lambda rng: 6 * rng.paretovariate(1.8),
    "near-constant": lambda rng: rng.gauss(12, 0.15),
    "mixture by batch size": by_batch_size,
    CHANGING: lambda rng: rng.lognormvariate(math.log(18), 0.25),
}
"""In seconds. Schnell is reported to take 3 to 6 s, dev 8 to 30 s. The last one is what holds after the change."""

HELD_OUT: dict[str, Draw] = {
    "Weibull": lambda rng: rng.weibullvariate(15, 1.5),
    "uniform": lambda rng: rng.uniform(8, 30),
    "two triangles": warm_or_cold,
    "queue and work": lambda rng: rng.lognormvariate(0, 0.3) + rng.lognormvariate(math.log(9), 0.25),
}


class Tasks:
    """Durations, and what schedules come to on them."""

    def __init__(self, seconds: Iterable[float]) -> None:
        self.seconds = sorted(seconds)
        self.sums = [0.0, *accumulate(self.seconds)]
        self.last = self.seconds[-1]

    def outcome(self, schedule: Schedule) -> tuple[float, float]:
        """Polls and seconds of lateness, on average."""
        polls = late = 0.0
        begin = 0
        for number, moment in enumerate(schedule, start=1):
            end = bisect_right(self.seconds, moment, begin)
            polls += number * (end - begin)
            late += moment * (end - begin) - (self.sums[end] - self.sums[begin])
            begin = end
        assert begin == len(self.seconds), "a schedule ends before the tasks do"
        return polls / begin, late / begin


def best_schedule(tasks: Tasks, *, price: float, grid: int = 2000) -> list[float]:
    """The schedule that costs least on average, by dynamic programming over quantiles, and the tail one by one."""
    total = len(tasks.seconds)
    places = sorted({round(step * (total - 1) / grid) for step in range(grid + 1)} | set(range(total - 200, total)))
    times = [0.0, *(tasks.seconds[place] for place in places)]
    over = [0.0, *((place + 1) / total for place in places)]
    parts = [0.0, *(tasks.sums[place + 1] / total for place in places)]  # of the mean duration
    costs, following = [0.0] * len(times), [0] * len(times)
    best = len(times) - 1
    for at in range(len(times) - 2, -1, -1):

        def cost(to: int, at: int = at) -> float:
            late = times[to] * (over[to] - over[at]) - (parts[to] - parts[at])
            return 1 - over[at] + price * late + costs[to]

        best = min(range(at + 1, max(best, at + 1) + 1), key=cost)
        costs[at], following[at] = cost(best), best
    schedule, at = [], 0
    while at < len(times) - 1:
        at = following[at]
        schedule.append(times[at])
    return [*schedule, *(times[-1] * 1.1**step for step in range(1, 60))]


@attrs.frozen
class Case:
    """A distribution, as tasks to be paid for and the best schedules for it."""

    name: str
    draw: Draw
    tasks: Tasks
    best: dict[float, list[float]]

    @classmethod
    def of(cls, name: str, draw: Draw, *, tasks: int, prices: Iterable[float]) -> "Case":
        """The same tasks for everybody."""
        rng = random.Random(name)
        truth = Tasks(draw(rng) for _ in range(DRAWN))
        return cls(
            name,
            draw,
            Tasks(draw(rng) for _ in range(tasks)),
            {price: best_schedule(truth, price=price) for price in prices},
        )

    def cost(self, schedules: Iterable[Schedule], *, price: float) -> float:
        """What schedules cost on average, in units of the best."""
        return statistics.fmean(worth(self.tasks.outcome(one), price=price) for one in schedules) / worth(
            self.tasks.outcome(self.best[price]), price=price
        )


def worth(outcome: tuple[float, float], *, price: float) -> float:
    """The cost of some polls and some lateness."""
    polls, late = outcome
    return polls + price * late


# Policies: each makes schedules that end after the given moment.


def until(end: float, pauses: Iterator[float], *, start: float = 0.0, at_once: bool = False) -> list[float]:
    """The looks after such pauses."""
    moments = [start] * at_once
    moment = start
    while moment < end:
        moment += next(pauses)
        moments.append(moment)
    return moments


def fixed(end: float, _rng: random.Random, *, interval: float, at_once: bool = True) -> list[float]:
    """A poll every so many seconds."""
    return until(end, (interval for _ in count()), at_once=at_once)


def backoff(end: float, rng: random.Random, *, policy: Backoff) -> list[float]:
    """`Backoff`, as it is."""
    bare = accumulate(count(), lambda pause, _: min(policy.maximum, pause * policy.factor), initial=policy.initial)
    return until(end, (min(policy.maximum, pause + policy.jitter * rng.random()) for pause in bare))


def full_jitter(end: float, rng: random.Random) -> list[float]:
    """google-api-core: anything up to a limit that doubles from 1 s to 60 s."""
    limits = accumulate(count(), lambda limit, _: min(60.0, 2 * limit), initial=1.0)
    return until(end, (rng.uniform(0, limit) for limit in limits))


def learned(end: float, rng: random.Random, *, policy: Learned) -> list[float]:
    """`Learned`, with its spread."""
    moments, moment = [], 0.0
    while moment < end:
        moment += policy.delay(KEY, moment, chance=rng.random())
        moments.append(moment)
    return moments


PEERS: dict[str, Policy] = {
    "fal (0.1 s)": partial(fixed, interval=0.1),
    "replicate (0.5 s)": partial(fixed, interval=0.5, at_once=False),
    "comfy (0.5 s x1.5, to 5 s)": partial(backoff, policy=Backoff(initial=0.5, factor=1.5, maximum=5, jitter=0)),
    "runpod, wavespeed, BFL, openai (1 s)": partial(fixed, interval=1.0),
    "luma's README (3 s)": partial(fixed, interval=3.0),
    "google-api-core (full jitter)": full_jitter,
}
INTERVALS = [0.1 * 1.1**step for step in range(70)]


def rounds(policy: Policy, *, case: Case, number: int) -> list[list[float]]:
    """Several schedules of a policy, always with the same chances."""
    rng = random.Random(f"chance {case.name}")
    return [policy(case.tasks.last, rng) for _ in range(number)]


# What Learned costs.


def train(policy: Learned, draw: Draw, *, tasks: int, rng: random.Random) -> None:
    """Let tasks end, with a poll before each so that refits happen when they do in life."""
    for _ in range(tasks):
        policy.delay(KEY, 0.0)
        policy.observe(KEY, max(0.01, draw(rng)))


def stages(case: Case, *, price: float, samples: Sequence[int], seed: int, before: Draw | None) -> list[float]:
    """The cost after each number of tasks, in one life of one policy."""
    policy, rng = Learned(price=price), random.Random(f"{case.name} {seed}")
    if before is not None:
        train(policy, before, tasks=200, rng=rng)
    found = []
    for seen, more in pairwise((0, *samples)):
        train(policy, case.draw, tasks=more - seen, rng=rng)
        number = ROUNDS if more else USUAL_ROUNDS
        found.append(case.cost(rounds(partial(learned, policy=policy), case=case, number=number), price=price))
    return found


def half(draw: Draw, rng: random.Random) -> float:
    """Half as slow."""
    return draw(rng) / 2


@attrs.frozen
class Cell:
    """A cost over several seeds."""

    mean: float
    spread: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.spread:.3f}" if self.spread else f"{self.mean:.3f}"


def cells(case: Case, *, price: float, samples: Sequence[int], seeds: int, changes: bool) -> list[Cell]:
    """The cost after each number of tasks, over all seeds; when it changes, after 200 tasks half as long."""
    before = partial(half, case.draw) if changes else None
    lives = [stages(case, price=price, samples=samples, seed=seed, before=before) for seed in range(seeds)]
    return [Cell(statistics.fmean(column), statistics.pstdev(column)) for column in zip(*lives, strict=True)]


# With the status.


def with_status(policy: Learned, waits: Sequence[tuple[float, float]], *, rng: random.Random) -> tuple[float, float]:
    """Polls and lateness when each poll tells whether the task queues or since when it runs."""
    polls = late = 0.0
    for queued, works in waits:
        moment = 0.0
        while moment < queued + works:
            phase = moment - queued if moment >= queued else None
            moment += policy.delay(KEY, moment, queued=phase is None, running_for=phase, chance=rng.random())
            polls += 1
        late += moment - queued - works
    return polls / len(waits), late / len(waits)


def status_costs(case: Case, *, price: float, samples: Sequence[int], seeds: int, tasks: int) -> list[Cell]:
    """The cost with the status, in units of the best schedule without it."""
    rng = random.Random("status")
    waits = [(queue(rng), work(rng)) for _ in range(tasks)]
    best = worth(Tasks(map(sum, waits)).outcome(case.best[price]), price=price)
    lives = []
    for seed in range(seeds):
        policy, life, chances = Learned(price=price), [], random.Random(seed)
        for seen, more in pairwise((0, *samples)):
            for _ in range(more - seen):
                policy.delay(KEY, 0.0, queued=True)
                wait = queue(chances)
                policy.observe(KEY, wait + work(chances), queued=wait)
            life.append(worth(with_status(policy, waits, rng=rng), price=price) / best)
        lives.append(life)
    return [Cell(statistics.fmean(column), statistics.pstdev(column)) for column in zip(*lives, strict=True)]


# The report.


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def machine() -> str:
    """What this ran on, and when."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"


@attrs.define
class Report:
    """All figures, and what they are measured by."""

    seeds: int
    tasks: int
    learned: dict[tuple[str, float], list[Cell]] = attrs.field(factory=dict)
    backoff: dict[tuple[str, float], float] = attrs.field(factory=dict)
    changed: dict[tuple[str, float], list[Cell]] = attrs.field(factory=dict)
    status: dict[float, list[Cell]] = attrs.field(factory=dict)
    parts: list[str] = attrs.field(factory=list)

    def run(self, cases: Sequence[Case]) -> None:
        """Measure everything."""
        for price in PRICES:
            rows = [self.row(case, price=price) for case in cases]
            head = ["distribution", *(f"Learned, {n}" for n in SAMPLES), "Backoff", "best fixed", *PEERS]
            self.parts += [f"## A second of lateness is worth {price:g} polls", table(head, rows)]
            print(f"price {price:g} done", flush=True)
        self.changes(cases)
        self.with_status(next(case for case in cases if case.name == QUEUED))

    def row(self, case: Case, *, price: float) -> list[object]:
        """One distribution at one price."""
        found = cells(case, price=price, samples=SAMPLES, seeds=self.seeds, changes=case.name == CHANGING)
        usual = case.cost(rounds(partial(backoff, policy=Backoff()), case=case, number=USUAL_ROUNDS), price=price)
        best = min(case.cost(rounds(partial(fixed, interval=i), case=case, number=1), price=price) for i in INTERVALS)
        peers = [case.cost(rounds(policy, case=case, number=USUAL_ROUNDS), price=price) for policy in PEERS.values()]
        self.learned[case.name, price], self.backoff[case.name, price] = found, usual
        name = f"*{case.name}*" if case.name in HELD_OUT else case.name
        return [name, *found, *(f"{value:.2f}" for value in (usual, best, *peers))]

    def changes(self, cases: Sequence[Case]) -> None:
        """What a change costs, for every distribution."""
        rows = []
        for case in cases:
            for price in PRICES:
                found = cells(case, price=price, samples=AFTER_CHANGE, seeds=self.seeds // 2, changes=True)
                self.changed[case.name, price] = found
                rows.append([case.name, f"{price:g}", *found])
        head = ["distribution", "price", *(f"{n} tasks later" for n in AFTER_CHANGE)]
        self.parts += ["## Twice as slow from now on, after 200 tasks", table(head, rows)]

    def with_status(self, case: Case) -> None:
        """What the status is worth."""
        rows = []
        for price in PRICES:
            found = status_costs(case, price=price, samples=SAMPLES[1:], seeds=self.seeds // 4, tasks=self.tasks // 5)
            self.status[price] = found
            rows.append([f"{price:g}", *found])
        head = ["price", *(f"Learned, {n}" for n in SAMPLES[1:])]
        self.parts += [
            "## With the status, in units of the best schedule that ignores it",
            f"Tasks as in *{QUEUED}*: each poll tells whether the task queues, or since when it runs.",
            table(head, rows),
        ]

    def targets(self) -> str:
        """What was to be shown, and what was found."""
        rows = []
        for label, names in (("all eight", DISTRIBUTIONS), ("held out", HELD_OUT)):
            for column, mean, most in ((2, 1.15, math.inf), (3, 1.06, 1.20)):
                found = [self.learned[name, price][column].mean for name in names for price in PRICES]
                rows.append(
                    [f"Learned, {SAMPLES[column]} samples, {label}: mean", *judged(statistics.fmean(found), mean)]
                )
                rows.append([f"Learned, {SAMPLES[column]} samples, {label}: worst cell", *judged(max(found), most)])
        cold = [self.learned[key][0].mean / usual for key, usual in self.backoff.items() if key[0] != CHANGING]
        rows.append(["cold start beside Backoff(): worst cell", *judged(max(cold), 1.0, tolerance=0.005)])
        rows.append(["60 tasks after the change: regime change, worst price", *judged(self._worst(CHANGING), 1.25)])
        rows.append(
            [
                "60 tasks after the change: worst of all distributions",
                *judged(max(map(self._worst, self._names())), 1.25),
            ]
        )
        worst = max(found[2].mean for found in self.status.values())
        rows.append(["Learned with the status, 50 samples, beside the best without: worst price", *judged(worst, 1.0)])
        return table(["to be shown", "found", "allowed", ""], rows)

    def _names(self) -> list[str]:
        return [*DISTRIBUTIONS, *HELD_OUT]

    def _worst(self, name: str) -> float:
        return max(self.changed[name, price][-1].mean for price in PRICES)

    def write(self) -> None:
        """The file in results/."""
        intro = (
            "# What polling costs\n\n"
            f"Made by `python benchmarks/polling.py`: {machine()}. {self.tasks:,} tasks for each distribution,"
            f" {self.seeds} seeds; ± is the standard deviation over them. Every figure is a cost (polls + price x"
            " seconds of lateness) divided by that of the best schedule for the true distribution. *Held out*"
            f" distributions are in italics. In the row *{CHANGING}* tasks take twice as long after 200 tasks,"
            " and the columns count the tasks since.\n\n"
            "![Polls against lateness](polling.svg)\n\n![For each distribution](polling-each.svg)"
        )
        text = "\n\n".join([intro, "## What was to be shown", self.targets(), *self.parts])
        (RESULTS / "polling.md").write_text(text + "\n", encoding="utf-8")


def judged(found: float, allowed: float, *, tolerance: float = 0.0) -> list[str]:
    """A figure beside its bound."""
    if math.isinf(allowed):
        return [f"{found:.3f}", "", ""]
    return [f"{found:.3f}", f"{allowed:.2f}", "met" if found <= allowed + tolerance else "MISSED"]


# The pictures.

CURVE = tuple(2.0**step for step in range(-4, 7))


def point(case: Case, schedules: Iterable[Schedule]) -> tuple[float, float]:
    """Polls and lateness of several schedules, on average."""
    return mean_point([case.tasks.outcome(one) for one in schedules])


def learned_point(case: Case, *, price: float) -> tuple[float, float]:
    """Polls and lateness of `Learned` after 50 tasks."""
    found = []
    for seed in range(6):
        policy = Learned(price=price)
        train(policy, case.draw, tasks=50, rng=random.Random(f"{case.name} picture {seed}"))
        found.append(point(case, rounds(partial(learned, policy=policy), case=case, number=4)))
    return mean_point(found)


def curves(case: Case) -> list[chart.Curve]:
    """Polls against lateness of each policy: a line where it has a knob to turn, else a point."""

    def usual(policy: Policy) -> tuple[float, float]:
        return point(case, rounds(policy, case=case, number=32))

    scaled = [Backoff(initial=scale, maximum=15 * scale, jitter=scale / 2) for scale in (0.125, 0.25, 0.5, 1, 2, 4)]
    intervals = [0.2 * 1.35**step for step in range(14)]
    return [
        chart.Curve("optimum", [case.tasks.outcome(case.best[price]) for price in CURVE], "#111827"),
        chart.Curve("Learned, 50 samples", [learned_point(case, price=price) for price in CURVE], "#2563eb"),
        chart.Curve("fixed interval", [usual(partial(fixed, interval=interval)) for interval in intervals], "#059669"),
        chart.Curve("Backoff", [usual(partial(backoff, policy=policy)) for policy in scaled], "#d97706"),
        *(chart.Curve(name, [usual(policy)], "#b91c1c") for name, policy in PEERS.items()),
    ]


def averaged(panels: Iterable[Sequence[chart.Curve]]) -> list[chart.Curve]:
    """The same policies over several distributions."""
    return [
        attrs.evolve(alike[0], points=[mean_point(points) for points in zip(*(c.points for c in alike), strict=True)])
        for alike in zip(*panels, strict=True)
    ]


def mean_point(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Polls and lateness on average."""
    return statistics.fmean(polls for polls, _ in points), statistics.fmean(late for _, late in points)


def draw(*, tasks: int) -> None:
    """Both pictures."""
    panels = {name: curves(Case.of(name, one, tasks=tasks, prices=CURVE)) for name, one in DISTRIBUTIONS.items()}
    title = "Polls against lateness, mean of eight distributions of durations"
    chart.one(averaged(panels.values()), title=title, path=RESULTS / "polling.svg")
    chart.several(panels, path=RESULTS / "polling-each.svg")


# Speed.


def speed(*, tasks: int = 20_000) -> None:
    """Time a long life of one policy, all tasks with their status; what others did on the processor is left out."""
    rng = random.Random(1)
    policy = Learned()
    durations = [(queue(rng), work(rng)) for _ in range(tasks)]
    decisions: list[float] = []
    begun = time.thread_time()
    for queued, works in durations:
        moment = 0.0
        while moment < queued + works:
            phase = moment - queued if moment >= queued else None
            asked = time.thread_time()
            moment += policy.delay(KEY, moment, queued=phase is None, running_for=phase)
            decisions.append(time.thread_time() - asked)
        policy.observe(KEY, queued + works, queued=queued)
    each = (time.thread_time() - begun) / len(decisions)
    refits = sorted(decisions)[-200:]
    print(machine())
    print(f"{tasks} tasks, {len(decisions)} decisions: {each * 1e6:.1f} us each, with all learning and refits")
    print(f"the median decision: {statistics.median(decisions) * 1e6:.1f} us")
    print(f"the slowest 200, plans made anew: {statistics.median(refits) * 1e3:.2f} ms, at most {refits[-1] * 1e3:.2f}")
    print(f"state: {len(policy.to_json()):,} bytes of JSON")


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--speed", action="store_true", help="time the decisions, and nothing else")
    given = parser.parse_args()
    if given.speed:
        speed()
        return
    RESULTS.mkdir(exist_ok=True)
    begun = time.perf_counter()
    named = {**DISTRIBUTIONS, **HELD_OUT}
    report = Report(seeds=given.seeds, tasks=given.tasks)
    report.run([Case.of(name, one, tasks=given.tasks, prices=PRICES) for name, one in named.items()])
    report.write()
    print(report.targets())
    draw(tasks=given.tasks)
    print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
