"""What a session waits for before its connections go: submits and waits under way, so that nothing paid for is lost.

Leaving `async with Session` is for those who still use it what a cancel is: a submit that has begun comes to its end,
one that has not is not sent, and a wait ends with an error that names its task.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from piapi_async import errors
from piapi_async._http import Body
from piapi_async._loop import READ_FIRST, Lasting, PerLoop, outlast, to_the_end
from piapi_async.task import TaskInfo

SETTLE = 10.0
"""Seconds that a submit or wait that is cancelled, or whose session is closed, may still take to learn, or to cancel,
what was paid for."""

NOTED = 1.0
"""Seconds beyond those for noting what became of a submit whose time was up; what hangs then is broken off."""


class Abandon(Protocol):
    """Does with a task that nobody waits for any longer what the session's `on_cancel` says."""

    async def __call__(self, task_id: str, *, seconds: float) -> None:
        """Within so many seconds, come what may."""
        ...


class UnderWay:
    """The submits and waits of a session that are under way."""

    def __init__(self) -> None:
        self._is_closed = False
        self._posts: PerLoop[set[Lasting[TaskInfo]]] = PerLoop(set)
        self._waits: PerLoop[set[Waiting]] = PerLoop(set)

    def reopen(self) -> None:
        """Allow submits and waits again."""
        self._is_closed = False

    def post(self, act: Callable[[], Coroutine[Any, Any, TaskInfo]], *, body: Body) -> Lasting[TaskInfo]:
        """Begin a submit in a task of its own, which holds out against a cancel as soon as its body is being sent.

        Raises:
            ConfigurationError: The session is closed.
        """
        if self._is_closed:
            raise _closed()
        post = Lasting(self._until_closed(act, body=body), holds=lambda: not body.stop(), seconds=SETTLE - READ_FIRST)
        posts = self._posts.get()
        posts.add(post)
        post.add_done_callback(posts.discard)
        return post

    async def _until_closed(self, act: Callable[[], Coroutine[Any, Any, TaskInfo]], *, body: Body) -> TaskInfo:
        try:
            return await act()
        except asyncio.CancelledError:
            if self._is_closed and not body.begun:
                raise _closed() from None
            raise

    def waiting(self, task_id: str) -> "Waiting":
        """A wait for a task, to be held with `with`; when the session is closed it is cancelled.

        Raises:
            ConfigurationError: The session is closed, or was closed meanwhile.
        """
        if self._is_closed:
            raise _closed(task_id)
        return Waiting(task_id, among=self._waits.get())

    async def settle(self, *, abandon: Abandon) -> None:
        """Begin no more, wait for the submits that have begun, and for the waits to do what a cancel has them do.

        This takes at most `SETTLE` seconds, and is not cut short by a cancel, which is raised afterwards: at the end of
        `asyncio.run` everything is cancelled, this included.
        """
        self._is_closed = True
        posts, waits = set(self._posts.get()), set(self._waits.get())
        if posts or waits:
            settling = Lasting(self._settle(posts, waits, abandon=abandon), holds=lambda: True, seconds=SETTLE)
            await to_the_end(settling)

    async def _settle(self, posts: "set[Lasting[TaskInfo]]", waits: "set[Waiting]", *, abandon: Abandon) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE
        ends = [wait.end() for wait in waits]
        begun = [post for post in posts if not post.cancel()]

        async def settled(post: Lasting[TaskInfo]) -> None:
            await outlast(post, seconds=deadline + NOTED - loop.time())
            if post.done() and not post.cancelled() and post.exception() is None:
                await abandon(post.result().task_id, seconds=deadline - loop.time())

        doing: list[Awaitable[object]] = [*map(settled, begun), *ends]
        if doing:
            await asyncio.wait(map(asyncio.ensure_future, doing), timeout=SETTLE + 2 * NOTED)


class Waiting:
    """One coroutine's wait for a task, which ends when the session is closed: as `asyncio.timeout`, at that moment."""

    def __init__(self, task_id: str, *, among: "set[Waiting]") -> None:
        self._task_id = task_id
        self._among = among
        self._is_ended = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._left = task.get_loop().create_future()
        self._among.add(self)
        return self

    def end(self) -> "asyncio.Future[None]":
        """End the wait, and give what is done when its coroutine has left it."""
        self._is_ended = True
        self._task.cancel()
        return self._left

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._among.discard(self)
        self._left.set_result(None)
        if self._is_ended and kind is asyncio.CancelledError and self._task.uncancel() <= self._cancelling:
            raise _closed(self._task_id) from None


def _closed(task_id: str | None = None) -> errors.ConfigurationError:
    fact = "this session is closed; 'async with session' opens it again"
    if task_id is None:
        return errors.ConfigurationError(f"{fact}; nothing was sent")
    return errors.ConfigurationError(
        f"{fact}; task {task_id} may go on and be billed, session.task({task_id!r}).wait() resumes the wait for it",
        task_id=task_id,
        safe_to_resubmit=False,
    )
