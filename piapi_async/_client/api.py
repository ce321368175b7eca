"""The service's calls, with the table "what may be retried" applied: submit, poll, cancel."""

import asyncio
import enum
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import attrs

from piapi_async import errors, events
from piapi_async._asyncio import Clock, Lasting, outlast
from piapi_async._client import requests, responses
from piapi_async._client.body import Content
from piapi_async._client.budget import Budget, Reservation
from piapi_async._client.closing import NOTED, SETTLE, Leave, UnderWay, Waiting, seconds_since_let_go
from piapi_async._client.history import NOTHING_NEW, HistoryPage, decode_history, history_call, same
from piapi_async._client.transport import Body, Transport
from piapi_async.account import Account
from piapi_async.limits import Governor, no_priority
from piapi_async.limits._adaptive import Kind
from piapi_async.limits._queue import Permit
from piapi_async.limits._slots import Slot
from piapi_async.retry import Retriable, RetryPolicy, may_poll_again, may_submit_again
from piapi_async.task import Submittable, TaskInfo, TaskStatus

T = TypeVar("T")

OnCancel = Literal["detach", "cancel"]


logger = logging.getLogger("piapi_async")


class Verdict(enum.Enum):
    """What an attempt at a submit that brought no task has come to, by section 5 of the design's retry table."""

    NOT_SENT = "not sent"
    """The request was not handed over to its last byte, so the service cannot have read it: there is no task."""
    REFUSED = "refused"
    """An answer says that there is no task."""
    IN_DOUBT = "in doubt"
    """There may be a task: the answer was lost, or leaves it open."""

    @classmethod
    def of(cls, error: BaseException, *, body: Body) -> "Verdict":
        """What an attempt has come to.

        Args:
            error: What it met. What is none of ours, such as a bug in a trace of a borrowed client session, or a
                cancel, says nothing of the service: then the body decides alone.

            body: What was to be sent.
        """
        if not body.handed_over:
            return cls.NOT_SENT
        return cls.REFUSED if isinstance(error, errors.PiAPIError) and error.safe_to_resubmit else cls.IN_DOUBT


class Journal:
    """Told of each attempt at a submit, and waited for. This one keeps nothing; a durable record derives from it.

    What its methods raise is logged, and changes nothing, but for `sending`: the money is spent by then, or is not.
    """

    async def sending(self, body: Content) -> None:
        """The next byte is the POST's first, and this is all of it. What it raises keeps the POST from being made."""

    async def refused(self) -> None:
        """Nothing was sent, or the service said no: there is certainly no task from this attempt."""

    async def accepted(self, info: TaskInfo) -> None:
        """There is a task: the very next thing after its answer was read, also when the submit was cancelled."""

    async def lost(self) -> None:
        """The answer was lost, or leaves it open: there may be a task."""


@attrs.frozen(kw_only=True)
class Submission:
    """What goes along with a submit, beside its bytes.

    Attributes:
        request: What is submitted, for the error when there is doubt.

        secret: The webhook's, to be kept out of error messages.

        reservation: The money that is set aside for it.

        journal: Told of each attempt.

        slot: Its place among the tasks in flight.
    """

    request: Submittable
    secret: str = attrs.field(repr=False)
    reservation: Reservation
    journal: Journal
    slot: Slot


@attrs.frozen(kw_only=True)
class Api:
    """What a `Session` and its handles share.

    Args:
        api_key: The account's key; sent to `base_url` and `upload_url` only.

        base_url: Where the service is, without a slash at the end.

        upload_url: Where its upload is.

        transport: The way there.

        retry: How requests other than the polls of a wait are tried again.

        governor: The budget that all requests pass through.

        budget: What may be spent, and what is.

        clock: Where time, sleep and chance come from.

        on_cancel: What cancelling the waiter does to the task.

        announce: Takes every event.

        under_way: The submits and waits that closing the session waits for.
    """

    api_key: str = attrs.field(repr=False)
    base_url: str
    upload_url: str
    transport: Transport
    retry: RetryPolicy
    governor: Governor
    budget: Budget
    clock: Clock
    on_cancel: OnCancel
    announce: events.Announcer
    under_way: UnderWay = attrs.field(factory=UnderWay)

    def slot(self) -> Slot:
        """A place among the tasks in flight, to be held with `async with` round a submit."""
        return self.governor.slot(ask=self.account, poll=self.poll, announce=self.announce)

    def create(self, body: Content, *, submission: Submission) -> Coroutine[Any, Any, TaskInfo]:
        """Submit. The task exists, and its id is known, when this returns.

        A cancel does not break the POST off once it has begun: its answer holds what was paid for.

        Args:
            body: The request as JSON.

            submission: What goes along with it.

        Raises:
            SubmissionInDoubtError: The answer was lost, or leaves it open; the task may exist.
            PiAPIError: The service did not accept the task.
        """
        call = requests.create_call(self.base_url, api_key=self.api_key, body=body, secret=submission.secret)
        turn = self._turn("submit", slot=submission.slot)

        async def attempt() -> TaskInfo:
            while True:
                sent = Body(body)
                try:
                    async with turn:
                        since = self.clock.now()
                        post = partial(self._post, call, body=sent, submission=submission)
                        posting = self.under_way.post(post, body=sent)
                        try:
                            return await asyncio.shield(posting)
                        except asyncio.CancelledError:
                            await self._settle(posting, body=sent, submission=submission, since=since)
                            raise
                        except Exception as error:
                            if Verdict.of(error, body=sent) is not Verdict.IN_DOUBT:
                                raise
                            raise self._doubt(error, submission=submission, since=since) from error
                except errors.RateLimitError:
                    if not turn.waits_for_room:
                        raise

        return self.repeat(attempt, on=may_submit_again, action="submit", excluded_time=lambda: turn.waited)

    async def account(self) -> Account:
        """Plan and balance, by the retry policy.

        Raises:
            PiAPIError: What the last attempt met.
        """
        call = requests.account_call(self.base_url, api_key=self.api_key)

        async def attempt() -> Account:
            async with self._turn():
                return self._read(responses.decode_account, await self.transport.send(call))

        return await self.repeat(attempt, on=may_poll_again, action="account")

    async def history(self, *, model: str | None, start: float, end: float) -> AsyncIterator[TaskInfo]:
        """The account's past tasks, each once, page by page, each page by the retry policy.

        Raises:
            PiAPIError: What the last attempt at a page met.
        """
        told: set[str] = set()
        page = read = nothing_new = 0
        before: HistoryPage | None = None
        while nothing_new < NOTHING_NEW:
            page += 1
            found = await self._history_page(model=model, start=start, end=end, page=page)
            new = {info.task_id: info for info in found.tasks if info.task_id not in told}
            told.update(new)
            for info in new.values():
                yield info
            read += found.records
            nothing_new = 0 if new else nothing_new + 1
            # A service that makes no difference between pages gives the same one for ever.
            if found.is_last(read=read) or (before is not None and same(before.tasks, found.tasks)):
                return
            before = found

    async def _history_page(self, *, model: str | None, start: float, end: float, page: int) -> HistoryPage:
        call = history_call(
            self.base_url, api_key=self.api_key, model=model, start=int(start), end=math.ceil(end), page=page
        )

        async def attempt() -> HistoryPage:
            async with self._turn():
                return self._read(decode_history, await self.transport.send(call))

        return await self.repeat(attempt, on=may_poll_again, action="history")

    async def upload(self, data: bytes, *, name: str) -> str:
        """Put a file where the service can fetch it, for a day; by the retry policy, as it costs nothing.

        Raises:
            PiAPIError: What the last attempt met.
        """
        call = requests.upload_call(self.upload_url, api_key=self.api_key, name=name, data=data)
        # The upload is another host, whose 429 says nothing of the API; an emulator serves both.
        host = urlsplit(self.upload_url).netloc
        host = "" if host == urlsplit(self.base_url).netloc else host

        async def attempt() -> str:
            async with self._turn(host=host):
                return self._read(responses.decode_upload, await self.transport.send(call))

        try:
            return await self.repeat(attempt, on=may_poll_again, action="upload")
        except errors.PiAPIError as error:
            errors.set_resubmit(error, safe=True)  # whatever became of the file, no task can have come of it
            raise

    async def poll(self, task_id: str, priority: Callable[[], float] = no_priority) -> TaskInfo:
        """One poll, one request.

        Args:
            task_id: The task.

            priority: By how many seconds it goes before others where polls are scarce; see `Governor.turn`.

        Raises:
            PiAPIError: It failed.
        """
        call = requests.task_call(self.base_url, api_key=self.api_key, task_id=task_id)
        try:
            async with self._turn(priority=priority):
                info = self._read(partial(responses.decode_task, task_id=task_id), await self.transport.send(call))
        except errors.PiAPIError as error:
            self.announce(events.PollFailed(task_id=task_id, error=error))
            raise
        self.budget.settle(info)
        self.governor.seen(info)
        self.announce(events.Polled(info=info))
        return info

    async def get(self, task_id: str, *, is_new: bool = False) -> TaskInfo:
        """A poll that is repeated, by the retry policy, until an answer comes.

        Args:
            task_id: The task.

            is_new: Whether it was submitted so lately that "no such task" means "not visible yet".

        Raises:
            PiAPIError: What the last attempt met.
        """

        def may_pass(error: errors.PiAPIError) -> bool:
            return may_poll_again(error) or (is_new and isinstance(error, errors.NotFoundError))

        return await self.repeat(partial(self.poll, task_id), on=may_pass, action="poll")

    async def cancel(self, task_id: str) -> TaskInfo:
        """Ask the service to cancel a task, then poll it.

        Raises:
            PiAPIError: The service refuses, or what the last attempt met.
        """
        try:
            await self._delete(task_id)
        except errors.InvalidRequestError:
            # Refused, perhaps because an earlier attempt, whose answer was lost, has done it.
            info = await self.get(task_id)
            if info.status is not TaskStatus.CANCELED:
                raise
            return info
        return await self.get(task_id)

    async def abandon(self, task_id: str, *, seconds: float = SETTLE) -> None:
        """Do with a task nobody waits for any longer what `on_cancel` says, within so many seconds, come what may."""
        deadline = self.clock.monotonic() + seconds
        is_asked_for = self.on_cancel == "cancel"
        while is_asked_for:
            canceling = asyncio.ensure_future(self._delete(task_id))
            await outlast(canceling, seconds=deadline - self.clock.monotonic())
            if _failure(canceling) is None:
                return
            # The end of `asyncio.run` cancels every task there is, this one too; a new one it does not know.
            is_asked_for = canceling.cancelled() and self.clock.monotonic() < deadline
        self.announce(events.WaitAbandoned(task_id=task_id))

    def waiting(self, task_id: str, *, leave: Leave) -> Waiting:
        """A wait for a task; see `UnderWay.waiting`. Tasks that are waited for are polled by nobody else."""
        return self.under_way.waiting(task_id, leave=leave, watch=self.governor.watch)

    async def settle(self) -> None:
        """Begin no more, and lose nothing of what is under way; see `UnderWay.settle`."""
        await self.under_way.settle()

    def repeat(
        self,
        act: Callable[[], Coroutine[Any, Any, T]],
        *,
        on: Retriable,
        action: str,
        excluded_time: Callable[[], float] = float,
    ) -> Coroutine[Any, Any, T]:
        """Do something by the retry policy, and announce each further attempt; the rest is as for its `call`."""

        def before_sleep(attempt: int, wait: float, error: BaseException | None) -> None:
            self.announce(events.Retrying(action=action, attempt=attempt, wait=wait, error=error))

        return self.retry.call(
            act, on=on, before_sleep=before_sleep, excluded_time=excluded_time, max_pause=self.governor.max_pause
        )

    def _turn(
        self,
        kind: Kind = "poll",
        *,
        host: str = "",
        priority: Callable[[], float] = no_priority,
        slot: Slot | None = None,
    ) -> Permit:
        return self.governor.turn(
            kind, host=host, max_wait=self.retry.timeout, priority=priority, slot=slot, announce=self.announce
        )

    async def _delete(self, task_id: str) -> None:
        call = requests.task_call(self.base_url, api_key=self.api_key, task_id=task_id, method="DELETE")

        async def attempt() -> None:
            async with self._turn():
                self._read(partial(responses.check_cancel, task_id=task_id), await self.transport.send(call))

        await self.repeat(attempt, on=may_poll_again, action="cancel")

    async def _post(self, call: requests.Call, *, body: Body, submission: Submission) -> TaskInfo:
        """Make the POST, in a task of its own; see `UnderWay.post`."""
        journal = submission.journal
        try:
            assert call.body is not None
            await journal.sending(call.body)
            answer = await self.transport.send(call, body=body)
            info = self._read(responses.decode_submit, answer, secret=submission.secret)
        except BaseException as error:
            is_lost = Verdict.of(error, body=body) is Verdict.IN_DOUBT
            await _tell(journal.lost() if is_lost else journal.refused(), about="a submit")
            if isinstance(error, asyncio.CancelledError) and not body.begun:
                self.under_way.check()  # it was closing the session that cancelled it
            raise
        submission.reservation.accepted(info)
        submission.slot.accepted(info)
        await _tell(journal.accepted(info), about=f"task {info.task_id}, which is paid for,")
        self.announce(events.Submitted(info=info))
        # Whoever cancelled this, the submitter or the session that is left, and however often: it is abandoned once.
        if (seconds := seconds_since_let_go()) is not None:
            await self.abandon(info.task_id, seconds=SETTLE - seconds)
        return info

    async def _settle(self, posting: Lasting[TaskInfo], *, body: Body, submission: Submission, since: float) -> None:
        """After a cancelled submit: find out what became of it, and let nobody lose it unnoticed."""
        posting.cancel()  # at once, unless its body is being sent
        await outlast(posting, seconds=SETTLE + NOTED)
        error = _failure(posting)
        if error is None:
            if posting.let_go_at is None:  # it was over by then
                await self.abandon(posting.result().task_id)
        elif Verdict.of(error, body=body) is Verdict.IN_DOUBT:
            if isinstance(error, errors.RequestTimeoutError) and not error.status:
                error = asyncio.CancelledError()  # the time was up since the cancel had cut it short
            self._doubt(error, submission=submission, since=since)

    def _doubt(self, error: BaseException, *, submission: Submission, since: float) -> errors.SubmissionInDoubtError:
        """The doubt that an error leaves, announced; what is reserved for the task stays so."""
        submission.reservation.keep()
        request = submission.request
        task_id = None
        why = f"the answer to its submit was lost: {error}"
        if isinstance(error, asyncio.CancelledError):
            why = "its submit was cancelled before the answer came"
        elif isinstance(error, errors.PiAPIError):
            task_id = error.task_id
            was_answered = not isinstance(error, errors.TransportError)
            if isinstance(error, errors.RequestTimeoutError):
                was_answered = error.status != 0
            if was_answered:
                why = f"the answer to its submit does not say whether there is a task: {error}"
        named = "" if task_id is None else f" ({task_id}, by what was read of the answer)"
        doubt = errors.SubmissionInDoubtError(
            f"a {request.model} {request.task_type} task{named} may exist and may be billed, {why}",
            request=request,
            since=since,
            why=why,
            task_id=task_id,
            hint=errors.Hint.CHECK_TASKS,
        )
        self.announce(events.SubmissionInDoubt(error=doubt))
        return doubt

    def _read(self, decode: Callable[..., T], answer: responses.Answer, *, secret: str = "") -> T:
        try:
            return decode(answer, now=self.clock.now(), secrets=(self.api_key, secret))
        except errors.PiAPIError as error:
            # Without the decoder's frames: what the server echoes, secrets included, is in their variables.
            raise error.with_traceback(None)  # noqa: B904 - it is the same error


async def _tell(hook: Awaitable[None], *, about: str) -> None:
    """Let a submit's hook do its work. Whatever it raises, a cancel included, what the service said counts."""
    try:
        await hook
    except (Exception, asyncio.CancelledError):
        logger.exception("the record of %s could not be kept", about)


def _failure(task: "asyncio.Task[Any]") -> BaseException | None:
    """What a task met that was outlasted; a cancel also where it holds out against that."""
    return asyncio.CancelledError() if task.cancelled() or not task.done() else task.exception()
