"""What a session waits for before its connections go: submits and waits under way, so that nothing paid for is lost.

Leaving `async with Session` is for those who still use it what a cancel is: a submit that has begun comes to its end,
one that has not is not sent, and a wait ends with an error that names its task.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol

from piapi_async import errors
from piapi_async._asyncio import READ_FIRST, Lasting, PerLoop, break_off, to_the_end
from piapi_async._client.transport import Body
from piapi_async.task import TaskInfo

SETTLE = 10.0
"""Seconds that a submit or wait that is cancelled, or whose session is closed, may still take to learn, or to cancel,
what was paid for."""

NOTED = 1.0
"""Seconds beyond those for noting what became of a submit whose time was up; what hangs then is broken off."""


class Leave(Protocol):
    """Does what is due when a wait for a task ends early."""

    async def __call__(self, error: BaseException, *, is_last: bool) -> None:
        """`error` ended it; `is_last` says that nobody else waits for the task."""


class Watch(Protocol):
    """Counts who waits for a task."""

    def __call__(self, task_id: str, *, by: int) -> None:
        """So many more."""


class UnderWay:
    """The submits and waits of a session that are under way."""

    def __init__(self) -> None:
        self._is_closed = False
        self._posts: PerLoop[set[Lasting[TaskInfo]]] = PerLoop(set)
        self._waits: PerLoop[_Waits] = PerLoop(_Waits)

    def reopen(self) -> None:
        """Allow submits and waits again."""
        self._is_closed = False

    def check(self, task_id: str | None = None) -> None:
        """Refuse where the session is closed.

        Raises:
            ConfigurationError: The session is closed.
        """
        if self._is_closed:
            raise _closed(task_id)

    def post(self, act: Callable[[], Coroutine[Any, Any, TaskInfo]], *, body: Body) -> Lasting[TaskInfo]:
        """Begin a submit in a task of its own, which holds out against a cancel as soon as its body is being sent.

        Raises:
            ConfigurationError: The session is closed.
        """
        self.check()
        post = Lasting(act(), holds=lambda: not body.stop(), seconds=SETTLE - READ_FIRST)
        posts = self._posts.get()
        posts.add(post)
        post.add_done_callback(posts.discard)
        return post

    def waiting(self, task_id: str, *, leave: Leave, watch: Watch) -> "Waiting":
        """A wait for a task, to be held with `async with`; when the session is closed it is cancelled.

        Args:
            task_id: The task.

            leave: Called with what ends the wait early, and whether nobody else waits for the task in this session.

            watch: Told that one coroutine more, or fewer, waits for the task: `Governor.watch`.

        Raises:
            ConfigurationError: The session is closed, or was closed meanwhile.
        """
        self.check(task_id)
        return Waiting(task_id, among=self._waits.get(), leave=leave, watch=watch)

    async def settle(self) -> None:
        """Begin no more, wait for the submits that have begun, and for the waits to do what a cancel has them do.

        This takes at most `SETTLE` seconds, and is not cut short by a cancel, which is raised afterwards: at the end of
        `asyncio.run` everything is cancelled, this included.
        """
        self._is_closed = True
        posts = list(self._posts.get())
        waits = list(self._waits.get().all)
        if posts or waits:
            await to_the_end(Lasting(_settle(posts, waits), holds=lambda: True, seconds=SETTLE))


def seconds_since_let_go() -> float | None:
    """For how long the current task has held out against a cancel; `None` where it was not cancelled."""
    post = asyncio.current_task()
    assert isinstance(post, Lasting)
    return None if post.let_go_at is None else post.get_loop().time() - post.let_go_at


async def _settle(posts: "list[Lasting[TaskInfo]]", waits: "list[Waiting]") -> None:
    # In a task of its own, whose first turn comes after that of the posts: one that never began could not say why.
    begun = [post for post in posts if not post.cancel()]
    doing: list[asyncio.Future[Any]] = [*begun, *(wait.end() for wait in waits)]
    late = (await asyncio.wait(doing, timeout=SETTLE + NOTED))[1] if doing else ()
    if late:
        for post in begun:
            break_off(post)
        await asyncio.wait(late, timeout=NOTED)


class _Waits:
    """The waits of one event loop, and how many there are for each task, by whichever handle."""

    def __init__(self) -> None:
        self.all: set[Waiting] = set()
        self.of_task: dict[str, int] = {}


class Waiting:
    """One coroutine's wait for a task, which ends when the session is closed: as `asyncio.timeout`, at that moment."""

    __slots__ = ("_among", "_cancelling", "_leave", "_left", "_task", "_task_id", "_watch")

    def __init__(self, task_id: str, *, among: _Waits, leave: Leave, watch: Watch) -> None:
        self._task_id = task_id
        self._among = among
        self._leave = leave
        self._watch = watch
        self._left: asyncio.Future[None] | None = None  # made when the wait is to end

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._among.all.add(self)
        self._among.of_task[self._task_id] = self._among.of_task.get(self._task_id, 0) + 1
        self._watch(self._task_id, by=1)

    def end(self) -> "asyncio.Future[None]":
        """End the wait, and give what is done when its coroutine has left it."""
        self._left = self._task.get_loop().create_future()
        self._task.cancel()
        return self._left

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        waits = self._among.of_task
        try:
            if error is not None:
                await self._leave(error, is_last=waits[self._task_id] == 1)
        finally:
            self._watch(self._task_id, by=-1)
            self._among.all.remove(self)
            waits[self._task_id] -= 1
            if not waits[self._task_id]:
                del waits[self._task_id]
            if self._left is not None:
                self._left.set_result(None)
        if self._left is not None and kind is asyncio.CancelledError and self._task.uncancel() <= self._cancelling:
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
