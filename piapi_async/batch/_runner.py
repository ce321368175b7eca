"""One job's course: found in the ledger, submitted if it never was, waited for, saved, and noted."""

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import attrs

from piapi_async import errors
from piapi_async._asyncio import Clock
from piapi_async._client import body as _content
from piapi_async._client.api import Journal
from piapi_async._client.budget import Budget, Reservation
from piapi_async._fingerprint import Content, content_of
from piapi_async._images.sources import off_loop
from piapi_async._text import unforeseen
from piapi_async.batch._outcomes import Failed, InternalError, Outcome, Succeeded
from piapi_async.handle import outcome_of
from piapi_async.ledger import LOST, LeaseLostError, Row, SQLiteLedger
from piapi_async.ledger._states import JobState
from piapi_async.polling import Unset
from piapi_async.session import Session
from piapi_async.task import Submittable, TaskInfo, WebhookConfig

OnDoubt = Literal["raise", "skip", "resubmit", "reconcile"]

RESULT_LIFE = 3 * 24 * 3600.0
"""Seconds for which the service keeps pictures (https://piapi.ai/docs/output-storage)."""

ATTEMPTS = 5
"""How often it is tried to write down a task that was paid for, a second apart."""

SAVE_AGAIN = (0.5, 2.0)
"""Seconds after which a result that came as no picture is fetched again: it is paid for, and fetching it is free."""

UNREACHABLE = 10
"""After so many submits that were not accepted for want of a connection, or for their number, no more are made."""

FORESEEN = (errors.PiAPIError, OSError, TypeError, ValueError)
"""What may go wrong with a job and says by itself what to do; all else is a bug, ours or of code passed to us."""

BUGS = 3
"""After so many jobs that met what nobody foresaw, with no success between them, no more are submitted."""

HOPELESS = (
    errors.InsufficientCreditsError,
    errors.AuthenticationError,
    errors.SpendLimitError,
    errors.LedgerError,
)
"""What one job met, and all others would meet too."""

logger = logging.getLogger("piapi_async")


@attrs.frozen(kw_only=True)
class Job:
    """What a batch is to do.

    Attributes:
        request: What is asked for; `None` for what is in the ledger and has to be brought home, asked for or not.

        key: The name it was given, or has in the ledger.

        number: Its place among all that were added; -1 before it has one.

        content: The request by its hashes, once that was worked out.

        row: What the ledger has of it, where nobody asked for it.

        not_before: When to try it again, on the loop's clock.

        is_resubmitted: Whether it was paid for anew already in this batch, after a doubt.
    """

    request: Submittable | None
    key: str | None = None
    number: int = -1
    content: Content | None = None
    row: Row | None = None
    not_before: float = 0.0
    is_resubmitted: bool = False


@attrs.frozen
class Held:
    """The job is in somebody else's hands; it is to be tried again later."""

    job: Job


@attrs.frozen
class Doubtful:
    """The job is in doubt, and this batch holds it."""

    job: Job
    row: Row
    why: str


@attrs.define(kw_only=True)
class Entry(Journal):
    """What the ledger is told of a job's submit."""

    ledger: SQLiteLedger
    key: str
    owner: str
    token: str | None
    points: int
    limit: int | None
    clock: Clock
    trouble: Callable[[Exception], None]

    async def sending(self, body: _content.Content) -> None:
        """Get the permission to pay, and note how the pictures go out: the service may show them so."""
        sent = await off_loop(lambda: body.digests) if len(body.parts) > 1 else ()
        try:
            await self.ledger.send(
                self.key, owner=self.owner, token=self.token, points=self.points, limit=self.limit, sent=sent
            )
        except errors.LedgerError as error:
            errors.set_resubmit(error, safe=True)  # what the ledger cannot note is not sent
            raise

    async def refused(self) -> None:
        """There is no task. What cannot be written stays in doubt, which is the safe side."""
        with suppress(errors.LedgerError):
            await self.ledger.refused(self.key, owner=self.owner)

    async def lost(self) -> None:
        """There may be a task. What cannot be written is in doubt anyway when it is read again."""
        with suppress(errors.LedgerError):
            await self.ledger.lost(self.key, owner=self.owner)

    async def accepted(self, info: TaskInfo) -> None:
        """Write down what was paid for; if that cannot be done, say so loudly and go on with what is in memory."""
        trouble = None
        for attempt in range(ATTEMPTS):
            try:
                return await self.ledger.accepted(self.key, task_id=info.task_id)
            except errors.LedgerError as error:
                trouble = error
            await self.clock.sleep(float(attempt < ATTEMPTS - 1))
        assert trouble is not None
        trouble.task_id = info.task_id
        logger.error("task %s of job %r is paid for and could not be written down: %s", info.task_id, self.key, trouble)
        self.trouble(trouble)
        return None


@attrs.define
class Unrecorded(Journal):
    """The spending of a job without a ledger, and its task once there is one."""

    reservation: Reservation
    info: TaskInfo | None = attrs.field(default=None, init=False)

    async def accepted(self, info: TaskInfo) -> None:
        """There is a task."""
        self.info = info
        self.reservation.accepted(info)

    async def lost(self) -> None:
        """There may be a task."""
        self.reservation.keep()


@attrs.define(kw_only=True)
class Jobs:
    """Does jobs, one at a time for each caller.

    Args:
        session: Where they are submitted.

        ledger: Where they are noted, or `None`.

        owner: The name under which they are held there.

        budget: What may be spent.

        save_to: Where pictures go, or `None`.

        name: How they are named, or `None` for the task's id.

        sidecar: Whether a JSON file is written beside them.

        webhook: Where the service is to report tasks as well.

        limit: How long a task may be waited for from now on.

        trouble: Told of what leaves no point in submitting more.
    """

    session: Session
    ledger: SQLiteLedger | None
    owner: str
    budget: Budget
    save_to: Path | None
    name: str | None
    sidecar: bool
    webhook: WebhookConfig | None
    limit: Callable[[], float | Unset]
    trouble: Callable[[Exception], None]
    clock: Clock = attrs.field(factory=Clock)

    _unreachable: int = attrs.field(default=0, init=False)
    _bugs: int = attrs.field(default=0, init=False)
    _is_logged: bool = attrs.field(default=False, init=False)

    async def do(self, job: Job) -> Outcome | Held | Doubtful | None:
        """Do a job; `None` when it was one that nobody asked for.

        A job in doubt stays this holder's; all others are let go. Whatever a job meets is its own outcome: one bug must
        not take a batch of ten thousand paid jobs down.
        """
        try:
            return await (self._plain(job) if self.ledger is None else self._recorded(job, ledger=self.ledger))
        except Exception as error:  # noqa: BLE001 - see above; `_failed` tells what was not foreseen
            return self._failed(job, error)

    async def _plain(self, job: Job) -> Outcome | None:
        """A job without a ledger."""
        assert job.request is not None
        info = None
        with self.budget.reserve(job.request) as reservation:
            journal = Unrecorded(reservation)
            try:
                info = await self.session.run(job.request, timeout=self.limit(), webhook=self.webhook, journal=journal)
                self.budget.settle(info)
                paths = await self._save(info, request=job.request)
            except Exception as error:  # noqa: BLE001 - as in `do`, with the task that there is
                return self._failed(job, error, info=info or journal.info)
        return self._succeeded(job, info, paths)

    async def _recorded(self, job: Job, *, ledger: SQLiteLedger) -> Outcome | Held | Doubtful | None:
        job, row, is_mine = await self._claimed(job, ledger=ledger)
        if row.is_settled(save=self.saves):
            return self._known(job, row)
        if not is_mine:
            return Held(job)
        if row.state is JobState.IN_DOUBT:
            return Doubtful(job, row, row.error or LOST)
        try:
            info = row.info or await self._completed(job, row, ledger=ledger)
        except Exception as error:  # noqa: BLE001 - as in `do`, and the ledger is told
            return await self._without(job, row, error, ledger=ledger)
        return await self._brought_home(job, row, info)

    async def _claimed(self, job: Job, *, ledger: SQLiteLedger) -> tuple[Job, Row, bool]:
        if job.request is None:
            assert job.row is not None
            claim = await ledger.take(job.row, owner=self.owner, save=self.saves)
            return job, claim.row, claim.is_mine
        content = job.content or await content_of(job.request)
        claim = await ledger.claim(content, key=job.key, owner=self.owner, save=self.saves)
        if self.saves and not all(path.exists() for path in claim.row.paths or ()):
            await ledger.miss(claim.row.key)
            claim = await ledger.claim(content, key=claim.row.key, owner=self.owner, save=True)
        return attrs.evolve(job, content=content, key=claim.row.key), claim.row, claim.is_mine

    async def _completed(self, job: Job, row: Row, *, ledger: SQLiteLedger) -> TaskInfo:
        """The job's task, completed: waited for, and submitted first if it never was."""
        if row.task_id is not None:
            return await self.session.task(row.task_id).wait(timeout=self.limit())
        assert job.request is not None
        points = self.budget.prices.points(job.request)
        if self.budget.limit is not None and points is None:
            self.budget.prices.estimate(job.request)  # says that there is no price, and what to do
        token = secrets.token_urlsafe(12)
        entry = Entry(
            ledger=ledger,
            key=row.key,
            owner=self.owner,
            token=None if self.webhook is None else token,
            points=points or 0,
            limit=self.budget.limit,
            clock=self.clock,
            trouble=self.trouble,
        )
        webhook = None if self.webhook is None else marked(self.webhook, token=token)
        return await self.session.run(job.request, timeout=self.limit(), webhook=webhook, journal=entry)

    async def _without(
        self, job: Job, row: Row, error: Exception, *, ledger: SQLiteLedger
    ) -> Outcome | Held | Doubtful | None:
        """What to do with a job that has no completed task."""
        with suppress(errors.LedgerError):
            row = await ledger.get(row.key) or row  # it knows by now whether there is a task
        if isinstance(error, errors.SubmissionInDoubtError):
            self._judge(error)
            return Doubtful(job, row, error.why)
        info = error.info if isinstance(error, errors.TaskError) else None
        if info is not None and info.is_terminal:
            await self._finish(row, info, error=str(error))
        else:
            await self.let_go(row)
        if isinstance(error, LeaseLostError):
            return Held(job)
        return self._failed(job, error, info=info, task_id=row.task_id)

    async def _brought_home(self, job: Job, row: Row, info: TaskInfo) -> Outcome | None:
        """Save what a task gave, and note where it is."""
        try:
            paths = await self._save(info, request=job.request or row.content.request)
        except Exception as error:  # noqa: BLE001 - as in `do`; the task completed, and the next run fetches it
            expired = self._expired(row, info, error)
            await self._finish(row, info, error=None if expired is None else str(expired))
            return self._failed(job, expired or error, info=info)
        await self._finish(row, info, paths=paths if self.saves else None)
        return self._succeeded(job, info, paths)

    def _expired(self, row: Row, info: TaskInfo, error: Exception) -> errors.OutputError | None:
        ended = row.changed_at if info.ended_at is None else info.ended_at.timestamp()
        if not isinstance(error, errors.OutputError) or self.clock.now() - ended < RESULT_LIFE:
            return None
        expired = errors.OutputError(
            f"the pictures of task {info.task_id} are gone: they live 3 days, and were not fetched in time; it is paid"
            " for, and submitting it again pays again",
            url=error.url,
        )
        expired.task_id = info.task_id
        expired.__cause__ = error
        return expired

    async def _save(self, info: TaskInfo, *, request: Submittable) -> tuple[Path, ...]:
        if self.save_to is None or not info.images:
            return ()
        for pause in SAVE_AGAIN:
            with suppress(errors.OutputError):
                return await self._saved(info, self.save_to, request=request)
            await self.clock.sleep(pause)
        return await self._saved(info, self.save_to, request=request)

    async def _saved(self, info: TaskInfo, directory: Path, *, request: Submittable) -> tuple[Path, ...]:
        try:
            return await self.session.save(info, directory, name=self.name, sidecar=self.sidecar, request=request)
        except OSError as error:
            if not isinstance(error, errors.PiAPIError):
                self.trouble(error)  # the next picture would not find room either
            raise

    async def _finish(
        self, row: Row, info: TaskInfo, *, paths: tuple[Path, ...] | None = None, error: str | None = None
    ) -> None:
        assert self.ledger is not None
        try:
            await self.ledger.finished(row.key, info=info, owner=self.owner, paths=paths, error=error)
        except errors.LedgerError as trouble:
            self.trouble(trouble)  # the next run finds the task again and looks at it once more

    async def let_go(self, row: Row, *, why: str | None = None) -> None:
        """Let others have a job, as it stands; one in doubt with the reason."""
        assert self.ledger is not None
        with suppress(errors.LedgerError):
            if why is not None:
                await self.ledger.explain({row.key: why})
            await self.ledger.release(row.key, owner=self.owner)

    @property
    def saves(self) -> bool:
        """Whether pictures are wanted on disk."""
        return self.save_to is not None

    def _known(self, job: Job, row: Row) -> Outcome | None:
        """The outcome of a job that was over before."""
        assert row.info is not None
        try:
            info = outcome_of(row.info)
        except errors.TaskError as error:
            return self._failed(job, error, info=row.info)
        if row.error is not None:
            gone = errors.OutputError(row.error)
            gone.task_id = row.task_id
            return self._failed(job, gone, info=info)
        return self._succeeded(job, info, row.paths or ())

    def _succeeded(self, job: Job, info: TaskInfo, paths: tuple[Path, ...]) -> Outcome | None:
        self._unreachable = self._bugs = 0
        if job.request is None:
            return None
        return Succeeded(key=job.key or str(job.number), request=job.request, info=info, paths=paths)

    def _failed(
        self, job: Job, error: Exception, *, info: TaskInfo | None = None, task_id: str | None = None
    ) -> Outcome | None:
        if isinstance(error, errors.TaskError):
            info = error.info or info
        if not isinstance(error, FORESEEN):
            error = self._bug(job, error, task_id=task_id if info is None else info.task_id)
        self._judge(error)
        if isinstance(error, errors.WaitTimeoutError) and not isinstance(self.limit(), Unset):
            error.add_note("the batch's deadline ended this wait")
        return None if job.request is None else Failed(key=job.key, request=job.request, error=error, info=info)

    def _bug(self, job: Job, error: Exception, *, task_id: str | None) -> InternalError:
        """What nobody foresaw, as the job's error; the first one's traceback goes to the log, and no other."""
        known = "" if task_id is None else f"; its task goes on, resume with session.task({task_id!r}).wait()"
        bug = InternalError(
            f"job {job.key or job.number}: unforeseen {unforeseen(error)}, a bug in piapi_async or in code that"
            f" was passed to it; please report it to the maintainers with its traceback, error.__cause__{known}",
            task_id=task_id,
        )
        bug.__cause__ = error
        logger.error("%s", bug, exc_info=None if self._is_logged else error)
        self._is_logged = True
        return bug

    def _judge(self, error: Exception) -> None:
        """Whether an error leaves no point in submitting more."""
        is_conflict = isinstance(error, errors.LedgerConflictError)
        self._unreachable += isinstance(error, errors.ConnectError | errors.RateLimitError)
        # A bug that hides the answer to a submit is a doubt, and may be paid for, each time.
        has_cause = isinstance(error, InternalError | errors.SubmissionInDoubtError) and error.__cause__ is not None
        self._bugs += not isinstance(error.__cause__ if has_cause else error, FORESEEN)
        is_hopeless = isinstance(error, HOPELESS) and not is_conflict
        if is_hopeless or self._unreachable >= UNREACHABLE or self._bugs >= BUGS:
            self.trouble(error)


def marked(webhook: WebhookConfig, *, token: str) -> WebhookConfig:
    """The webhook with an attempt's token in its URL's query."""
    parts = urlsplit(webhook.endpoint)
    query = "&".join(filter(None, (parts.query, f"piapi_attempt={token}")))
    return WebhookConfig(urlunsplit(parts._replace(query=query)), secret=webhook.secret)
