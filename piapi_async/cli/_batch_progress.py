"""How a batch comes along: two lines that live on a terminal, and a line now and then elsewhere."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from piapi_async import errors, events
from piapi_async._text import counted
from piapi_async.batch._outcomes import Failed, Outcome
from piapi_async.cli._errors import spoken
from piapi_async.cli._progress import Screen
from piapi_async.task import TaskInfo

PAUSE = 10.0
"""Seconds between two lines where nothing lives; a tenth of that when a tenth of the jobs is done sooner."""

SHOWN = 20
"""How many failures are shown, one a line; all are in the ledger and in the report."""

WINDOW = 200
"""How many jobs the rate is made from."""


class Tally(Screen):
    """Counts the outcomes of a batch, and shows them; an observer.

    Args:
        console: Where to.

        total: How many jobs there are.

    Attributes:
        counts: How many jobs are `completed`, `failed`, `in_doubt`, or `in_flight`: let go while their task goes on.

        pictures: How many there are on disk.

        usd: What the ledger says was spent, or is set aside.

        reasons: Why jobs failed, by their keys.

        states: Which of `counts` each job is in that did not complete, by its key.
    """

    def __init__(self, console: Console, *, total: int) -> None:
        super().__init__(console)
        self.total = total
        self.counts: Counter[str] = Counter()
        self.pictures = 0
        self.usd = 0.0
        self.reasons: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self._in_doubt = 0
        self._is_settled = False
        self._in_flight: set[str] = set()
        self._ended: set[str] = set()
        self._times = deque([0.0], maxlen=WINDOW)
        self._told, self._told_at = 0, 0.0
        self._bar = ProgressBar(total=total, complete_style="green", finished_style="green")

    @property
    def done(self) -> int:
        """How many jobs are over: neither in flight nor still to be sent."""
        return self.counts.total() - self.counts["in_flight"]

    def __call__(self, event: events.Event) -> None:
        """Take one event."""
        match event:
            case events.Submitted(info=info) | events.Polled(info=info):
                self._follow(info)
            case _:
                pass

    def _follow(self, info: TaskInfo) -> None:
        if info.is_terminal:
            self._in_flight.discard(info.task_id)
            self._ended.add(info.task_id)
        else:
            self._in_flight.add(info.task_id)

    def take(self, outcome: Outcome) -> None:
        """Count an outcome, and show what the display does not show by itself."""
        info = outcome.info
        if isinstance(outcome, Failed):
            self._failed(outcome)
        else:
            self.counts["completed"] += 1
            self.pictures += len(outcome.paths)
        # What a former run did is answered at once, and says nothing about the rate.
        if info is None or info.task_id in self._ended:
            self._times.append(self.now)
        if info is not None:
            self._ended.discard(info.task_id)
            self._in_flight.discard(info.task_id)
        self._tell()

    def refresh(self, *, usd: float, in_doubt: int) -> None:
        """Take what the ledger says: what was spent, and how many doubts there are that came up in this run."""
        self.usd, self._in_doubt = usd, in_doubt

    def settle(self, states: Mapping[str, str]) -> None:
        """Take what the ledger says, in the end, of jobs that are neither over nor planned, by their keys.

        A job without an outcome stands as it says there. Where the wait for a task failed, the task is in flight.
        """
        for key, state in states.items():
            known = self.states.get(key)
            if known == "failed" and state == "in_flight":
                self.counts[known] -= 1
            elif known is not None or self.counts.total() == self.total:  # the ledger has jobs of other files as well
                continue
            self.states[key] = state
            self.counts[state] += 1
        self._in_flight.clear()
        self._in_doubt, self._is_settled = 0, True
        if self.counts.total() and self.done < self.total:
            self.note(", ".join(self.facts()))

    def standing(self, *, at_work: int) -> dict[str, int]:
        """How many jobs are in which state: five counts that add up to all of them.

        Args:
            at_work: How many may have been worked on at once, of which nobody knows when `settle` was not called.
        """
        counts, rest = Counter(self.counts), self.total - self.counts.total()
        if not self._is_settled:
            in_flight = min(len(self._in_flight), rest)
            in_doubt = max(0, min(at_work, rest) - in_flight)
            counts.update(in_flight=in_flight, in_doubt=in_doubt)
        found = {name: counts[name] for name in ("completed", "failed", "in_doubt", "in_flight")}
        return {**found, "not_sent": self.total - sum(found.values())}

    def _failed(self, outcome: Failed) -> None:
        error = outcome.error
        state = "in_doubt" if isinstance(error, errors.SubmissionInDoubtError) else "failed"
        state = "in_flight" if isinstance(error, errors.WaitTimeoutError) else state
        self.counts[state] += 1
        if isinstance(error, errors.PiAPIError) and error.task_id is not None:
            self._in_flight.discard(error.task_id)
        if outcome.key is not None:
            self.reasons[outcome.key] = spoken(error)
            self.states[outcome.key] = state
        number = self.counts.total() - self.counts["completed"]
        if number <= SHOWN:
            self.say(_about(outcome))
        elif number == SHOWN + 1:
            self.say("more failures are not shown here, but in the ledger and in the report")

    def _tell(self) -> None:
        age = self.now - self._told_at
        is_due = age >= PAUSE or (age >= PAUSE / 10 and (self.done - self._told) * 10 >= self.total)
        if is_due or self.done == self.total:
            self._told, self._told_at = self.done, self.now
            self.note(", ".join(self.facts()))

    def facts(self) -> Iterator[str]:
        """How it stands, in a few words each."""
        yield f"{self.done:,} of {counted(self.total, 'job')}"
        rate = (len(self._times) - 1) / max(self.now - self._times[0], 1e-3)
        if rate:
            yield f"{60 * rate:,.0f} a minute"
            if self.done < self.total:
                yield f"{_clock((self.total - self.done) / rate)} left"
        yield f"{self.usd:,.4f} USD spent"
        yield f"{len(self._in_flight) + self.counts['in_flight']:,} in flight"
        if self.counts["failed"]:
            yield f"{self.counts['failed']:,} failed"
        if in_doubt := max(self._in_doubt, self.counts["in_doubt"]):
            yield f"{in_doubt:,} in doubt"
        if self._is_settled and (rest := self.total - self.counts.total()):
            yield f"{rest:,} not sent"

    def __rich__(self) -> RenderableType:
        self._bar.update(self.done)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._spinner, self._bar)
        return Group(grid, Text(", ".join(self.facts())))


def _about(outcome: Failed) -> str:
    words = spoken(outcome.error)
    return words if outcome.key is None or repr(outcome.key) in words else f"job {outcome.key}: {words}"


def _clock(seconds: float) -> str:
    minutes = int(seconds) // 60
    hours = f"{minutes // 60}:{minutes % 60:02}" if minutes >= 60 else f"{minutes}"  # noqa: PLR2004 - to an hour
    return f"{hours}:{int(seconds) % 60:02}"
