"""The account's past tasks, page by page: `GET /api/open/tasks/histories`.

Source: piapi.ai/docs/piapi-user-history-query. It has words of its own for the status (`finished`, `failed`), and shows
neither prompt nor image. A canceled task is listed as failed; that is a guess.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from piapi_async.emulator._http.responses import Renderer, as_json, envelope
from piapi_async.emulator._service.lifecycle import Task
from piapi_async.emulator._service.service import Service
from piapi_async.emulator._service.validation import Refusal

_MOST_PER_PAGE = 100
_STATUS = {"completed": "finished", "canceled": "failed"}


@attrs.frozen(kw_only=True)
class _Query:
    page: int
    page_size: int
    model: str
    start_time: int
    end_time: int

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "_Query":
        return cls(
            page=_integer(given, "page", default=1, low=1),
            page_size=_integer(given, "page_size", default=10, low=1, high=_MOST_PER_PAGE),
            model=given.get("model") or "flux",
            start_time=_integer(given, "start_time", default=0),
            end_time=_integer(given, "end_time", default=2**62),
        )


class History:
    """Reads the tasks of a service as records.

    Args:
        service: The tasks, and the options.

        render: Writes times and outputs.
    """

    def __init__(self, service: Service, render: Renderer) -> None:
        self._service = service
        self._render = render

    def page(self, given: Mapping[str, str], *, now: float, base_url: str) -> bytes:
        """The body that answers a query, newest task first.

        Raises:
            Refusal: A number that is none, or out of range.
        """
        query = _Query.of(given)
        tasks = list(self._tasks(query, now=now))
        start = (query.page - 1) * query.page_size
        page = {
            "data": [self._record(task, base_url) for task in itertools.islice(tasks, start, start + query.page_size)],
            "page": query.page,
            "size": query.page_size,
            "total": len(tasks),
        }
        return as_json(page) if self._service.options.history_shape == "bare" else envelope(page)

    def _tasks(self, query: _Query, *, now: float) -> Iterator[Task]:
        for task in reversed(self._service.tasks.values()):
            in_time = query.start_time <= self._render.unix(task.created_at) <= query.end_time
            if query.model == "flux" and in_time and self._is_known(task, now=now):
                yield task

    def _is_known(self, task: Task, *, now: float) -> bool:
        options = self._service.options
        since = task.ended_at if options.history_lists == "ended" else task.created_at
        return since is not None and since + options.history_lag <= now

    def _record(self, task: Task, base_url: str) -> dict[str, Any]:
        output = self._render.output(task, base_url)
        return {
            "id": task.index + 1,
            "account_id": 1,
            "api_key_id": 1,
            "task_id": task.task_id,
            "task_model": "flux",
            "action": task.task_type,
            "status": _STATUS.get(task.status, task.status),
            "service_mode": task.config["service_mode"] or "public",
            "usage": task.cost,
            "usage_type": self._service.options.usage_type,
            "fixed": False,
            "created_at": self._render.time(task.created_at),
            "updated_at": self._render.time(task.changed_at),
            "detail": {
                "model": task.model,
                "task_id": task.task_id,
                "workflow_type": task.task_type,
                **({} if output is None else {"output": output}),
            },
        }


def _integer(given: Mapping[str, str], name: str, *, default: int, low: int = 0, high: int = 2**63) -> int:
    try:
        number = int(given.get(name) or default)
    except ValueError:
        raise Refusal(400, f"{name} is not an integer") from None
    if not low <= number <= high:
        raise Refusal(400, f"{name} must be >= {low} and <= {high}")
    return number
