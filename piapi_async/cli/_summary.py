"""What became of the tasks of one command, as the events told it: an observer that can say good-bye."""

from collections.abc import Iterator
from typing import Literal

from piapi_async import events
from piapi_async.cli._interrupt import Say
from piapi_async.handle import TaskHandle
from piapi_async.session import Session
from piapi_async.task import Submittable, TaskInfo, WebhookConfig

OnCancel = Literal["detach", "cancel"]


class Fates:
    """Says each task's id as soon as there is one, and at the end what goes on without us.

    Args:
        say: Shows a line.

        on_cancel: The session's.

        is_emulated: Whether the server ends with the command.
    """

    def __init__(self, say: Say, *, on_cancel: OnCancel = "detach", is_emulated: bool = False) -> None:
        self._say = say
        self._on_cancel = on_cancel
        self._is_emulated = is_emulated
        self._submitting = False
        self._doubts: list[str] = []
        self._detached: set[str] = set()
        self._tasks: dict[str, TaskInfo | None] = {}

    def __call__(self, event: events.Event) -> None:
        """Take one event."""
        match event:
            case events.Submitted(info=info):
                self._tasks[info.task_id] = info
                self._say(f"task {info.task_id} submitted ({info.model} {info.task_type})")
            case events.Polled(info=info):
                self._tasks[info.task_id] = info
            case events.WaitAbandoned(task_id=task_id):
                self._detached.add(task_id)
            case events.SubmissionInDoubt():
                self._doubts.append(str(event))
            case events.UnknownStatus() | events.Retrying():
                self._say(str(event))
            case _:
                pass

    def know(self, task_id: str) -> None:
        """Take a task into account that was submitted elsewhere."""
        self._tasks.setdefault(task_id, None)

    async def submit(self, session: Session, request: Submittable, *, webhook: WebhookConfig | None) -> TaskHandle:
        """`Session.submit`, remembered while it is under way."""
        self._submitting = True
        handle = await session.submit(request, webhook=webhook)
        self._submitting = False
        return handle

    def farewell(self, *, at_rest: bool) -> Iterator[str]:
        """What the user should know after Ctrl-C.

        Args:
            at_rest: Whether the work could end in order, so that everything is known that can be.
        """
        if self._is_emulated:
            yield "the emulator is gone, and its tasks with it; nothing was paid"
            return
        yield from self._doubts
        if self._submitting and not at_rest:
            yield "a submit was under way: a task may exist and may be billed; look at https://piapi.ai/workspace"
        for task_id, info in self._tasks.items():
            yield self._fate(task_id, info, at_rest=at_rest)
        if not self._tasks and not self._doubts and at_rest:
            yield "nothing was submitted"

    def _fate(self, task_id: str, info: TaskInfo | None, *, at_rest: bool) -> str:
        finds = f"'piapi-async task wait {task_id}' finds it again"
        if info is not None and info.is_terminal:
            return _ended(info)
        if self._on_cancel == "detach" or not at_rest:
            return f"task {task_id} goes on and may be billed; {finds}"
        if task_id in self._detached:
            return f"task {task_id} could not be cancelled, goes on and may be billed; {finds}"
        return f"task {task_id} was cancelled"


def _ended(info: TaskInfo) -> str:
    more = saves(info.task_id) if info.images else f"'piapi-async task get {info.task_id}' tells more"
    return f"task {info.task_id} is {info.status}; {more}"


def saves(task_id: str) -> str:
    """How a person gets the pictures of a completed task."""
    return f"'piapi-async task wait {task_id} --out DIR' saves its pictures"
