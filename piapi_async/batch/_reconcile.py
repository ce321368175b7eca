"""Doubt settled: which task came of a submit whose answer was lost?

The service has no idempotency key, but two things tell (https://piapi.ai/blogs/piapi-retry-safe-tasks asks to look
before one pays again):

- a token in the webhook URL of each attempt, which the service echoes in the task's `config`;
- the history, which lists the tasks of a time, without their inputs; a poll of each shows the input.

A task that no job of the ledger has, of the same model and kind, with the same prompt and nothing else that differs,
made at the time of the attempt, is adopted when it can be no other's. How long the history lags, and whether it lists
tasks that are not over, is not public. Therefore

- without a token nothing is adopted until some time after the attempt: the one task that is listed so far may be
  somebody else's, and ours still to come;
- *no task found* is never taken for *no task*: the doubt stays, and says why. Only the user decides to pay again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs

from piapi_async import errors
from piapi_async._asyncio import Clock
from piapi_async._candidates import APART, Candidates, endpoint, is_near
from piapi_async.ledger import Row, SQLiteLedger
from piapi_async.session import Session
from piapi_async.task import TaskInfo


@attrs.frozen(kw_only=True)
class Finding:
    """What one reading of the history told about jobs in doubt.

    Attributes:
        tasks: The task of each job that could be settled, by the job's key.

        reasons: Why each of the others could not, by its key.

        is_last: Whether a later reading will hardly tell more, by each job's key.
    """

    tasks: Mapping[str, str]
    reasons: Mapping[str, str]
    is_last: Mapping[str, bool] = attrs.field(factory=dict)


@attrs.define(kw_only=True)
class Reconciler:
    """Looks for the tasks of jobs in doubt. What it read once it remembers.

    Args:
        session: The account.

        ledger: What is known already.

        within: Seconds after an attempt in which its task may still turn up.
    """

    session: Session
    ledger: SQLiteLedger
    within: float
    clock: Clock = attrs.field(factory=Clock)
    _candidates: Candidates = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._candidates = Candidates(history=self.session.history, read=self.session.get_task)

    def is_ripe(self, row: Row) -> bool:
        """Whether a job's task would be listed by now."""
        return self.clock.now() >= _time(row) + self.within

    async def settle(self, rows: Sequence[Row]) -> Finding:
        """Read the history once, and note in the ledger the tasks that can be told to be these jobs', and why not.

        Raises:
            LedgerError: The ledger cannot be read or written.
        """
        tasks: dict[str, str] = {}
        reasons: dict[str, str] = {}
        ripe = {row.key: self.is_ripe(row) for row in rows}
        # The ledger's times are by this machine's clock, what the service lists is by its own.
        rows = [attrs.evolve(row, since=_time(row) + self.session.clock_offset) for row in rows]
        for cluster in clusters(rows):
            try:
                found = await self._settle(cluster, ripe=ripe)
            except (errors.APIError, errors.TransportError, errors.UnexpectedResponseError) as error:
                reasons |= {row.key: f"the history could not be read: {error}" for row in cluster}
            else:
                tasks |= found.tasks
                reasons |= found.reasons
        await self.ledger.explain(reasons)
        # Equal jobs are told apart together, so for none of them this was the last reading before it is for all.
        unripe = {row.content.fingerprint for row in rows if not ripe[row.key]}
        is_last = {row.key: row.content.fingerprint not in unripe for row in rows}
        return Finding(tasks=tasks, reasons=reasons, is_last=is_last)

    async def _settle(self, rows: Sequence[Row], *, ripe: Mapping[str, bool]) -> Finding:
        infos = await self._candidates.between(
            _time(rows[0]), _time(rows[-1]), models=[row.content.model for row in rows], unknown=self.ledger.unknown
        )
        finding = match(rows, infos, busy=await self.ledger.rivals(rows), ripe=ripe)
        reasons = dict(finding.reasons)
        settled = {row.key: row for row in rows}
        for key, task_id in finding.tasks.items():
            try:
                await self.ledger.accepted(key, task_id=task_id)
            except errors.LedgerError as error:
                reasons[key] = str(error)
            else:
                await self.session.found(task_id, settled[key].content, since=_time(settled[key]))
        return Finding(tasks={key: it for key, it in finding.tasks.items() if key not in reasons}, reasons=reasons)


def clusters(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The jobs by the time of their attempts, those together that one reading of the history serves."""
    cluster: list[Row] = []
    for row in sorted(rows, key=_time):
        if cluster and _time(row) - _time(cluster[-1]) > 2 * APART:
            yield cluster
            cluster = []
        cluster.append(row)
    if cluster:
        yield cluster


def match(
    rows: Sequence[Row], infos: Sequence[TaskInfo], *, busy: Collection[str], ripe: Mapping[str, bool]
) -> Finding:
    """Which task is which job's, as far as it can be told. Equal jobs are interchangeable.

    Args:
        rows: Jobs in doubt.

        infos: Tasks that are no job's.

        busy: Contents, by fingerprint, that are being submitted at this moment: a task of such may be anybody's.

        ripe: Whether a job's task would be listed by now, by the job's key.
    """
    tasks = {row.key: info.task_id for info in infos for row in rows if has_token(row, info)}
    fitting = {info.task_id: [row for row in rows if row.key not in tasks and fits(row, info)] for info in infos}
    reasons: dict[str, str] = {}
    equals: dict[str, list[Row]] = {}
    for row in rows:
        if row.key not in tasks:
            equals.setdefault(row.content.fingerprint, []).append(row)
    for fingerprint, group in equals.items():
        theirs = [task_id for task_id, found in fitting.items() if any(row in group for row in found)]
        why = _ambiguity(group, [fitting[task_id] for task_id in theirs], is_busy=fingerprint in busy, ripe=ripe)
        if not why:
            tasks |= _assigned(group, theirs, fitting=fitting)
            why = "no task of it is listed, which does not prove that there is none"
        reasons |= {row.key: why for row in group if row.key not in tasks}
    return Finding(tasks=tasks, reasons=reasons)


def _ambiguity(
    group: Sequence[Row], fitting: Sequence[Sequence[Row]], *, is_busy: bool, ripe: Mapping[str, bool]
) -> str:
    if not all(ripe[row.key] for row in group):
        return "it is too early to tell, as the history lags"
    if is_busy and fitting:
        return "a task fits, but an equal job is being submitted at this moment"
    if len(fitting) > len(group):
        return f"{len(fitting)} tasks fit, for {len(group)} such jobs"
    others = [row.key for rows in fitting for row in rows if row not in group]
    return f"a task fits that may be of job {others[0]!r} as well" if others else ""


def _assigned(group: Sequence[Row], task_ids: Sequence[str], *, fitting: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    tasks: dict[str, str] = {}
    # A task that fits few goes first; it would find its place taken otherwise.
    for task_id in sorted(task_ids, key=lambda task_id: len(fitting[task_id])):
        free = next((row.key for row in fitting[task_id] if row in group and row.key not in tasks), None)
        if free is not None:
            tasks[free] = task_id
    return tasks


def has_token(row: Row, info: TaskInfo) -> bool:
    """Whether a task is certainly that of a job's last attempt."""
    return row.token is not None and row.token in endpoint(info)


def fits(row: Row, info: TaskInfo) -> bool:
    """Whether a task can be that of a job's last attempt, by what it shows; one that has another's token cannot."""
    if row.token is not None and endpoint(info):
        return False
    return is_near(info, since=_time(row)) and row.fits(info)


def _time(row: Row) -> float:
    return row.since or 0.0
