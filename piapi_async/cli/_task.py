"""The work behind `img2img` and `task`: from the words of the command line to requests, pictures and summaries."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from piapi_async import errors
from piapi_async._text import one_line
from piapi_async.account import Account
from piapi_async.cli._summary import Fates, saves
from piapi_async.flux import ControlNet, ControlNetLora, Img2Img, Img2ImgLora, LoRA
from piapi_async.handle import TaskHandle
from piapi_async.polling import UNSET
from piapi_async.session import Session
from piapi_async.task import Image, Submittable, TaskInfo, WebhookConfig


def build(
    *, lora: LoRA | None = None, control: ControlNet | None = None, batch_size: int | None = None, **fields: Any
) -> Submittable:
    """The request whose task type follows from what is given.

    Args:
        lora: The LoRA, if any.

        control: The ControlNet, if any.

        batch_size: How many pictures, for plain img2img only.

        **fields: Fields that all three requests have.

    Raises:
        ValueError: The fields do not go together, or one is out of its range.
    """
    if control is None and lora is None:
        return Img2Img(batch_size=batch_size, **fields)
    if batch_size is not None:
        raise ValueError("--batch-size works without --lora and --control only")
    if control is None:
        assert lora is not None
        return Img2ImgLora(lora=lora, **fields)
    return ControlNetLora(control_net=control, lora=lora, **fields)


@attrs.frozen(kw_only=True)
class Saving:
    """How the pictures of a task are saved: the arguments of `Session.save`."""

    out: Path
    name: str | None
    sidecar: bool
    request: Submittable | None = None

    async def __call__(self, info: TaskInfo, *, session: Session) -> tuple[Path, ...]:
        """Save them."""
        return await session.save(info, self.out, name=self.name, sidecar=self.sidecar, request=self.request)


@attrs.frozen(kw_only=True)
class Done:
    """A completed task, and the files of its pictures unless they were not to be saved."""

    info: TaskInfo
    files: tuple[str, ...] | None = None

    @property
    def results(self) -> tuple[str, ...]:
        """The files, or else the links."""
        return tuple(image.url for image in self.info.images) if self.files is None else self.files


async def make(
    request: Submittable,
    *,
    session: Session,
    fates: Fates,
    webhook: WebhookConfig | None,
    saving: Saving,
    timeout: float | None,
) -> "Done":
    """Submit a task, wait for it and save its pictures."""
    # Before anything is paid for: a folder that cannot be made would be a pity afterwards.
    await asyncio.to_thread(saving.out.mkdir, parents=True, exist_ok=True)
    handle = await fates.submit(session, request, webhook=webhook)
    return await finish(handle, session=session, saving=saving, timeout=timeout)


async def finish(handle: TaskHandle, *, session: Session, saving: Saving | None, timeout: float | None) -> "Done":
    """Wait for a task, and save its pictures if that is wanted.

    Args:
        handle: The task.

        session: Where it was submitted.

        saving: How to save them, or `None`.

        timeout: Seconds; `None` for the policy's.
    """
    info = await handle.wait(timeout=UNSET if timeout is None else timeout)
    if saving is None:
        return Done(info=info)
    with _paid(info):
        return Done(info=info, files=tuple(map(str, await saving(info, session=session))))


@contextmanager
def _paid(info: TaskInfo) -> Iterator[None]:
    try:
        yield
    except (errors.PiAPIError, OSError) as error:
        error.add_note(f"task {info.task_id} is completed and paid for, {saves(info.task_id)}")
        raise


def summary(info: TaskInfo) -> str:
    """A task for people to read, one fact a line."""
    facts = {
        "task": info.task_id,
        "status": info.raw_status.strip() or info.status,
        "model": info.model,
        "type": info.task_type,
        "created": _when(info.created_at),
        "started": _when(info.started_at),
        "ended": _when(info.ended_at),
        "cost": cost(info),
        "error": info.reason if info.error is not None else "",
    }
    lines = [f"{name:<8} {one_line(value)}" for name, value in facts.items() if value]
    return "\n".join([*lines, *(f"{'picture':<8} {_link(image, info=info)}" for image in info.images)])


def balance(account: Account) -> str:
    """An account for people to read, one fact a line; what the service does not say is left out."""
    facts = {
        "plan": account.plan,
        "balance": None if account.balance_usd is None else f"{account.balance_usd:.4f} USD",
        "frozen": None if account.points_frozen is None else f"{account.points_frozen:,} points",
        "used": None if account.points_used is None else f"{account.points_used:,} points",
        "at once": None if account.max_concurrent_tasks is None else f"{account.max_concurrent_tasks} tasks",
    }
    return "\n".join(f"{name:<8} {one_line(value)}" for name, value in facts.items() if value)


def cost(info: TaskInfo) -> str:
    """What the service says the task costs; empty when it did not say."""
    if info.usage is None:
        return ""
    return f"{info.usage.consume:,} points ({info.usage.usd:.4f} USD)"


def record(done: Done) -> dict[str, Any]:
    """What came of a task, for machines; `null` is what the service did not say, or put inside its answer."""
    info = done.info
    times = {name: getattr(info, name) for name in ("created_at", "started_at", "ended_at")}
    return {
        "task_id": info.task_id,
        "status": info.status,
        "model": info.model,
        "task_type": info.task_type,
        **{name: time and time.isoformat() for name, time in times.items()},
        "points": info.usage and info.usage.consume,
        "usd": info.usage and info.usage.usd,
        "images": [None if image.is_inline else image.url for image in info.images],
        "files": done.files,
    }


def _when(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _link(image: Image, *, info: TaskInfo) -> str:
    return f"inside the answer; {saves(info.task_id)}" if image.is_inline else one_line(image.url)


def as_json(info: TaskInfo) -> str:
    """The task as the service sent it, without the webhook's secret.

    Raises:
        UnexpectedResponseError: It is nested too deep.
    """
    try:
        return json.dumps(_redacted(info.raw), indent=2)
    except RecursionError:
        raise errors.UnexpectedResponseError(f"task {info.task_id} is nested too deep to be printed") from None


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: "***" if key == "secret" and item else _redacted(item) for key, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, list) else value
