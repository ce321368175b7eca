"""The task behind a batch: workers that do jobs, each the next one the moment it is done with one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import attrs

from piapi_async import _atomic, errors
from piapi_async._asyncio import Clock
from piapi_async.batch._outcomes import Failed, Outcome
from piapi_async.batch._queue import Intake
from piapi_async.batch._reconcile import Finding, Reconciler
from piapi_async.batch._runner import Doubtful, Held, Job, Jobs, OnDoubt
from piapi_async.batch._stopping import Brake
from piapi_async.ledger import LEASE, JobState, SQLiteLedger

HEARTBEAT = LEASE / 4
"""Seconds between two signs of life to other processes on the same ledger."""

PAUSE = 1.0
"""Seconds until a job that another process works on is tried again."""

READINGS = 12
"""How often the history is read, while a task may still turn up in it that a token tells for certain."""

Given = tuple[Job, Outcome]


@attrs.define(kw_only=True, eq=False)
class Crew:
    """Works until nothing is left to do, or the brake is on.

    Args:
        jobs: How a job is done.

        intake: What is to be done.

        brake: Whether to go on.

        size: How many work at once.

        on_doubt: What to do about doubt.

        within: For how many seconds after a submit its task is looked for.

    Attributes:
        outcomes: What became of jobs; `None` behind the last one.

        begun: The jobs that are being done, by their numbers; when the crew is gone, those that it let go.

        room: To be released for each outcome that is taken out: nobody works ahead of a slow reader without bound.
    """

    jobs: Jobs
    intake: Intake
    brake: Brake
    size: int
    on_doubt: OnDoubt
    within: float
    outcomes: "asyncio.Queue[Given | None]" = attrs.field(factory=asyncio.Queue, init=False)
    begun: dict[int, Job] = attrs.field(factory=dict, init=False)
    room: asyncio.Semaphore = attrs.field(init=False)
    _clock: Clock = attrs.field(factory=Clock, init=False)
    _doubts: list[Doubtful] = attrs.field(factory=list, init=False)
    _group: asyncio.TaskGroup | None = attrs.field(default=None, init=False)
    _busy: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.room = asyncio.Semaphore(self.size)

    @property
    def _settles(self) -> bool:
        return self.on_doubt in ("resubmit", "reconcile")

    async def run(self) -> None:
        """Do what there is to do."""
        try:
            async with asyncio.TaskGroup() as group:
                heart = group.create_task(self._beat())
                await self._rounds()
                heart.cancel()
        finally:
            try:
                with self.brake.on_error(is_stream=True):
                    await self.intake.aclose()
            finally:
                self.outcomes.put_nowait(None)

    def hire(self) -> None:
        """One more worker, if there is room among those at work."""
        if self._group is not None and 0 < self._busy < self.size:
            self._begin_work(self._group)

    async def _rounds(self) -> None:
        with self.brake.on_error():
            await self._begin()
        while not self.brake.is_on and self.intake.has_more:
            async with asyncio.TaskGroup() as self._group:
                for _ in range(self.size):
                    self._begin_work(self._group)
            with self.brake.on_error():
                await self._settle()
        for doubtful in self._doubts:
            await self._report(doubtful)

    async def _begin(self) -> None:
        """Make the place for pictures, take over what other runs left, and let what was paid for come first."""
        if self.jobs.save_to is not None:
            await asyncio.to_thread(_atomic.make_directory, self.jobs.save_to)
        ledger = self.jobs.ledger
        if ledger is None:
            return
        await ledger.hold(self.jobs.owner)
        if self._settles:
            reconciler = self._reconciler(ledger)
            rows = [row async for row in ledger.rows(JobState.IN_DOUBT) if row.owner is None]
            await reconciler.settle([row for row in rows if row.token is not None or reconciler.is_ripe(row)])
        self.intake.add_first(self._left_over(ledger))

    async def _left_over(self, ledger: SQLiteLedger) -> AsyncIterator[Job]:
        for state in [JobState.COMPLETED] * self.jobs.saves + [JobState.SUBMITTED]:
            async for row in ledger.rows(state, is_unsaved=True):
                yield Job(request=None, key=row.key, row=row)

    def _begin_work(self, group: asyncio.TaskGroup) -> None:
        self._busy += 1
        group.create_task(self._work())

    async def _work(self) -> None:
        try:
            while (job := await self._next_job()) is not None:
                with self.brake.on_error():
                    await self._handle(await self.jobs.do(job), job)
        finally:
            self._busy -= 1

    async def _next_job(self) -> Job | None:
        job = None
        with self.brake.may_interrupt(), self.brake.on_error(is_stream=True):
            # While there are doubts to settle, jobs that others hold can wait: the others may be waiting for ours.
            job = None if self.brake.is_on else await self.intake.next(patient=not self._doubts)
        if job is not None:
            if (early := job.not_before - self._clock.monotonic()) > 0:
                with self.brake.may_interrupt():
                    await self._clock.sleep(early)
                if self.brake.is_on:
                    self.intake.put_off(job)
                    return None
            self.begun[job.number] = job
        return job

    async def _handle(self, found: Outcome | Held | Doubtful | None, job: Job) -> None:
        if isinstance(found, Held):
            if job.request is not None:
                del self.begun[job.number]
                self.intake.put_off(attrs.evolve(found.job, not_before=self._clock.monotonic() + PAUSE))
        elif isinstance(found, Failed) and isinstance(found.error, errors.SpendLimitError):
            del self.begun[job.number]
            self.intake.put_off(job)  # nothing was sent: it is as those that come after it, and the brake is on
        elif not isinstance(found, Doubtful):
            await self._give(job, found)
        elif self._settles:
            self._doubts.append(found)
        else:
            await self._report(found)

    async def _settle(self) -> None:
        """Look for the tasks of jobs in doubt, for as long as they may turn up; then do with them as the user says."""
        ledger = self.jobs.ledger
        if ledger is None:
            return
        reconciler, has_found = self._reconciler(ledger), False
        while self._doubts and not has_found:
            with self.brake.may_interrupt():
                await self._clock.sleep(self._pause())
            if self.brake.is_on:
                return
            finding = await reconciler.settle([doubtful.row for doubtful in self._doubts])
            has_found = bool(finding.tasks)
            for doubtful in tuple(self._doubts):
                if await self._is_decided(doubtful, finding, ledger=ledger):
                    self._doubts.remove(doubtful)

    def _pause(self) -> float:
        """Seconds until a reading of the history may tell something new: a token tells at once."""
        last: dict[str, float] = {}  # of equal jobs, which are told apart together
        for doubtful in self._doubts:
            fingerprint = doubtful.row.content.fingerprint
            last[fingerprint] = max(last.get(fingerprint, 0.0), doubtful.row.since or 0.0)
        ripe = min(last.values()) + self.within - self._clock.now()
        return min(ripe, self.within / READINGS) if self.jobs.webhook is not None else ripe

    async def _is_decided(self, doubtful: Doubtful, finding: Finding, *, ledger: SQLiteLedger) -> bool:
        """Whether it is known what to do with a job in doubt, and was done."""
        key, job = doubtful.row.key, doubtful.job
        if key in finding.tasks:
            await self._again(job, doubtful)
        elif not finding.is_last[key]:
            return False
        elif self.on_doubt == "resubmit" and not job.is_resubmitted:
            await ledger.resubmit(key)
            await self._again(attrs.evolve(job, is_resubmitted=True), doubtful)
        else:
            await self._report(attrs.evolve(doubtful, why=finding.reasons[key]))
        return True

    def _reconciler(self, ledger: SQLiteLedger) -> Reconciler:
        return Reconciler(session=self.jobs.session, ledger=ledger, within=self.within)

    async def _again(self, job: Job, doubtful: Doubtful) -> None:
        await self.jobs.let_go(doubtful.row)
        del self.begun[job.number]
        self.intake.add(job)

    async def _report(self, doubtful: Doubtful) -> None:
        """Leave a doubt as it is, on disk."""
        job, row = doubtful.job, doubtful.row
        assert job.request is not None
        error = errors.SubmissionInDoubtError(
            f"job {row.key!r}: a task may exist and may be billed ({doubtful.why}); look at"
            " https://piapi.ai/workspace, or run again with on_doubt='reconcile', which looks for the task, or"
            " 'resubmit', which pays again when it finds none",
            key=row.key,
            request=job.request,
            since=row.since or 0.0,
        )
        await self.jobs.let_go(row, why=doubtful.why)
        await self._give(job, Failed(key=row.key, request=job.request, error=error))

    async def _give(self, job: Job, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        if isinstance(outcome, Failed) and isinstance(outcome.error, errors.SubmissionInDoubtError):
            self._doubted(outcome.error)
        await self.room.acquire()
        del self.begun[job.number]
        self.outcomes.put_nowait((job, outcome))

    def _doubted(self, error: errors.SubmissionInDoubtError) -> None:
        if self.on_doubt == "raise":
            self.brake.put_on(error)

    async def _beat(self) -> None:
        """Tell other processes that this one lives."""
        while self.jobs.ledger is not None:
            await self._clock.sleep(HEARTBEAT)
            with suppress(Exception):  # a lease that is lost for it is noticed before anything is paid for
                await self.jobs.ledger.hold(self.jobs.owner)
