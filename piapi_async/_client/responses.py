"""The service's answers, without I/O: the parts of an HTTP answer become a value or an error.

The service answers in many dialects (statuses in any case, errors inside a 200, plain text, HTML); all of them end
here. Whatever the bytes, `decode_task` gives a `TaskInfo` or raises a `PiAPIError`.
"""

import hashlib
import json
import math
import re
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import attrs

from piapi_async import _media, _validators, errors
from piapi_async._text import clipped
from piapi_async.account import Account, parse_account
from piapi_async.prices import MAX_POINTS
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
_NOTHING_MADE: Mapping[re.Pattern[str], type[errors.APIError]] = {
    re.compile(words, re.IGNORECASE): kind
    for words, kind in {
        # "failed to freeze credit" and "failed to freeze point"; with which status is not known.
        r"failed to freeze": errors.InsufficientCreditsError,
        r"insufficient (balance|credit|fund|point|quota)": errors.InsufficientCreditsError,
        r"failed to verify api key": errors.AuthenticationError,
        r"under maintenance": errors.ServerError,
        r"task input too large": errors.InvalidRequestError,
        r"\bimage\b.*\bnot accessible": errors.InvalidRequestError,
        r"\binvalid (image|input|model|prompt|request|task[ _]type)": errors.InvalidRequestError,
        r"cannot unmarshal \w+ into\b.*\bof type": errors.InvalidRequestError,
    }.items()
}
"""The words in which PiAPI says that it made no task, and the error that each is.

All were seen in public code as answers to a submit (HTTP 400, 401, 500, or 200 with a `code`); PiAPI publishes no list.
With words that are not here, a 5xx leaves open whether there is a task.
"""

_VAGUE = (errors.APIError, errors.InvalidRequestError, errors.ServerError)
"""What a status alone says less well than known words."""

_HINTS: Mapping[type[Exception], errors.Hint] = {
    errors.AuthenticationError: errors.Hint.CHECK_KEY,
    errors.InsufficientCreditsError: errors.Hint.CHECK_BALANCE,
}
_UPLOAD_HINTS: Mapping[type[Exception], errors.Hint] = {errors.AuthenticationError: errors.Hint.CHECK_UPLOAD_PLAN}
_CLOUDFLARE_CODE = re.compile(rb"error code: ?1\d{3}", re.IGNORECASE)

_LENIENT = json.JSONDecoder(strict=False)
_BLANK = "\ufeff\0 \t\r\n"
_LONG_TEXT = 10_000  # characters; a longer one in an echo is a picture, or as good as one
_LOG_LINE = 4_000
_RESULTS = ("output", "task_result")
_TOKEN = re.compile(r'\s*("[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s"{}\[\],:]+)', re.DOTALL)
_SECRET_MIN = 4  # a shorter one is part of too many words, and no secret
_SECRET_FIELD = re.compile(r'("secret"\s*:\s*")(?:[^"\\]|\\.)*')


@attrs.frozen(kw_only=True)
class Answer:
    """The parts of one HTTP answer; header names are in lower case, or found in any case.

    Attributes:
        status: The HTTP status.

        headers: What its head says.

        body: Its content, or the first part of it.

        cut: What broke the body off, or `None` when it came whole.

        url: What was asked.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    cut: errors.TransportError | None = attrs.field(default=None, repr=False)
    url: str = attrs.field(default="", repr=False)


def decode_upload(answer: Answer, *, now: float, secrets: Collection[str] = ()) -> str:
    """The link to an uploaded file; the arguments and errors are those of `decode_task`."""
    check(answer, now=now, secrets=secrets, hints=_UPLOAD_HINTS)
    payload = _mapping(_json(answer.body))
    # The upload page's samples have it in `data`, PiAPI's own command line reads it from the top level.
    for url in (_mapping(payload.get("data")).get("url"), payload.get("url")):
        if isinstance(url, str) and _validators.is_http_url(url):
            return url
    raise _unexpected(answer, payload, secrets=secrets, wanted="a link to the upload")


def decode_account(answer: Answer, *, now: float, secrets: Collection[str] = ()) -> Account:
    """The account in an answer; the arguments and errors are those of `decode_task`."""
    check(answer, now=now, secrets=secrets)
    payload = _mapping(_json(answer.body))
    data = _mapping(payload.get("data"))
    if not data:
        raise _unexpected(answer, payload, secrets=secrets, wanted="an account")
    return parse_account(data)


def decode_task(answer: Answer, *, now: float, secrets: Collection[str] = (), task_id: str | None = None) -> TaskInfo:
    """The task in an answer.

    An answer that carries a task is a task, whatever its HTTP status: the service has sent both together, and a task
    that exists must not be lost over it.

    Args:
        answer: What the server sent.

        now: Seconds since 1970, for a `Retry-After` with a date in an answer without one.

        secrets: Texts that must not appear in an error's message or body.

        task_id: The task that was asked for, if one was.

    Raises:
        APIError: The answer is an error.
        RequestTimeoutError: The answer is a 408 or a 499.
        UnexpectedResponseError: The answer is neither, or about another task.
    """
    payload, text = _read(answer.body)
    info = _task(answer, payload, text=text, secrets=secrets)
    if info is None:
        raise _failure(answer, payload, now=now, secrets=secrets) or _unexpected(answer, payload, secrets=secrets)
    if task_id is not None:
        _compare(info.task_id, task_id, answer=answer, secrets=secrets)
    return info


def decode_submit(answer: Answer, *, now: float, secrets: Collection[str] = ()) -> TaskInfo:
    """The task in the answer to a submit, also in one that breaks off, or cannot be read, after the task's id.

    Of such a task only its names are known: what else was read of it may be half the truth. The arguments and errors
    are those of `decode_task`.

    Raises:
        TransportError: The answer broke off too early.
    """
    payload, text = _read(answer.body)
    info = _task(answer, payload, text=text, secrets=secrets)
    if payload is None:
        payload = _beginning(answer.body)
        task = _task_object(payload, is_refusal=_refusal(answer, payload) is not None)
        info = (
            None if task is None else parse_task({name: task.get(name) for name in ("task_id", "model", "task_type")})
        )
    if info is not None:
        return info
    failure = _failure(answer, payload, now=now, secrets=secrets)
    if failure is None and answer.cut is not None:
        raise answer.cut
    raise failure or _unexpected(answer, payload, secrets=secrets)


def check(
    answer: Answer,
    *,
    now: float,
    secrets: Collection[str] = (),
    hints: Mapping[type[Exception], errors.Hint] = _HINTS,
) -> None:
    """Raise the error that an answer is, if it is one; the arguments and errors are those of `decode_task`."""
    payload = _json(answer.body)
    failure = _failure(answer, payload, now=now, secrets=secrets, hints=hints, is_task=False)
    if failure is not None:
        raise failure
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own boundaries
        raise _unexpected(answer, payload, secrets=secrets)


def check_cancel(answer: Answer, *, now: float, secrets: Collection[str] = (), task_id: str) -> None:
    """Raise what keeps an answer from being that of the task's cancel; the rest is as for `decode_task`."""
    check(answer, now=now, secrets=secrets)
    task = _task_object(_json(answer.body), is_refusal=False)
    if task is not None:
        _compare(_id(task), task_id, answer=answer, secrets=secrets)


def _compare(told: str, asked: str, *, answer: Answer, secrets: Collection[str]) -> None:
    """Refuse an answer about another task: a cache's or a gateway's mistake, perhaps another customer's picture."""
    asked = asked.encode(errors="replace").decode()  # as it stood in the path
    if told.strip().casefold() != asked.strip().casefold():
        raise errors.UnexpectedResponseError(
            f"asked for task {_short(asked)}, PiAPI answered {answer.status} with task {_short(told)}",
            status=answer.status,
            body=_excerpt(answer.body, secrets=secrets),
            task_id=asked,
        )


def _unexpected(
    answer: Answer, payload: object, *, secrets: Collection[str], wanted: str = "a task"
) -> errors.UnexpectedResponseError:
    text = _excerpt(answer.body, secrets=secrets)
    said = _message(payload, secrets=secrets) or _short(text) or "nothing"
    return errors.UnexpectedResponseError(
        f"PiAPI answered {answer.status} with something that is not {wanted}: {said}",
        status=answer.status,
        body=text,
        task_id=_named(payload) or None,
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


def _is_enveloped(payload: object) -> bool:
    """Whether an error has one of the forms that PiAPI's own have been seen in.

    They are `{"code": 400, "message": "..."}`, with or without `data`; `{"message": "...", "data": {...}}` without a
    code; `{"error": "..."}`; and `{"description": "..."}`. A mere `{"message": "..."}` is what API gateways say.
    """
    outer = _mapping(payload)
    return (
        _code(payload) is not None
        or {"message", "data"} <= outer.keys()
        or any(_text(outer.get(name)).strip() for name in ("error", "description"))
    )


def _failure(
    answer: Answer,
    payload: object,
    *,
    now: float,
    secrets: Collection[str],
    hints: Mapping[type[Exception], errors.Hint] = _HINTS,
    is_task: bool = True,
) -> errors.PiAPIError | None:
    """The error that an answer is, if it is one. Whether a task can have come of it is decided here, and only here.

    Args:
        answer: The answer.

        payload: What its body says.

        now: Seconds since 1970.

        secrets: What must not be shown.

        hints: What the reader can do about each kind of error.

        is_task: Whether the answer is to hold a task, so that one without is an error if its words say so.
    """
    is_redirect = 300 <= answer.status < 400  # noqa: PLR2004 - HTTP's own boundaries
    by_words = _nothing_made(answer, payload)
    status = _refusal(answer, payload)
    if status is None and (is_redirect or (is_task and by_words is not None)):
        status = answer.status
    if status is None:
        return None
    body = _excerpt(answer.body, secrets=secrets)
    parts: dict[str, Any] = {
        "status": answer.status,
        "code": _code(payload),
        "message": _message(payload, secrets=secrets) or _short(body),
        "body": body,
        "headers": {name.lower(): _redact(text, secrets=secrets) for name, text in answer.headers.items()},
        "is_enveloped": _is_enveloped(payload),
        "task_id": _named(payload) or None,
    }
    is_named = parts["task_id"] is not None
    if is_named:  # it may have been made, and refused or cut short afterwards
        parts["safe_to_resubmit"] = False
    said = parts["message"] or "no reason given"
    if is_redirect:
        # Not followed: it would carry the API key to wherever it points. A POST that is redirected was not accepted.
        target = _short(parts["headers"].get("location", "").partition("?")[0]) or "nowhere"
        text = f"PiAPI answered {answer.status}, a redirect to {target}, which is not followed"
        return errors.APIError(text, hint=errors.Hint.CHECK_BASE_URL, **parts)
    if status in (408, 499):  # the server, or a proxy, gave up waiting: as unknown in outcome as a time-out of ours
        text = f"PiAPI answered {status}: {said}"
        return errors.RequestTimeoutError(text, status=status, task_id=parts["task_id"])
    if by_words is None and _is_blocked(answer, is_enveloped=parts["is_enveloped"]):
        text = f"Cloudflare, in front of PiAPI, answered {status}: {said}"
        return errors.APIError(text, hint=errors.Hint.CLIENT_BLOCKED, **parts)
    kind = _BY_STATUS.get(status, errors.APIError) if 400 <= status < 500 else errors.ServerError  # noqa: PLR2004
    if by_words is not None and (kind in _VAGUE or by_words is errors.InsufficientCreditsError):
        kind = by_words
        parts["safe_to_resubmit"] = True
    elif answer.status in errors.ORIGIN_NOT_REACHED and not (parts["is_enveloped"] or is_named):
        parts["safe_to_resubmit"] = True
    text = f"PiAPI answered {status}: {said}"
    if kind in (errors.RateLimitError, errors.ServerError):
        pause = parts["retry_after"] = parse_retry_after(answer.headers, now=now)
        text += "" if pause is None else f"; it asks to wait {pause:g} s"
    # Without PiAPI's form it is not a task that was not found, but the path.
    is_path = kind is errors.NotFoundError and not parts["is_enveloped"]
    text += f"; the request went to {told(answer.url.partition('?')[0], secrets=secrets)}" if is_path else ""
    hint = errors.Hint.CHECK_BASE_URL if is_path and hints is _HINTS else hints.get(kind)
    return kind(text, hint=hint, **parts)


def _is_blocked(answer: Answer, *, is_enveloped: bool) -> bool:
    """Whether Cloudflare did not let a client through, by the forms that its pages have.

    `cf-mitigated` says so with any status (https://developers.cloudflare.com/cloudflare-challenges/challenge-types/
    challenge-pages/detect-response/); without it a 403 is a page of HTML, or `error code: 1010` and its like.
    """
    if is_enveloped or answer.status < 400 or answer.status == 429:  # noqa: PLR2004 - the last is a matter of rate
        return False
    is_page = answer.body.lstrip()[:1] == b"<" or _CLOUDFLARE_CODE.search(answer.body[:_EXCERPT]) is not None
    return bool(answer.headers.get("cf-mitigated")) or (answer.status == 403 and is_page)  # noqa: PLR2004


def _nothing_made(answer: Answer, payload: object) -> type[errors.APIError] | None:
    """The error that PiAPI's words are, if they say that no task was made, and no task is named.

    Words in plain text or HTML may be those of something in front of PiAPI, such as a load balancer's page about its
    maintenance; of the balance only PiAPI speaks.
    """
    if isinstance(payload, dict):
        # A gateway's 5xx has no envelope; its words may be about something else.
        if _named(payload) or (answer.status >= 500 and not _is_enveloped(payload)):  # noqa: PLR2004
            return None
        said = "\n".join(_said(payload))
        return next((kind for words, kind in _NOTHING_MADE.items() if words.search(said)), None)
    said = answer.body[:_EXCERPT].decode(errors="replace") if answer.status >= 400 else ""  # noqa: PLR2004
    short = errors.InsufficientCreditsError
    return short if any(words.search(said) for words, kind in _NOTHING_MADE.items() if kind is short) else None


def _message(payload: object, *, secrets: Collection[str]) -> str:
    """The server's words, from all known places, as one line.

    The cause is often inside: in `data.error.message`, in its `raw_message`, or in the last lines of `data.logs`.
    """
    found: list[str] = []
    for text in _said(payload) if isinstance(payload, dict) else ():
        line = told(text, secrets=secrets)
        if line != "success" and line not in ": ".join(found):
            found.append(line)
    return clipped(": ".join(found), most=_EXCERPT)


def _said(value: object, depth: int = 5) -> Iterator[str]:
    """The texts of an error, whichever of the known forms it has, from the outside in."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, list) and depth:
        for item in value[-3:]:  # the last lines of a log are those that tell
            yield from _said(item, depth - 1)
    elif isinstance(value, dict) and depth:
        for name in ("message", "raw_message", "error", "description", "detail", "data", "error_messages", "logs"):
            yield from _said(value.get(name), depth - 1)


def _json(body: bytes) -> Any:
    return _read(body)[0]


def _read(body: bytes) -> tuple[Any, bytes | None]:
    """A body as JSON values, and the text that says the same; both are `None` if it is not JSON.

    An echoed prompt may hold bytes that no JSON should have (a raw tab, half an emoji), and something may follow the
    value: neither makes a task unreadable. Such a text is not kept.
    """
    try:
        return json.loads(body), body
    except RecursionError:
        return None, None
    except ValueError:
        text = body.decode(json.detect_encoding(body), errors="replace").lstrip(_BLANK)
    with suppress(ValueError, RecursionError):
        return _LENIENT.raw_decode(text)[0], None
    return None, None


def _beginning(body: bytes) -> Any:
    """What can be read of JSON that breaks off, or breaks: the values before that point, with what is open closed."""
    text = body.decode(errors="replace").lstrip(_BLANK)
    try:
        return _LENIENT.decode(text)
    except json.JSONDecodeError as error:
        text = text[: error.pos]
    except (ValueError, RecursionError):
        return None
    closers: list[str] = []
    ends: deque[tuple[int, str]] = deque(maxlen=5)
    at = 0
    while (token := _TOKEN.match(text, at)) is not None:
        at, mark = token.end(), token[1]
        if mark in ("{", "["):
            closers.append("}" if mark == "{" else "]")
        elif mark in ("}", "]"):
            closers.pop()
        if at < len(text) or mark in "{[}]:," or mark.startswith('"'):  # more of a bare value may have followed
            ends.append((at, "".join(reversed(closers))))
    # A name without its value, a comma or half a number are no good ends: the one before them is.
    for end, closing in reversed(ends):
        with suppress(ValueError, RecursionError):
            return _LENIENT.decode(text[:end] + closing)
    return None


def _excerpt(body: bytes, *, secrets: Collection[str]) -> str:
    return _redact(body[: 8 * _EXCERPT].decode(errors="replace"), secrets=secrets)[:_EXCERPT].strip()


def _redact(text: str, *, secrets: Collection[str]) -> str:
    # A body shows a secret as JSON spells it; the longest form goes first, since one may lie inside another.
    spelt = {form for secret in secrets if len(secret) >= _SECRET_MIN for form in (secret, json.dumps(secret)[1:-1])}
    for form in sorted(spelt, key=len, reverse=True):
        text = text.replace(form, "***")
    return _SECRET_FIELD.sub(r"\1***", text)


def told(text: str, *, secrets: Collection[str]) -> str:
    """Words from anywhere for a message: one line, clipped, without these secrets."""
    return _short(_redact(text[: 8 * _EXCERPT], secrets=secrets))


def _short(text: str) -> str:
    return clipped(text, most=200)  # about two terminal lines


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait by a `Retry-After` in seconds or as an HTTP date, 0 to `RETRY_AFTER_MAX`; `None` without one.

    A date counts from the server's own `Date`, so that clocks that disagree do no harm; `now` is for when it has none.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        then = http_date(value)
        seconds = math.nan if then is None else then - (http_date(headers.get("date", "")) or now)
    return None if math.isnan(seconds) else min(max(seconds, 0.0), RETRY_AFTER_MAX)


def http_date(value: str) -> float | None:
    """An HTTP date as seconds since 1970 (UTC); `None` for nonsense."""
    try:
        return _in_utc(parsedate_to_datetime(value)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _task(answer: Answer, payload: object, *, text: bytes | None, secrets: Collection[str]) -> TaskInfo | None:
    task = _task_object(payload, is_refusal=_refusal(answer, payload) is not None)
    if task is not None:
        with suppress(RecursionError):  # nested so deep that it can be read, but not kept
            return parse_task(task, body=text, is_enveloped=task is not payload, secrets=secrets)
    return None


def _task_object(payload: object, *, is_refusal: bool) -> Mapping[str, Any] | None:
    """The task inside an envelope, or an envelope-less one."""
    outer = _mapping(payload)
    for task in (_mapping(outer.get("data")), outer):
        if _id(task).strip() and (not is_refusal or _text(task.get("status"))):
            return task
    return None


def _named(payload: object) -> str:
    """The id of the task that an answer names, in its envelope or without one; empty where it names none.

    An id elsewhere, in the echoed input or in a log, may be that of another task.
    """
    outer = _mapping(payload)
    return _id(_mapping(outer.get("data"))).strip() or _id(outer).strip()


def _id(task: Mapping[str, Any]) -> str:
    """A task's id; ids are texts in all examples, and a number would do."""
    task_id = task.get("task_id")
    is_number = isinstance(task_id, int) and not isinstance(task_id, bool) and 0 <= task_id < 10**18
    return str(task_id) if is_number else _text(task_id)


def parse_task(
    task: Mapping[str, Any],
    *,
    body: bytes | None = None,
    is_enveloped: bool = False,
    secrets: Collection[str] = (),
) -> TaskInfo:
    """A task object, as it stands in `data` of an answer or a webhook delivery, as a `TaskInfo`.

    Args:
        task: The task.

        body: The JSON text that it was read from, which is kept as it is if it is not long; without it the task is
            spelt anew.

        is_enveloped: Whether it is inside `data` there.

        secrets: Texts that must not appear in `TaskInfo.error` and `TaskInfo.logs`, which are shown to people. The
            webhook secret that the task itself echoes is one.
    """
    modern = _modern(task)
    meta = _mapping(modern.get("meta"))
    echoed = _mapping(_mapping(task.get("config")).get("webhook_config")).get("secret")
    secrets = (*secrets, _text(echoed))
    is_kept = body is not None and len(body) <= _LONG_TEXT
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
        error=_fault(modern.get("error"), secrets=secrets),
        logs=_logs(modern.get("logs"), secrets=secrets),
        raw=body if is_kept and body is not None else _without_long_texts(task),
        is_enveloped=is_kept and is_enveloped,
    )


def _without_long_texts(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """The task with every endless text of its echo as a digest: ten thousand tasks wait at once, each with a picture.

    What the task gave is not an echo, and stays.
    """
    return {name: value if name in _RESULTS else _shortened(value) for name, value in task.items()}


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, str) or len(value) <= _LONG_TEXT:
        return value
    if _media.is_data_uri(value):
        with suppress(ValueError):
            data = _media.decode_data_uri(value)
            return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return {"text_sha256": text_digest(value), "characters": len(value)}


def text_digest(text: str) -> str:
    """The SHA-256 by which a long text of an echo is known in `TaskInfo.raw`, in hexadecimal."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


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
    """A status word in any case, with blanks around it or in place of its `_`; an unknown one is `UNKNOWN`."""
    return _STATUS_WORDS.get("_".join(_text(word).split()).lower(), TaskStatus.UNKNOWN)


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
    """What a task costs, or `None` where that cannot be read: money that is unknown must not be taken for none."""
    usage = _mapping(value)
    consume: Any = usage.get("consume")
    if isinstance(consume, str) and consume.isascii() and consume.isdigit():
        consume = int(consume[:20])
    if isinstance(consume, bool) or not isinstance(consume, int | float) or not 0 <= consume < math.inf:
        return None
    consume = int(min(consume, MAX_POINTS))
    return Usage(type=_word(usage.get("type")), frozen=_int(usage.get("frozen")), consume=consume)


def _fault(value: object, *, secrets: Collection[str]) -> TaskFault | None:
    if isinstance(value, str):
        value = {"message": value}
    fault = _mapping(value)
    code, message, raw = _int(fault.get("code")), _text(fault.get("message")), _text(fault.get("raw_message"))
    if not message.strip():  # it may be one object deeper, as in the answer to a refused submit
        message = next(_said([fault.get("message"), fault.get("error")]), "")
    # A healthy task carries an error object too: code 0 and empty texts.
    if not (code or message.strip() or raw.strip()):
        return None
    message, raw = (_redact(text[:_LOG_LINE], secrets=secrets) for text in (message, raw))
    return TaskFault(code=code, message=message, raw_message=raw, detail=fault.get("detail"))


def _logs(value: object, *, secrets: Collection[str]) -> tuple[str, ...]:
    lines = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_redact(_log_line(line)[:_LOG_LINE], secrets=secrets) for line in lines)


def _log_line(line: object) -> str:
    """A line of a log; of an object, which lines are by PiAPI's schema, what it says."""
    return line if isinstance(line, str) else ": ".join(_said(line)) or json.dumps(line)


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
