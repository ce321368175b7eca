"""`Batch`: many jobs, a bounded number in flight, each outcome a value; with a ledger it can be killed and goes on.

    async with Session() as session, Batch(session, ledger="jobs.db", save_to="out") as batch:
        batch.add_many(requests)
        async for outcome in batch:
            print(outcome.key, "failed" if isinstance(outcome, Failed) else outcome.paths)

and in one line, without anything that outlives it:

    outcomes = await Batch(session).gather(requests)

Started again with the same requests and the same ledger, a batch answers from disk what is done, fetches what is
finished, waits for what was submitted, and submits the rest. What happens to a job is told in
`piapi_async.batch._runner`, what may happen to it in `piapi_async.ledger._states`.
"""

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, get_args

import attrs

from piapi_async import _session_options, _validators, errors
from piapi_async._asyncio import Clock, outlast
from piapi_async._client.budget import Budget
from piapi_async._process import new_owner
from piapi_async._text import counted
from piapi_async.batch._outcomes import Failed, InternalError, Outcome, Succeeded, raise_failures
from piapi_async.batch._queue import Intake, Stream, job_of
from piapi_async.batch._runner import Job, Jobs, OnDoubt
from piapi_async.batch._stopping import Brake
from piapi_async.batch._workers import Crew, Given
from piapi_async.files import _naming
from piapi_async.ledger import SQLiteLedger
from piapi_async.polling import UNSET, Unset
from piapi_async.session import Session
from piapi_async.task import Submittable, WebhookConfig

__all__ = ["Batch", "Failed", "InternalError", "Outcome", "Succeeded", "raise_failures"]

LEAVE = 30.0
"""Seconds that leaving a batch may take to learn, and to write down, what was paid for."""

NAMED = 100
"""Tasks that are named in the note to an error that `gather` raises in place of its outcomes."""


@attrs.frozen(kw_only=True)
class _Settings:
    max_in_flight: int = attrs.field(validator=_validators.number(at_least=1, integer=True))
    on_doubt: OnDoubt = attrs.field(validator=_validators.one_of(get_args(OnDoubt)))
    deadline: float | None = attrs.field(validator=_validators.optional(_validators.number(at_least=0)))
    reconcile_within: float = attrs.field(validator=_validators.number(at_least=0))


class Batch:
    """Does many jobs. Use it with `async with`, but for `gather` alone.

    Jobs begin when the batch is iterated or gathered, `max_in_flight` of them at once, the next the moment one ends. No
    more are submitted after an error that all others would meet too: no credit, a refused key, the spend limit, a
    ledger or a disk that cannot be written, a service that cannot be reached ten times in a row, an exception that
    nobody foresaw (`InternalError`) in three jobs with no success between them; what is in flight is waited for.
    Iteration then ends with that error; jobs not begun stay planned for the next run.

    Leaving the `async with` early detaches from what is in flight: those tasks go on, and a ledger has their ids.

    Args:
        session: Where jobs are submitted.

        ledger: A `SQLiteLedger`, or the path of one, that remembers the jobs; `None` to remember nothing.

        max_in_flight: How many jobs are worked on at once; at least 1.

        on_doubt: What to do about a submit whose answer was lost, so that a task may exist and may be billed: `"raise"`
            submits nothing more and raises `SubmissionInDoubtError` at the end; `"skip"` reports it as failed and goes
            on; `"reconcile"` looks for the task, and reports the job as failed, and still in doubt, when it cannot be
            told; `"resubmit"` looks for it too, and then pays again. The last two need a ledger. Only `"resubmit"` may
            ever pay twice.

        max_spend_usd: The most that may be spent, in US dollars; with a ledger by all that it ever recorded: what was
            charged, and what those in flight or in doubt are expected to cost. `None` for no limit. The job that would
            go beyond is not begun, as those after it: no outcome of iteration, and a run with a higher limit continues.

        save_to: The directory where pictures are saved before a job counts as succeeded, or `None`.

        name: How to name them, as for `Session.save`, with `{task_id}`: what was being saved when a batch was killed is
            saved again, and no file may be in the way.

        sidecar: Whether to write a JSON file beside them, as `Session.save` does.

        deadline: Seconds for the batch, from its first job on. When they are up no job is begun and no task is waited
            for any longer; a submit or a save under way is finished. `None` for no limit.

        webhook: Where the service is to report tasks as well. Its URL gets a parameter `piapi_attempt`, by which a task
            is known again for certain.

        reconcile_within: Seconds after a submit for which its task is looked for in the history, which may lag.

    Raises:
        ConfigurationError: `on_doubt` needs a ledger, or `name` and `sidecar` need `save_to`.
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not allowed.
    """

    def __init__(
        self,
        session: Session,
        *,
        ledger: SQLiteLedger | str | Path | None = None,
        max_in_flight: int = 8,
        on_doubt: OnDoubt = "raise",
        max_spend_usd: float | None = None,
        save_to: str | Path | None = None,
        name: str | None = None,
        sidecar: bool = False,
        deadline: float | None = None,
        webhook: WebhookConfig | None = None,
        reconcile_within: float = 120.0,
    ) -> None:
        _session_options.kind("session", session, Session)
        _session_options.kind("webhook", webhook, WebhookConfig | None)
        settings = _Settings(
            max_in_flight=max_in_flight, on_doubt=on_doubt, deadline=deadline, reconcile_within=reconcile_within
        )
        if ledger is None and on_doubt in ("resubmit", "reconcile"):
            raise errors.ConfigurationError(f"on_doubt={on_doubt!r} needs a ledger, to know which tasks are whose")
        if save_to is None and (name is not None or sidecar):
            raise errors.ConfigurationError("name and sidecar say how pictures are saved; pass save_to= as well")
        if not _naming.naming(name).tells_tasks_apart:
            raise _validators.refuse(
                ValueError, name="name", allowed="a template with {task_id} in a batch", value=name
            )
        self._deadline = settings.deadline
        self._is_borrowed = isinstance(ledger, SQLiteLedger)
        self._ledger = ledger if isinstance(ledger, SQLiteLedger | None) else SQLiteLedger(ledger)
        self._owner = new_owner()
        self._clock = Clock()
        self._brake = Brake()
        self._intake = Intake()
        jobs = Jobs(
            session=session,
            ledger=self._ledger,
            owner=self._owner,
            budget=Budget(prices=session.prices, limit=_session_options.points(max_spend_usd)),
            save_to=None if save_to is None else _validators.path(save_to, name="save_to"),
            name=name,
            sidecar=sidecar,
            webhook=webhook,
            limit=self._left,
            trouble=self._brake.put_on,
        )
        self._crew = Crew(
            jobs=jobs,
            intake=self._intake,
            brake=self._brake,
            size=settings.max_in_flight,
            on_doubt=settings.on_doubt,
            within=settings.reconcile_within,
        )
        self._main: asyncio.Task[None] | None = None
        self._is_entered = self._is_over = self._is_waiting = False
        self._ends_at: float | None = None

    @property
    def ledger(self) -> SQLiteLedger | None:
        """Where the jobs are noted."""
        return self._ledger

    def add(self, request: Submittable, key: str | None = None) -> None:
        """Add a job. Nothing is read or sent yet; it may be called while the batch runs.

        Args:
            request: What is asked for.

            key: The job's name in the ledger; by default made from what is asked for, pictures by their bytes, so that
                the same requests in another run meet the same jobs. Equal requests in one run are different jobs.

        Raises:
            TypeError: This is no request, or the key is no string.
            ValueError: The key is empty, or cannot be printed.
        """
        self._intake.add(job_of(request, key=key))
        self._crew.hire()

    def add_many(self, requests: Stream) -> None:
        """Add all of a stream, however long: it is read one by one, when there is room.

        An item that is no request, and whatever the stream raises, stops the batch.

        Args:
            requests: An iterable, async or not, of requests or of `(request, key)` pairs.

        Raises:
            TypeError: It cannot be iterated over.
        """
        self._intake.add_stream(requests)
        self._crew.hire()

    def stop(self) -> None:
        """Begin no more jobs, and go on with those in flight; called again, detach from these at once.

        Iteration ends when they are over. What was not begun stays planned for the next run.
        """
        if self._brake.is_on:
            self._detach()
        self._brake.put_on()

    async def gather(self, requests: Stream = ()) -> list[Outcome]:
        """Do all jobs that were added, and these.

        Args:
            requests: As for `add_many`.

        Returns:
            One outcome for each job, in the order in which they were added. Jobs that were not begun, as the batch
            stopped first, failed with `BatchStoppedError`, whose cause tells why.

        Raises:
            Exception: What a stream raised.
            TypeError: An item is no request; nothing was sent.
        """
        if not isinstance(requests, AsyncIterable):
            requests = [item for item in requests if job_of(item).request]
        self.add_many(requests)
        if not self._is_entered:
            async with self:
                return await self._gathered()
        return await self._gathered()

    def __aiter__(self) -> Self:
        """The outcomes, each when its job is over."""
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome.

        Raises:
            Exception: What stopped the batch, when all outcomes were given.
            RuntimeError: The batch is not open, or another task is waiting for its next outcome.
        """
        given = await self._next()
        if given is not None:
            return given[1]
        reason, self._brake.reason = self._brake.reason, None
        raise StopAsyncIteration if reason is None else reason

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("this batch is open already")
        self._is_entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        main = self._main
        if main is not None:
            self._detach()
            await outlast(main, seconds=LEAVE)
            with suppress(asyncio.CancelledError, asyncio.InvalidStateError):
                main.exception()  # nobody asks for it any longer
        self._is_entered = False
        if self._ledger is not None:
            await self._leave(self._ledger)

    async def _leave(self, ledger: SQLiteLedger) -> None:
        try:
            with suppress(errors.LedgerError):
                await ledger.let_go(self._owner)
        finally:  # whoever is in a hurry may cancel this too, and the file has to be closed all the same
            if not self._is_borrowed:
                await ledger.aclose()

    async def _next(self) -> Given | None:
        """The next job that is over, or `None` when there will be none."""
        if not self._is_entered:
            raise RuntimeError("this batch is not open; use 'async with Batch(...) as batch', or gather() alone")
        if self._main is None and (self._brake.is_on or (self._is_over and not self._intake.has_more)):
            return None
        if self._main is None:
            self._main = asyncio.create_task(self._run())
        if self._is_waiting:
            raise RuntimeError("this batch is being iterated over already, by another task")
        self._is_waiting = True
        try:
            given = await self._crew.outcomes.get()
        finally:
            self._is_waiting = False
        if given is not None:
            self._crew.room.release()
            return given
        main, self._main, self._is_over = self._main, None, True
        await asyncio.wait({main})
        if not main.cancelled():
            main.result()
        return await self._next()

    async def _gathered(self) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        while (given := await self._next()) is not None:
            found[given[0].number] = given[1]
        broken = self._brake.reason if self._brake.is_broken else None
        rest = list(self._crew.begun.values())
        try:
            rest += self._intake.rest() if broken is None else ()
        except Exception as error:  # noqa: BLE001 - of a stream that the batch did not get to
            broken = error
        if broken is not None:
            # There is no list to return, so the tasks that were paid for are named here; a ledger has them as well.
            if task_ids := [outcome.info.task_id for outcome in found.values() if outcome.info is not None]:
                names = ", ".join(task_ids[:NAMED]) + f" and {len(task_ids) - NAMED} more" * (len(task_ids) > NAMED)
                broken.add_note(f"the batch has {counted(len(task_ids), 'task')}: {names}; session.task(id) finds each")
            raise broken
        for job in rest:
            if job.request is not None:
                found[job.number] = Failed(key=job.key, request=job.request, error=self._not_done(job))
        return [found[number] for number in sorted(found)]

    def _not_done(self, job: Job) -> errors.BatchStoppedError:
        reason = self._brake.reason
        why = "it was told to" if reason is None else str(reason)
        is_begun = job.number in self._crew.begun
        what = "was let go, a task of it may go on and be billed" if is_begun else "was not begun"
        error = errors.BatchStoppedError(
            f"job {job.key or job.number} {what}: the batch stopped ({why})", safe_to_resubmit=not is_begun
        )
        error.__cause__ = reason
        return error

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        timer = None
        if self._deadline is not None:
            self._ends_at = loop.time() + self._deadline if self._ends_at is None else self._ends_at
            timer = loop.call_at(self._ends_at, self._time_is_up)
            if self._ends_at <= loop.time():  # the workers would begin before the timer
                self._time_is_up()
        try:
            await self._crew.run()
        finally:
            if timer is not None:
                timer.cancel()

    def _time_is_up(self) -> None:
        self._brake.put_on(errors.BatchStoppedError(f"the batch's deadline of {self._deadline:g} s passed"))

    def _left(self) -> float | Unset:
        return UNSET if self._ends_at is None else max(0.0, self._ends_at - self._clock.monotonic())

    def _detach(self) -> None:
        self._brake.is_detached = True
        self._brake.put_on()
        if self._main is not None:
            self._main.cancel()
