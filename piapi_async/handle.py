"""`TaskHandle`: your end of a task."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from piapi_async import _html, _text, _validators, errors, events
from piapi_async._client.api import Api
from piapi_async.polling import UNSET, Polling, Unset
from piapi_async.polling._poller import Poller, is_young, learn
from piapi_async.task import TaskInfo, TaskStatus

NO_LIMIT = ", or None for no limit"
"""What may be given in place of the seconds of a time limit."""

REFRESH_TIMEOUT = 30.0
"""Seconds that `TaskHandle.refresh` takes at most, unless told otherwise."""

OUTPUT_DELAY = 5.0
"""For this many seconds after a task was first seen completed without output, the output may still come: services write
the status, then the pictures."""


class TaskHandle:
    """Your end of a task: `await handle` polls it until it is over and gives its `TaskInfo`.

    Handles come from `Session.submit` and `Session.task`. Several coroutines may wait on one; once the task was seen to
    be over, every further answer comes without a request. A task that completed without output is not over before it
    was seen so for 5 s.
    """

    __slots__ = (
        *("_api", "_empty_since", "_info", "_polling", "_seen_at"),
        *("_strange", "_submitted_at", "_task_id"),
    )

    def __init__(self, task_id: str, *, api: Api, polling: Polling, info: TaskInfo | None = None) -> None:
        self._task_id = task_id
        self._api = api
        self._polling = polling
        self._info = info
        self._seen_at = 0.0 if info is None else api.clock.monotonic()
        self._submitted_at = None if info is None else self._seen_at
        self._empty_since: float | None = None
        self._strange: tuple[str, ...] = ()

    @property
    def task_id(self) -> str:
        """The service's name of the task."""
        return self._task_id

    @property
    def info(self) -> TaskInfo | None:
        """The task as last seen, or `None` if it never was."""
        return self._info

    def __await__(self) -> Generator[Any, None, TaskInfo]:
        """The same as `await handle.wait()`."""
        return self.wait().__await__()

    async def wait(self, *, timeout: float | Unset | None = UNSET, polling: Polling | None = None) -> TaskInfo:
        """Poll until the task is over, in the caller's own asyncio task.

        Cancelling the caller stops the polling. With the session's `on_cancel="detach"` the task goes on, and may
        still be billed; with `"cancel"` the service is asked to cancel it, which takes up to 10 s, unless others in
        the session wait for it, by whichever handle.

        Args:
            timeout: Seconds for the whole wait, 0 for a single poll, `None` for no limit; not given, the policy's
                value holds (900 s by default). A poll that is under way when the time is up gets 5 s for its answer.

            polling: A policy for this wait, in place of the session's.

        Returns:
            The completed task.

        Raises:
            TaskFailedError: The service reports the task as failed.
            TaskCanceledError: The service reports the task as cancelled.
            NoOutputError: The task completed, and has no output even 5 s later.
            WaitTimeoutError: The time was up first; the task goes on. If the last poll failed, the cause says how.
            PiAPIError: The service refuses to show the task: at once where it was never seen, otherwise after
                `Polling.max_errors` refusals in a row.
            ValueError: `timeout` is negative.
        """
        poller = self._poller(lambda info: info is self._final, timeout=timeout, polling=polling)
        info = self._final
        if info is None:
            async with self._api.waiting(self._task_id, leave=self._leave):
                info = await poller.run()
        return outcome_of(info or self._at_time_limit(poller))

    async def refresh(self, *, timeout: float | None = REFRESH_TIMEOUT) -> TaskInfo:
        """Poll once; a finished task answers without a request.

        A task that failed is returned like any other.

        Args:
            timeout: Seconds > 0 that this may take in all, repetitions by the session's retry policy included; `None`
                leaves it to that policy and the session's limit for each request.

        Raises:
            WaitTimeoutError: No answer came within that time.
            PiAPIError: The poll failed, also when repeated by the session's retry policy.
            ValueError: `timeout` is not above 0: no answer could come in that time.
        """
        limit = _time_limit(timeout, above=0)
        if self._final is not None:
            return self._final
        is_new = is_young(self._submitted_at, clock=self._api.clock)
        with self._about_this_task():
            within = asyncio.timeout(limit)
            try:
                async with within:
                    return self._seen(await self._api.get(self._task_id, is_new=is_new), self._polling)
            except TimeoutError:
                if not within.expired():
                    raise
                raise errors.WaitTimeoutError(
                    f"no answer about task {self._task_id} within {limit:g} s, the limit of refresh; {self._resume}",
                    info=self._info,
                    handle=self,
                ) from None

    async def updates(
        self,
        *,
        timeout: float | Unset | None = UNSET,
        polling: Polling | None = None,
    ) -> AsyncIterator[TaskInfo]:
        """The task now, and again whenever a poll shows that it changed, until it is over.

        The last one is terminal; a failure is told by its status, not raised.

        Args:
            timeout: Seconds until the first one, and between two changes, at most; otherwise as for `wait`.

            polling: As for `wait`.

        Yields:
            The task as seen.

        Raises:
            WaitTimeoutError: Nothing changed for that long.
            PiAPIError: As for `wait`.
        """
        wait_limit(timeout, polling=polling or self._polling)  # refused at once
        last: TaskInfo | None = None

        def is_news(info: TaskInfo) -> bool:
            return info is self._final or (info != last and not info.is_terminal)

        while last is None or not last.is_terminal:
            poller = self._poller(is_news, timeout=timeout, polling=polling)
            news = self._final
            if news is None:
                async with self._api.waiting(self._task_id, leave=self._leave):
                    news = await poller.run()
            last = news or self._at_time_limit(poller)
            yield last

    async def cancel(self) -> TaskInfo:
        """Ask the service to cancel the task, then poll it.

        PiAPI documents cancelling for pending tasks of Midjourney, Luma and Kling only; for Flux it may refuse.

        Raises:
            PiAPIError: The service refuses, or cannot be reached.
        """
        with self._about_this_task():
            return self._seen(await self._api.cancel(self._task_id), self._polling)

    @property
    def _final(self) -> TaskInfo | None:
        """The task, if no later poll can show anything else."""
        info = self._info
        if info is None or not info.is_terminal:
            return None
        is_settled = self._empty_since is None or self._seen_at - self._empty_since >= OUTPUT_DELAY
        return info if is_settled else None

    @property
    def _resume(self) -> str:
        return f"resume with session.task({self._task_id!r}).wait()"

    def _poller(
        self, until: Callable[[TaskInfo], bool], *, timeout: float | Unset | None, polling: Polling | None
    ) -> Poller:
        policy = polling or self._polling
        return Poller(
            poll=partial(self._api.poll, self._task_id),
            take_in=self._seen,
            until=until,
            polling=policy,
            timeout=wait_limit(timeout, polling=policy),
            clock=self._api.clock,
            max_pause=self._api.governor.max_pause,
            known=self._info,
            seen_at=self._seen_at,
            submitted_at=self._submitted_at,
        )

    async def _leave(self, error: BaseException, *, is_last: bool) -> None:
        """A wait ended early: do with the task what `on_cancel` says, or say that it may go on."""
        if isinstance(error, asyncio.CancelledError):
            if is_last:
                await self._api.abandon(self._task_id)
            return
        self._mark(error)
        if isinstance(error, Exception) and self._may_live(error):
            error.add_note(f"task {self._task_id} may go on and be billed; {self._resume}")
            self._api.announce(events.WaitAbandoned(task_id=self._task_id))

    def _at_time_limit(self, poller: Poller) -> TaskInfo:
        """The task when the time is up: one that is completed, and whose output there was no time to see, or an error.

        Raises:
            WaitTimeoutError: It is not over.
        """
        if self._info is not None and self._info.is_terminal:
            return self._info
        raise self._timed_out(poller) from poller.error

    def _may_live(self, error: Exception) -> bool:
        """Whether a task may be left behind: one that was seen, or whose absence nobody told of."""
        if isinstance(error, errors.NotFoundError):
            return False
        return self._info is not None or not isinstance(error, errors.APIError)

    @contextmanager
    def _about_this_task(self) -> Iterator[None]:
        """Whatever goes wrong from here on, there is a task: to submit its request again would pay again."""
        try:
            yield
        except errors.PiAPIError as error:
            self._mark(error)
            raise

    def _mark(self, error: BaseException) -> None:
        if isinstance(error, errors.PiAPIError):
            errors.set_resubmit(error, safe=False, task_id=self._task_id)

    def _seen(self, info: TaskInfo, polling: Polling) -> TaskInfo:
        was_over = self._info is not None and self._info.is_terminal
        if self._info is not None and was_over and self._empty_since is None:
            return self._info  # this poll was overtaken by one that saw the end
        if not was_over:
            self._learn(info, polling=polling)
        now = self._api.clock.monotonic()
        is_empty = info.status is TaskStatus.COMPLETED and not info.has_output
        self._empty_since = None if not is_empty else now if self._empty_since is None else self._empty_since
        self._info, self._seen_at = info, now
        if info.status is TaskStatus.UNKNOWN and info.raw_status not in self._strange:
            self._strange += (info.raw_status,)
            self._api.announce(events.UnknownStatus(task_id=self._task_id, raw_status=info.raw_status))
        return info

    def _learn(self, info: TaskInfo, *, polling: Polling) -> None:
        """Tell the session's policy, and another that was polled by, if the task is over, which is seen once."""
        least, most = 0.0, math.inf
        if self._submitted_at is not None:
            least, most = self._seen_at - self._submitted_at, self._api.clock.monotonic() - self._submitted_at
        learn(self._polling, info, began=self._submitted_at, least=least, most=most)
        if polling.wait is not self._polling.wait:
            learn(polling, info, began=self._submitted_at, least=least, most=most)

    def _timed_out(self, poller: Poller) -> errors.WaitTimeoutError:
        stands = "not seen yet" if self._info is None else f"still {self._info.raw_status or self._info.status}"
        waited = round(poller.waited if poller.timeout is None else min(poller.waited, poller.timeout), 2)
        failing = "" if poller.error is None else f", and the last poll failed ({poller.error})"
        return errors.WaitTimeoutError(
            f"task {self._task_id} {stands} after {waited:g} s{failing}; {self._resume}", info=self._info, handle=self
        )

    def __repr__(self) -> str:
        stands = "not seen yet" if self._info is None else self._info.raw_status or self._info.status
        return f"<TaskHandle {_text.clipped(f'{self._task_id} {stands}', most=300)}>"

    def _repr_html_(self) -> str:
        """The task as last seen, in a notebook; nothing is asked for this."""
        return _html.handle(self._task_id, info=self._info)


def wait_limit(timeout: float | Unset | None, *, polling: Polling) -> float | None:
    """How many seconds a wait may take; `None` for no limit.

    Raises:
        TypeError: `timeout` is no number.
        ValueError: `timeout` is negative.
    """
    return polling.timeout if isinstance(timeout, Unset) else _time_limit(timeout, at_least=0)


def _time_limit(timeout: object, **bounds: float) -> float | None:
    """How many seconds something may take; `None` and `math.inf` set none."""
    if timeout is None or (isinstance(timeout, float) and timeout == math.inf):
        return None
    seconds: float = _validators.seconds("timeout", timeout, other=NO_LIMIT, **bounds)
    return seconds


def outcome_of(info: TaskInfo) -> TaskInfo:
    """The completed task, or the error that a task that is over otherwise is."""
    if info.status is TaskStatus.FAILED:
        raise errors.TaskFailedError(f"task {info.task_id} failed: {info.reason or 'no reason given'}", info=info)
    if info.status is TaskStatus.CANCELED:
        raise errors.TaskCanceledError(f"task {info.task_id} was cancelled", info=info)
    if not info.has_output:
        raise errors.NoOutputError(f"task {info.task_id} completed without output", info=info)
    return info
