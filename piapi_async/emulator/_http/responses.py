"""How everything is written on the wire: tasks, refusals, the plain 404.

From the documented examples: piapi.ai/docs/flux-api/image-to-image (a new task) and .../kontext (a finished one).
"""

import html
import json
import time
from collections.abc import Mapping
from typing import Any

import attrs

from piapi_async.emulator._service.lifecycle import Failure, Task
from piapi_async.emulator._service.settings import Settings
from piapi_async.emulator._service.validation import Refusal
from piapi_async.emulator.options import Options

_ZERO_TIME = "0001-01-01T00:00:00Z"
_NANO = 1_000_000_000
_HEALTHY = Failure(reason="", code=0)
_CONTENT_TYPES = {"html": "text/html", "text": "text/plain"}
_OURS = ("staged", "pending", "processing", "completed", "failed", "canceled")
_STATUS_WORDS: Mapping[str, Mapping[str, str]] = {
    "lowercase": {},
    "capitalised": {word: word.capitalize() for word in _OURS},
    "flux-page": {"processing": "processing\t", "completed": "success"},
    "starting": {"pending": "starting"},
    "retry": {"processing": "retry"},
    "staged": {"pending": "staged"},
    "unknown": {"processing": "rendering"},
}


@attrs.frozen(kw_only=True)
class Answer:
    """An HTTP answer before a fault gets hold of it."""

    status: int = 200
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = attrs.field(factory=dict)
    task_id: str | None = None
    refusal: str | None = None


NOT_FOUND = Answer(status=404, body=b"404 page not found\n", content_type="text/plain")
_PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"


def as_json(value: object) -> bytes:
    """Written as Go does, without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


def envelope(data: object, *, message: str = "success", code: int = 200) -> bytes:
    """The JSON that PiAPI puts round everything."""
    return as_json({"code": code, "data": data, "message": message})


def page(title: str) -> bytes:
    """An HTML page that says so."""
    return _PAGE.format(html.escape(title)).encode()


class Renderer:
    """Writes tasks and refusals in the dialect that the options choose.

    Args:
        settings: The dialect.

        epoch: What second 0 of the tasks' times is, in seconds since 1970.
    """

    def __init__(self, settings: Settings, *, epoch: float) -> None:
        self._settings = settings
        self._epoch = round(epoch * _NANO)

    def task(self, task: Task, *, base_url: str) -> Answer:
        """A task, wrapped in the envelope."""
        return Answer(body=envelope(self.task_data(task, base_url=base_url)), task_id=task.task_id)

    def created(self, task: Task, *, base_url: str) -> Answer:
        """The answer to a create: its documented example shows no `service_mode` where none was set, newer ones do."""
        config = {name: value for name, value in task.config.items() if name != "service_mode" or value}
        data = {**self.task_data(task, base_url=base_url), "config": config}
        return Answer(body=envelope(data), task_id=task.task_id)

    def task_data(self, task: Task, *, base_url: str) -> dict[str, Any]:
        """A task as PiAPI shows it, links beginning with *base_url*."""
        options = self._settings.current
        failure = task.failure if task.failure and task.status == "failed" else None
        logs = [failure.reason] if failure and failure.where == "logs" else []
        return {
            "task_id": task.task_id,
            "model": task.model,
            "task_type": task.task_type,
            "status": self._word(task.shown_status),
            "config": task.config,
            "input": task.input,
            "output": self.output(task, base_url),
            "meta": self._meta(task),
            "detail": None,
            "logs": logs or ([] if options.empty_logs == "list" else None),
            "error": None if failure is None and options.healthy_error == "null" else _error(failure or _HEALTHY),
        }

    def canceled(self, task: Task) -> Answer:
        """The documented answer to a cancel: no `data`."""
        body = as_json({"code": 200, "message": f"task {task.task_id} canceled"})
        return Answer(body=body, task_id=task.task_id)

    def refusal(self, refusal: Refusal, *, task_id: str | None = None) -> Answer:
        """A refusal in the chosen transport."""
        transport = refusal.transport or self._settings.current.error_transport
        return Answer(
            status=200 if transport == "code" else refusal.status,
            body=_refusal_body(refusal, transport),
            content_type=_CONTENT_TYPES.get(transport, "application/json"),
            headers=refusal.headers,
            task_id=task_id,
            refusal=refusal.message,
        )

    def _word(self, status: str) -> str:
        words = self._settings.current.status_words
        return (_STATUS_WORDS[words] if isinstance(words, str) else words).get(status, status)

    def output(self, task: Task, base_url: str) -> dict[str, Any] | None:
        """The links of a task; None before it is completed."""
        shape = self._settings.current.output_shape
        if task.status != "completed" or shape == "null":
            return None
        links = [f"{base_url}/temp/{result_id}.png" for result_id in task.result_ids]
        if shape == "documented":
            shape = "image_url" if len(links) == 1 else "image_urls"
        return _output_keys(links, shape)

    def _meta(self, task: Task) -> dict[str, Any]:
        options = self._settings.current
        hides_start = options.unset_times == "zero-while-processing" and task.ended_at is None
        return {
            "created_at": self.time(task.created_at),
            "started_at": self.time(None if hides_start else task.started_at),
            "ended_at": self.time(task.ended_at),
            **({} if options.usage == "absent" else {"usage": usage(task, options=options)}),
            "is_using_private_pool": False,
        }

    def time(self, seconds: float | None) -> str:
        """A point in time as PiAPI writes it; None is one that has not come."""
        options = self._settings.current
        if seconds is None:
            return "" if options.unset_times == "empty" else _ZERO_TIME
        whole, nanos = divmod(self._epoch + round(seconds * _NANO), _NANO)
        digits = f".{nanos:09d}"[: options.time_digits + 1] if options.time_digits else ""
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}{digits}Z"

    def unix(self, seconds: float) -> int:
        """A point in time in whole seconds since 1970."""
        return (self._epoch + round(seconds * _NANO)) // _NANO


def usage(task: Task, *, options: Options) -> dict[str, Any]:
    """Points as PiAPI shows them.

    What a failed task shows is not documented; here it is what it cost.
    """
    frozen, consume = 0, task.price
    if task.ended_at is not None:
        consume = task.cost
    elif options.usage == "frozen-first":
        frozen, consume = task.price, 0
    return {"type": options.usage_type, "frozen": frozen, "consume": consume}


def _refusal_body(refusal: Refusal, transport: str) -> bytes:
    if transport == "html":
        return page(f"{refusal.status} {refusal.message}")
    if transport == "text":
        return f"{refusal.message}\n".encode()
    if transport in ("error", "description"):
        return as_json({transport: refusal.message})
    return envelope(None, message=refusal.message, code=refusal.status)


def _error(failure: Failure) -> dict[str, Any]:
    message = failure.reason if failure.where == "error" else "task failed"
    return {"code": failure.code, "raw_message": message, "message": message, "detail": None}


def _output_keys(links: list[str], shape: str) -> dict[str, Any]:
    one = {"image_url": links[0], "image_base64": ""}
    keys: dict[str, dict[str, Any]] = {
        "image_url": one,
        "image_urls": {"image_url": "", "image_base64": "", "image_urls": links},
        "both": one | {"image_urls": links},
        "null-urls": one | {"image_urls": None},
    }
    return keys[shape]
