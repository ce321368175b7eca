"""What a session waits for before its connections go: submits and waits under way, so that nothing paid for is lost.

Leaving `async with Session` is for those who still use it what a cancel is: a submit that has begun comes to its end,
one that has not is not sent, and a wait ends with an error that names its task.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from piapi_async import errors
from piapi_async._asyncio import READ_FIRST, Lasting, PerLoop, break_off, to_the_end
from piapi_async._client.transport import Body
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
        self._waits: PerLoop[dict[str, set[Waiting]]] = PerLoop(dict)

    def reopen(self) -> None:
        """Allow submits and waits again."""
        self._is_closed = False

    def post(
        self, act: Callable[[], Coroutine[Any, Any, TaskInfo]], *, body: Body, abandon: Abandon
    ) -> Lasting[TaskInfo]:
        """Begin a submit in a task of its own, which holds out against a cancel as soon as its body is being sent.

        Whoever cancels it, and however often, be it the submitter or the session that is left: it is the post itself
        that abandons its task, once.

        Raises:
            ConfigurationError: The session is closed.
        """
        if self._is_closed:
            raise _closed()
        work = self._until_let_go(act, body=body, abandon=abandon)
        post = Lasting(work, holds=lambda: not body.stop(), seconds=SETTLE - READ_FIRST)
        posts = self._posts.get()
        posts.add(post)
        post.add_done_callback(posts.discard)
        return post

    async def _until_let_go(
        self, act: Callable[[], Coroutine[Any, Any, TaskInfo]], *, body: Body, abandon: Abandon
    ) -> TaskInfo:
        try:
            info = await act()
        except asyncio.CancelledError:
            if self._is_closed and not body.begun:
                raise _closed() from None
            raise
        post = asyncio.current_task()
        assert isinstance(post, Lasting)
        if post.let_go_at is not None:
            await abandon(info.task_id, seconds=post.let_go_at + SETTLE - post.get_loop().time())
        return info

    def waiting(self, task_id: str) -> "Waiting":
        """A wait for a task, to be held with `with`; when the session is closed it is cancelled.

        Raises:
            ConfigurationError: The session is closed, or was closed meanwhile.
        """
        if self._is_closed:
            raise _closed(task_id)
        return Waiting(task_id, among=self._waits.get())

    async def settle(self) -> None:
        """Begin no more, wait for the submits that have begun, and for the waits to do what a cancel has them do.

        This takes at most `SETTLE` seconds, and is not cut short by a cancel, which is raised afterwards: at the end of
        `asyncio.run` everything is cancelled, this included.
        """
        self._is_closed = True
        posts = list(self._posts.get())
        waits = [wait for waits in self._waits.get().values() for wait in waits]
        if posts or waits:
            await to_the_end(Lasting(_settle(posts, waits), holds=lambda: True, seconds=SETTLE))


async def _settle(posts: "list[Lasting[TaskInfo]]", waits: "list[Waiting]") -> None:
    # In a task of its own, whose first turn comes after that of the posts: one that never began could not say why.
    begun = [post for post in posts if not post.cancel()]
    doing: list[asyncio.Future[Any]] = [*begun, *(wait.end() for wait in waits)]
    late = (await asyncio.wait(doing, timeout=SETTLE + NOTED))[1] if doing else ()
    if late:
        for post in begun:
            break_off(post)
        await asyncio.wait(late, timeout=NOTED)


class Waiting:
    """One coroutine's wait for a task, which ends when the session is closed: as `asyncio.timeout`, at that moment."""

    def __init__(self, task_id: str, *, among: "dict[str, set[Waiting]]") -> None:
        self._task_id = task_id
        self._among = among
        self._is_ended = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._left = task.get_loop().create_future()
        self._among.setdefault(self._task_id, set()).add(self)
        return self

    @property
    def is_only(self) -> bool:
        """Whether nobody else waits for the task in this session, by whichever handle."""
        return len(self._among[self._task_id]) == 1

    def end(self) -> "asyncio.Future[None]":
        """End the wait, and give what is done when its coroutine has left it."""
        self._is_ended = True
        self._task.cancel()
        return self._left

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._among[self._task_id].remove(self)
        if not self._among[self._task_id]:
            del self._among[self._task_id]
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
