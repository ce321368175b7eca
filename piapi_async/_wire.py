"""The service's answers, without I/O: the parts of an HTTP answer become a value or an error.

The service answers in many dialects (statuses in any case, errors inside a 200, plain text, HTML); all of them end
here. Whatever the bytes, `decode_task` gives a `TaskInfo` or raises a `PiAPIError`.
"""

import json
import math
import re
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import attrs

from piapi_async import _checks, _media, errors
from piapi_async.account import Account, parse_account
from piapi_async.task import Image, TaskFault, TaskInfo, TaskStatus, Usage

RETRY_AFTER_MAX = 3600.0
"""The longest pause, in seconds, that is taken from a `Retry-After`."""

_EXCERPT = 500
_STATUS_WORDS = {
    "pending": TaskStatus.PENDING,
    "starting": TaskStatus.PENDING,
    "staged": TaskStatus.STAGED,
    "processing": TaskStatus.PROCESSING,
    "running": TaskStatus.PROCESSING,
    "in_progress": TaskStatus.PROCESSING,
    "retry": TaskStatus.RETRY,
    "completed": TaskStatus.COMPLETED,
    "success": TaskStatus.COMPLETED,
    "finished": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "canceled": TaskStatus.CANCELED,
    "cancelled": TaskStatus.CANCELED,
}
_BY_STATUS: dict[int, type[errors.APIError]] = {
    400: errors.InvalidRequestError,
    401: errors.AuthenticationError,
    402: errors.InsufficientCreditsError,
    403: errors.AuthenticationError,
    404: errors.NotFoundError,
    413: errors.InvalidRequestError,
    422: errors.InvalidRequestError,
    429: errors.RateLimitError,
}
_HINTS: Mapping[type[Exception], str] = {
    errors.AuthenticationError: "; check the API key (PIAPI_API_KEY) and what its plan allows",
    errors.InsufficientCreditsError: "; top up at https://piapi.ai/workspace",
}
_UPLOAD_HINTS: Mapping[type[Exception], str] = {
    errors.AuthenticationError: "; uploads need a valid API key and the Creator plan or higher: use local_images="
    "'data-uri', which sends pictures without one",
}
_SECRET_MIN = 4  # a shorter one is part of too many words, and no secret
_SECRET_FIELD = re.compile(r'("secret"\s*:\s*")(?:[^"\\]|\\.)*')


@attrs.frozen(kw_only=True)
class Answer:
    """The parts of one HTTP answer; header names are in lower case, or found in any case."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


def decode_upload(answer: Answer, *, now: float, secrets: Collection[str] = ()) -> str:
    """The link to an uploaded file; the arguments and errors are those of `decode_task`."""
    check(answer, now=now, secrets=secrets, hints=_UPLOAD_HINTS)
    payload = _mapping(_json(answer.body))
    # The upload page's samples have it in `data`, PiAPI's own command line reads it from the top level.
    for url in (_mapping(payload.get("data")).get("url"), payload.get("url")):
        if isinstance(url, str) and _checks.is_http_url(url):
            return url
    raise _unexpected(answer, secrets=secrets, wanted="link to the upload")


def decode_account(answer: Answer, *, now: float, secrets: Collection[str] = ()) -> Account:
    """The account in an answer; the arguments and errors are those of `decode_task`."""
    check(answer, now=now, secrets=secrets)
    data = _mapping(_mapping(_json(answer.body)).get("data"))
    if not data:
        raise _unexpected(answer, secrets=secrets, wanted="account")
    return parse_account(data)


def decode_task(answer: Answer, *, now: float, secrets: Collection[str] = ()) -> TaskInfo:
    """The task in an answer.

    An answer that carries a task is a task, whatever its HTTP status: the service has sent both together, and a task
    that exists must not be lost over it.

    Args:
        answer: What the server sent.

        now: Seconds since 1970, for a `Retry-After` with a date in an answer without one.

        secrets: Texts that must not appear in an error's message or body.

    Raises:
        APIError: The answer is an error.
        RequestTimeoutError: The answer is a 408.
        UnexpectedResponseError: The answer is neither.
    """
    payload = _json(answer.body)
    task = _task_object(payload, refused=_refusal(answer, payload) is not None)
    if task is not None:
        with suppress(RecursionError):  # nested so deep that it can be read, but not kept
            return parse_task(task, body=answer.body, is_enveloped=task is not payload)
    check(answer, now=now, secrets=secrets)
    raise _unexpected(answer, secrets=secrets)


def check(
    answer: Answer, *, now: float, secrets: Collection[str] = (), hints: Mapping[type[Exception], str] = _HINTS
) -> None:
    """Raise the error that an answer is, if it is one; the arguments and errors are those of `decode_task`."""
    payload = _json(answer.body)
    refusal = _refusal(answer, payload)
    if refusal is not None:
        raise _error(refusal, answer=answer, payload=payload, now=now, secrets=secrets, hints=hints)
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own boundaries
        raise _unexpected(answer, secrets=secrets)


def _unexpected(answer: Answer, *, secrets: Collection[str], wanted: str = "task") -> errors.UnexpectedResponseError:
    text = _excerpt(answer.body, secrets=secrets)
    is_redirect = 300 <= answer.status < 400  # noqa: PLR2004 - HTTP's own boundaries
    what = "a redirect, which is not followed" if is_redirect else f"something that is no {wanted}"
    return errors.UnexpectedResponseError(
        f"PiAPI answered {answer.status} with {what}: {_line(text) or 'nothing'}", status=answer.status, body=text
    )


def _refusal(answer: Answer, payload: object) -> int | None:
    """The status of an error: the envelope's `code` inside a 2xx (the service does so), else the HTTP status."""
    if answer.status >= 400:  # noqa: PLR2004 - HTTP's own boundary
        return answer.status
    code = _code(payload)
    return code if code is not None and code >= 400 else None  # noqa: PLR2004 - the same, in the envelope


def _code(payload: object) -> int | None:
    code = payload.get("code") if isinstance(payload, dict) else None
    if isinstance(code, str) and code.isascii() and code.isdigit():
        code = int(code[:10])
    return code if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 10**9 else None


def _error(
    status: int,
    *,
    answer: Answer,
    payload: object,
    now: float,
    secrets: Collection[str],
    hints: Mapping[type[Exception], str],
) -> errors.PiAPIError:
    body = _excerpt(answer.body, secrets=secrets)
    message = _line(_redact(_message(payload), secrets=secrets) or body)
    if status == 408:  # noqa: PLR2004 - Request Timeout: as unknown in outcome as a time-out on our side
        return errors.RequestTimeoutError(f"PiAPI answered 408: {message or 'no reason given'}")
    kind = _kind(status, message=message)
    hint = hints.get(kind, "")
    extras: dict[str, Any] = {}
    if kind in (errors.RateLimitError, errors.ServerError):
        pause = extras["retry_after"] = parse_retry_after(answer.headers, now=now)
        hint = "" if pause is None else f"; it asks to wait {pause:g} s"
    return kind(
        f"PiAPI answered {status}: {message or 'no reason given'}{hint}",
        status=answer.status,
        code=_code(payload),
        message=message,
        body=body,
        headers={name.lower(): _redact(text, secrets=secrets) for name, text in answer.headers.items()},
        **extras,
    )


def _kind(status: int, *, message: str) -> type[errors.APIError]:
    # "failed to freeze credit" and "failed to freeze point" have been seen; with which status is not known.
    if "failed to freeze" in message.lower():
        return errors.InsufficientCreditsError
    if 500 <= status < 600:  # noqa: PLR2004 - HTTP's own boundaries
        return errors.ServerError
    return _BY_STATUS.get(status, errors.APIError)


def _message(payload: object) -> str:
    """The server's words, in whichever of the known places it put them."""
    if not isinstance(payload, dict):
        return ""
    fault = _mapping(_mapping(payload.get("data")).get("error"))
    places = (payload.get("message"), payload.get("error"), payload.get("description"), fault.get("message"))
    return next((text for text in places if isinstance(text, str) and text.strip()), "")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _excerpt(body: bytes, *, secrets: Collection[str]) -> str:
    return _redact(body[: 8 * _EXCERPT].decode(errors="replace"), secrets=secrets)[:_EXCERPT].strip()


def _redact(text: str, *, secrets: Collection[str]) -> str:
    # A body shows a secret as JSON spells it; the longest form goes first, since one may lie inside another.
    spelt = {form for secret in secrets if len(secret) >= _SECRET_MIN for form in (secret, json.dumps(secret)[1:-1])}
    for form in sorted(spelt, key=len, reverse=True):
        text = text.replace(form, "***")
    return _SECRET_FIELD.sub(r"\1***", text)


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 200 else words[:199] + "…"  # noqa: PLR2004 - about two terminal lines


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait by a `Retry-After` in seconds or as an HTTP date, 0 to `RETRY_AFTER_MAX`; `None` without one.

    A date counts from the server's own `Date`, so that clocks that disagree do no harm; `now` is for when it has none.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        then = _http_date(value)
        seconds = math.nan if then is None else then - (_http_date(headers.get("date", "")) or now)
    return None if math.isnan(seconds) else min(max(seconds, 0.0), RETRY_AFTER_MAX)


def _http_date(value: str) -> float | None:
    try:
        return _in_utc(parsedate_to_datetime(value)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _task_object(payload: object, *, refused: bool) -> Mapping[str, Any] | None:
    """The task inside an envelope, or an envelope-less one."""
    outer = _mapping(payload)
    for task in (_mapping(outer.get("data")), outer):
        if _id(task).strip() and (not refused or _text(task.get("status"))):
            return task
    return None


def _id(task: Mapping[str, Any]) -> str:
    """A task's id; ids are texts in all examples, and a number would do."""
    task_id = task.get("task_id")
    is_number = isinstance(task_id, int) and not isinstance(task_id, bool) and 0 <= task_id < 10**18
    return str(task_id) if is_number else _text(task_id)


def parse_task(task: Mapping[str, Any], *, body: bytes | None = None, is_enveloped: bool = False) -> TaskInfo:
    """A task object, as it stands in `data` of an answer or a webhook delivery, as a `TaskInfo`.

    Args:
        task: The task.

        body: The JSON text that it was read from, which is kept as it is; without it the task is spelt anew.

        is_enveloped: Whether it is inside `data` there.
    """
    modern = _modern(task)
    meta = _mapping(modern.get("meta"))
    ended_at = parse_time(meta.get("ended_at")) or parse_time(meta.get("completed_at"))
    return TaskInfo(
        task_id=_id(task),
        model=_word(task.get("model")),
        task_type=_word(task.get("task_type")),
        status=parse_status(task.get("status")),
        raw_status=_word(task.get("status")),
        images=_images(_mapping(modern.get("output")), ended_at=ended_at),
        usage=_usage(meta.get("usage")),
        created_at=parse_time(meta.get("created_at")),
        started_at=parse_time(meta.get("started_at")),
        ended_at=ended_at,
        error=_fault(modern.get("error")),
        logs=_logs(modern.get("logs")),
        raw=task if body is None else body,
        is_enveloped=is_enveloped,
    )


def _modern(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task in today's shape; the get-task page still shows an older one (`task_info`, `task_result`)."""
    if "task_result" not in task and "task_info" not in task:
        return task
    result = _mapping(task.get("task_result"))
    older = {
        "meta": task.get("task_info"),
        "output": result.get("task_output"),
        "logs": result.get("error_messages"),
    }
    return older | {key: value for key, value in task.items() if value}


def parse_status(word: object) -> TaskStatus:
    """A status word in any case, with or without blanks round it; an unknown one is `UNKNOWN`."""
    return _STATUS_WORDS.get(_text(word).strip().lower(), TaskStatus.UNKNOWN)


def parse_time(value: object) -> datetime | None:
    """An RFC 3339 time with 0 to 9 fractional digits, to the microsecond; `None` for "not yet" and for nonsense."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value.strip())
        # Go's zero time, 0001-01-01T00:00:00Z, is the service's "not yet".
        return None if time.year == 1 else _in_utc(time)
    except (ValueError, OverflowError):
        return None


def _in_utc(time: datetime) -> datetime:
    if time.tzinfo is UTC:
        return time
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _images(output: Mapping[str, Any], *, ended_at: datetime | None) -> tuple[Image, ...]:
    if not output:
        return ()
    several = output.get("image_urls")
    urls = [output.get("image_url"), *(several if isinstance(several, list) else ())]
    found = dict.fromkeys(url.strip() for url in urls if isinstance(url, str) and url.strip())
    if not found and (inline := _text(output.get("image_base64")).strip()):
        found[inline if _media.is_data_uri(inline) else f"data:image/png;base64,{inline}"] = None
    return tuple(Image(url, ended_at=ended_at) for url in found)


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    return Usage(type=_word(value.get("type")), frozen=_int(value.get("frozen")), consume=_int(value.get("consume")))


def _fault(value: object) -> TaskFault | None:
    if isinstance(value, str):
        value = {"message": value}
    fault = _mapping(value)
    code, message, raw = _int(fault.get("code")), _text(fault.get("message")), _text(fault.get("raw_message"))
    # A healthy task carries an error object too: code 0 and empty texts.
    if not (code or message.strip() or raw.strip()):
        return None
    return TaskFault(code=code, message=message, raw_message=raw, detail=fault.get("detail"))


def _logs(value: object) -> tuple[str, ...]:
    lines = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(line if isinstance(line, str) else json.dumps(line) for line in lines)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _word(value: object) -> str:
    """A text that many tasks share, kept once for all of them."""
    return sys.intern(value) if type(value) is str else ""


def _int(value: object) -> int:
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else 0
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
