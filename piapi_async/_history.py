"""The account's past tasks, page by page, without I/O (https://piapi.ai/docs/piapi-user-history-query)."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import attrs

from piapi_async import _calls, _wire, errors

PAGE = 100
"""Records on a page; the service refuses more."""


@attrs.frozen(kw_only=True)
class HistoryPage:
    """What a page says: which tasks there were. Prompts and pictures are not in it."""

    task_ids: tuple[str, ...]
    is_full: bool
    """Whether another page may follow."""


def history_call(base_url: str, *, api_key: str, model: str | None, start: int, end: int, page: int) -> _calls.Call:
    """`GET /api/open/tasks/histories`, which is free; times are seconds since 1970."""
    query = {"page": page, "page_size": PAGE, "start_time": start, "end_time": end}
    text = urlencode(query if model is None else {**query, "model": model})
    return _calls.Call(method="GET", url=f"{base_url}/api/open/tasks/histories?{text}", api_key=api_key)


def decode_history(answer: _wire.Answer, *, now: float, secrets: Collection[str] = ()) -> HistoryPage:
    """The page in an answer, in the envelope or without it; the arguments and errors are those of `decode_task`."""
    _wire.check(answer, now=now, secrets=secrets)
    records = _records(answer.body)
    if records is None:
        raise errors.UnexpectedResponseError(
            f"PiAPI answered {answer.status} with something that is no history", status=answer.status
        )
    ids = (record.get("task_id") for record in records if isinstance(record, dict))
    found = tuple(task_id for task_id in ids if isinstance(task_id, str) and task_id.strip(". \t\r\n"))
    return HistoryPage(task_ids=found, is_full=len(records) >= PAGE)


def _records(body: bytes) -> list[Any] | None:
    payload: Any = None
    with suppress(ValueError, RecursionError):
        payload = json.loads(body)
    for _ in range(2):
        payload = payload.get("data") if isinstance(payload, Mapping) else payload
    return payload if isinstance(payload, list) else None
