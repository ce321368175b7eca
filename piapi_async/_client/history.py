"""The account's past tasks, page by page, without I/O (https://piapi.ai/docs/piapi-user-history-query)."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import attrs

from piapi_async import errors
from piapi_async._client import requests, responses
from piapi_async.task import TaskInfo

PAGE = 100
"""Records that are asked for on a page; the service refuses more."""

NOTHING_NEW = 3
"""Pages in a row with nothing new after which no more are asked for.

While pages are read new tasks push older ones on to the next page, so that one page without anything new need not be
the end. A service that makes no difference between pages would give such for ever.
"""


@attrs.frozen(kw_only=True)
class HistoryPage:
    """What a page says.

    Attributes:
        tasks: The tasks, as their records tell them: without prompts and source pictures.

        records: How many records were on it, those that cannot be read included.

        size: How many records the service puts on a page, if it says; it may be fewer than were asked for.

        total: How many records there are on all pages, if it says.
    """

    tasks: tuple[TaskInfo, ...]
    records: int
    size: int | None
    total: int | None

    def is_last(self, *, read: int) -> bool:
        """Whether it is the last page as far as its numbers say, so many records having been read with it."""
        if 0 < self.records < PAGE and self.total is not None:
            return read >= self.total
        if 0 < self.records < PAGE and self.size is not None:
            return self.records < self.size
        return not self.records


def history_call(base_url: str, *, api_key: str, model: str | None, start: int, end: int, page: int) -> requests.Call:
    """`GET /api/open/tasks/histories`, which is free; times are seconds since 1970."""
    query = {"page": page, "page_size": PAGE, "start_time": start, "end_time": end}
    text = urlencode(query if model is None else {**query, "model": model})
    return requests.Call(method="GET", url=f"{base_url}/api/open/tasks/histories?{text}", api_key=api_key)


def decode_history(answer: responses.Answer, *, now: float, secrets: Collection[str] = ()) -> HistoryPage:
    """The page in an answer, in the envelope or without it; the arguments and errors are those of `decode_task`."""
    responses.check(answer, now=now, secrets=secrets)
    with suppress(ValueError, RecursionError):
        page = _page(json.loads(answer.body))
        if page is not None:
            return page
    raise errors.UnexpectedResponseError(
        f"PiAPI answered {answer.status} with no history that can be read", status=answer.status
    )


def _page(payload: Any) -> HistoryPage | None:
    """The page inside an envelope, or an envelope-less one, or a bare list of records."""
    numbers: Mapping[str, Any] = {}
    for _ in range(2):
        if isinstance(payload, dict) and "data" in payload:
            numbers, payload = payload, payload["data"]
    if payload is None and numbers:
        payload = []  # a Go service writes an empty list so
    if not isinstance(payload, list):
        return None
    records = [record for record in payload if isinstance(record, dict) and isinstance(record.get("task_id"), str)]
    return HistoryPage(
        tasks=tuple(_task(record) for record in records if record["task_id"].strip(". \t\r\n")),
        records=len(payload),
        size=_whole(numbers.get("size")) or None,
        total=_whole(numbers.get("total")),
    )


def _task(record: Mapping[str, Any]) -> TaskInfo:
    detail = record.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    # Points are told as a number, without the object that a task has; without one the cost is unknown, which is not 0.
    points = _whole(record.get("usage"))
    usage = None if points is None else {"type": record.get("usage_type"), "consume": points}
    info = responses.parse_task(
        {
            "task_id": record.get("task_id"),
            "model": detail.get("model") or record.get("task_model"),
            "task_type": detail.get("workflow_type") or record.get("action"),
            "status": record.get("status"),
            "output": detail.get("output"),
            "meta": {"created_at": record.get("created_at"), "usage": usage},
        }
    )
    return attrs.evolve(info, raw=record)


def same(one: Sequence[TaskInfo], other: Sequence[TaskInfo]) -> bool:
    """Whether two pages list the same tasks in the same order."""
    return [info.task_id for info in one] == [info.task_id for info in other]


def _whole(value: object) -> int | None:
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**18
    return int(value) if is_whole else None  # type: ignore[call-overload] # a number
