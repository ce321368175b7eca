"""How everything is written on the wire: tasks, refusals, the plain 404.

From the documented examples: piapi.ai/docs/flux-api/image-to-image (a new task) and .../kontext (a finished one).
"""

import json
import time
from collections.abc import Mapping
from typing import Any

import attrs

from piapi_async.emulator._lifecycle import Failure, Task
from piapi_async.emulator._validation import Refusal
from piapi_async.emulator.options import Options

_ZERO_TIME = "0001-01-01T00:00:00Z"
_NANO = 1_000_000_000
_HEALTHY = Failure(reason="", code=0)
_STATUS_WORDS: Mapping[str, Mapping[str, str]] = {
    "lowercase": {},
    "capitalised": {word: word.capitalize() for word in ("pending", "processing", "completed", "failed", "canceled")},
    "flux-page": {"processing": "processing\t", "completed": "success"},
}


@attrs.frozen(kw_only=True)
class Answer:
    """An HTTP answer before a fault gets hold of it."""

    status: int = 200
    body: bytes
    content_type: str = "application/json"
    task_id: str | None = None
    refusal: str | None = None


NOT_FOUND = Answer(status=404, body=b"404 page not found\n", content_type="text/plain")


def envelope(data: object, *, message: str = "success", code: int = 200) -> bytes:
    """The JSON that PiAPI puts round everything."""
    return json.dumps({"code": code, "data": data, "message": message}, separators=(",", ":")).encode()


class Renderer:
    """Writes tasks and refusals in the dialect that the options choose.

    Args:
        options: The dialect.

        epoch: What second 0 of the tasks' times is, in seconds since 1970.
    """

    def __init__(self, options: Options, *, epoch: float) -> None:
        self._options = options
        self._epoch = round(epoch * _NANO)
        words = options.status_words
        self._words = _STATUS_WORDS[words] if isinstance(words, str) else words

    def task(self, task: Task, *, base_url: str) -> Answer:
        """A task, wrapped in the envelope."""
        return Answer(body=envelope(self.task_data(task, base_url=base_url)), task_id=task.task_id)

    def task_data(self, task: Task, *, base_url: str) -> dict[str, Any]:
        """A task as PiAPI shows it, links beginning with *base_url*."""
        failure = task.failure if task.failure and task.status == "failed" else _HEALTHY
        return {
            "task_id": task.task_id,
            "model": task.model,
            "task_type": task.task_type,
            "status": self._words.get(task.status, task.status),
            "config": task.config,
            "input": task.input,
            "output": self._output(task, base_url),
            "meta": self._meta(task),
            "detail": None,
            "logs": [failure.reason] if failure.where == "logs" else [],
            "error": _error(failure),
        }

    def canceled(self, task: Task) -> Answer:
        """The documented answer to a cancel: no `data`."""
        body = {"code": 200, "message": f"task {task.task_id} canceled"}
        return Answer(body=json.dumps(body).encode(), task_id=task.task_id)

    def refusal(self, refusal: Refusal, *, task_id: str | None = None) -> Answer:
        """A refusal in the chosen transport."""
        status, message, transport = refusal.status, refusal.message, self._options.error_transport
        if transport in ("status", "code"):
            body = envelope(None, message=message, code=status)
        else:
            body = json.dumps({transport: message}).encode()
        sent = 200 if transport == "code" else status
        return Answer(status=sent, body=body, task_id=task_id, refusal=message)

    def _output(self, task: Task, base_url: str) -> dict[str, Any] | None:
        shape = self._options.output_shape
        if task.status != "completed" or shape == "null":
            return None
        links = [f"{base_url}/temp/{result_id}.png" for result_id in task.result_ids]
        if shape == "documented":
            shape = "image_url" if len(links) == 1 else "image_urls"
        return _output_keys(links, shape)

    def _meta(self, task: Task) -> dict[str, Any]:
        return {
            "created_at": self._time(task.created_at),
            "started_at": self._time(task.started_at),
            "ended_at": self._time(task.ended_at),
            "usage": usage(task),
            "is_using_private_pool": False,
        }

    def _time(self, seconds: float | None) -> str:
        if seconds is None:
            return _ZERO_TIME
        whole, nanos = divmod(self._epoch + round(seconds * _NANO), _NANO)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{nanos:09d}Z"


def usage(task: Task) -> dict[str, Any]:
    """Points as PiAPI shows them: never frozen, and the price in `consume` from the beginning on.

    What a failed task shows is not documented; here it is 0.
    """
    consume = 0 if task.status in ("failed", "canceled") else task.price
    return {"type": "llm", "frozen": 0, "consume": consume}


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
