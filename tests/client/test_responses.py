"""The protocol without I/O: requests as HTTP parts, and every dialect of the service's answers."""

import json
import math
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.strategies import PAYLOADS, TASKS, answers

from piapi_async import (
    Image,
    Img2Img,
    TaskInfo,
    TaskRequest,
    TaskStatus,
    Usage,
    WebhookConfig,
    errors,
)
from piapi_async._client import body as _content
from piapi_async._client import requests, responses
from piapi_async.task import TaskFault

KEY = "0123456789abcdef-the-key"
SECRET = 'hush"hush\\hush'
BASE = "https://api.piapi.ai"

CREATED = json.loads("""
{"code":200,
 "data":{"task_id":"1631d053-2352-4add-95cc-360fc52d5f89","model":"Qubico/flux1-schnell","task_type":"img2img",
  "status":"pending",
  "config":{"webhook_config":{"endpoint":"https://webhook.site/xxxx","secret":""}},
  "input":{"prompt":"a bear","negative_prompt":"","image":"https://i.ibb.co/J7ZNgSG/01.jpg","width":0,"height":0,"steps":0},
  "output":null,
  "meta":{"created_at":"2024-09-25T07:40:08.333962391Z","started_at":"0001-01-01T00:00:00Z","ended_at":"0001-01-01T00:00:00Z",
   "usage":{"type":"quota","frozen":0,"consume":20000},"is_using_private_pool":false},
  "detail":null,"logs":[],
  "error":{"code":0,"raw_message":"","message":"","detail":null}},
 "message":"success"}
""")
"""The answer to a submit, as https://piapi.ai/docs/flux-api/image-to-image shows it."""

COMPLETED = {
    "code": 200,
    "data": {
        "task_id": "8718d5c1-aae9-4cd5-a243-84eeb1e01117",
        "model": "Qubico/flux1-dev-advanced",
        "task_type": "kontext",
        "status": "completed",
        "config": {"service_mode": "", "webhook_config": {"endpoint": "", "secret": ""}},
        "output": {
            "image_base64": "",
            "image_url": "https://img.theapi.app/temp/10f0a646-6155-4938-bf50-76934c953e9c.png",
        },
        "meta": {
            "created_at": "2025-06-30T07:11:30.719851187Z",
            "started_at": "2025-06-30T07:11:31.891665902Z",
            "ended_at": "2025-06-30T07:12:03.388312371Z",
            "usage": {"type": "llm", "frozen": 0, "consume": 200000},
        },
        "detail": None,
        "logs": [],
        "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
    },
    "message": "success",
}
"""A completed task, as https://piapi.ai/docs/flux-api/kontext shows it."""

STALE = {
    "task_id": "58cb41b7-556d-46c0-b82e-1e116aa1a31a",
    "status": "processing\t",
    "task_info": {
        "created_at": "2024-10-23T10:35:31.039487176Z",
        "started_at": "2024-10-23T10:35:32Z",
        "completed_at": "",
        "frozen_credits": 0,
        "task_input": {"scale": 2, "image": "https://e.com/a.jpg"},
    },
    "task_result": {
        "used_credits": 0,
        "error_messages": ["the picture is hard to download"],
        "task_output": {"image_base64": "", "image_url": "https://e.com/b.png"},
    },
}
"""A task in the schema that https://piapi.ai/docs/flux-api/get-task still shows."""


def answer(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> responses.Answer:
    """An HTTP answer with these bytes, this text, or this value as JSON."""
    if isinstance(body, str):
        body = body.encode()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return responses.Answer(status=status, headers=headers or {}, body=data)


def decoded(body: object, **parts: Any) -> TaskInfo:
    """The task in an answer."""
    return responses.decode_task(answer(body, **parts), now=0.0, secrets=(KEY, SECRET))


def refused(body: object = b"", **parts: Any) -> errors.PiAPIError:
    """The error that an answer is."""
    with pytest.raises(errors.PiAPIError) as caught:
        decoded(body, **parts)
    return caught.value


def api_error(body: object = b"", **parts: Any) -> errors.APIError:
    """The refusal that an answer is."""
    error = refused(body, **parts)
    assert isinstance(error, errors.APIError)
    return error


def task(**fields: Any) -> TaskInfo:
    """A task object with these fields, decoded."""
    return responses.parse_task({"task_id": "3f2a", "status": "completed", **fields})


# Requests.


def test_a_submit_as_http() -> None:
    """A submit is a JSON POST to the task endpoint, with the key in its header alone."""
    body = _content.as_json({})
    call = requests.create_call(BASE, api_key=KEY, body=body)
    assert (call.method, call.url, call.body) == ("POST", "https://api.piapi.ai/api/v1/task", body)
    assert call.headers == {"X-API-Key": KEY, "Content-Type": "application/json"}
    assert KEY not in repr(call)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    ("task_id", "path"),
    [
        ("1631d053-2352-4add-95cc-360fc52d5f89", "1631d053-2352-4add-95cc-360fc52d5f89"),
        ("a/../b?c#d e", "a%2F..%2Fb%3Fc%23d%20e"),
        ("ä\ud800", "%C3%A4%3F"),
    ],
)
def test_a_poll_and_a_cancel_as_http(method: str, task_id: str, path: str) -> None:
    """A task's id, whatever is in it, stays one piece of the path."""
    call = requests.task_call(BASE, api_key=KEY, task_id=task_id, method=method)
    assert (call.method, call.url, call.body) == (method, f"https://api.piapi.ai/api/v1/task/{path}", None)
    assert call.headers == {"X-API-Key": KEY}
    assert requests.task_call(BASE, api_key=KEY, task_id="x").method == "GET"


@pytest.mark.parametrize(("value", "kind"), [(math.nan, ValueError), (math.inf, ValueError), (object(), TypeError)])
def test_what_json_does_not_have_is_refused(value: object, kind: type[Exception]) -> None:
    """NaN, infinities and foreign objects never leave for the server."""
    request = TaskRequest(model="m", task_type="t", input={"x": value})
    with pytest.raises(kind):
        requests.encode_body(request, task_input=request.input, webhook=None)


def test_the_input_that_is_sent_is_the_one_given_beside_the_request() -> None:
    """The body holds the prepared input, where local pictures are data URIs already, not the request's own."""
    request = Img2Img(prompt="ä", image=b"\x89PNG\r\n\x1a\n")
    body = requests.encode_body(request, task_input={"prompt": "ä"}, webhook=WebhookConfig("https://e.com", secret="s"))
    assert json.loads(b"".join(body.pieces())) == {
        "model": "Qubico/flux1-schnell",
        "task_type": "img2img",
        "input": {"prompt": "ä"},
        "config": {"webhook_config": {"endpoint": "https://e.com", "secret": "s"}},
    }


# Tasks.


def test_the_documented_answer_to_a_submit() -> None:
    """The documented create response is a healthy pending task with all its values, and nothing that is not yet."""
    info = decoded(CREATED)
    assert info == TaskInfo(
        task_id="1631d053-2352-4add-95cc-360fc52d5f89",
        model="Qubico/flux1-schnell",
        task_type="img2img",
        status=TaskStatus.PENDING,
        raw_status="pending",
        usage=Usage(type="quota", frozen=0, consume=20000),
        created_at=datetime(2024, 9, 25, 7, 40, 8, 333962, tzinfo=UTC),
    )
    assert info.raw == CREATED["data"]


def test_the_documented_completed_task() -> None:
    """The documented completed task has its picture and its three times, to the microsecond."""
    assert decoded(COMPLETED) == TaskInfo(
        task_id="8718d5c1-aae9-4cd5-a243-84eeb1e01117",
        model="Qubico/flux1-dev-advanced",
        task_type="kontext",
        status=TaskStatus.COMPLETED,
        raw_status="completed",
        images=(Image("https://img.theapi.app/temp/10f0a646-6155-4938-bf50-76934c953e9c.png"),),
        usage=Usage(type="llm", frozen=0, consume=200000),
        created_at=datetime(2025, 6, 30, 7, 11, 30, 719851, tzinfo=UTC),
        started_at=datetime(2025, 6, 30, 7, 11, 31, 891665, tzinfo=UTC),
        ended_at=datetime(2025, 6, 30, 7, 12, 3, 388312, tzinfo=UTC),
    )


def test_the_stale_schema() -> None:
    """A task in the get-task page's older schema gives its times, picture and messages all the same."""
    info = decoded({"code": 200, "data": STALE, "message": ""})
    assert info == TaskInfo(
        task_id="58cb41b7-556d-46c0-b82e-1e116aa1a31a",
        status=TaskStatus.PROCESSING,
        raw_status="processing\t",
        images=(Image("https://e.com/b.png"),),
        created_at=datetime(2024, 10, 23, 10, 35, 31, 39487, tzinfo=UTC),
        started_at=datetime(2024, 10, 23, 10, 35, 32, tzinfo=UTC),
        logs=("the picture is hard to download",),
    )
    assert info.raw == STALE


@pytest.mark.parametrize("part", ["task_info", "task_result"])
def test_today_s_fields_win_over_stale_ones(part: str) -> None:
    """Where a task has both schemas, what today's says counts, unless it says nothing; one stale part is enough."""
    stale = {"task_info": {"created_at": "2024-01-01T00:00:00Z"}, "task_result": {"task_output": {"image_url": "old"}}}
    modern = {"meta": {"created_at": "2025-01-01T00:00:00Z"}, "output": {"image_url": "new"}, "logs": []}
    info = task(**{part: stale[part]}, **modern)
    assert info.images == (Image("new"),)
    assert info.created_at == datetime(2025, 1, 1, tzinfo=UTC)
    emptied = task(**{part: stale[part]}, meta=None, output=None)
    assert bool(emptied.images) is (part == "task_result")
    assert bool(emptied.created_at) is (part == "task_info")


def test_a_stale_task_that_is_over() -> None:
    """`completed_at` is the stale schema's `ended_at`, which wins where both are."""
    assert task(meta={"completed_at": "2024-01-01T00:00:00Z", "ended_at": ""}).ended_at == datetime(
        2024, 1, 1, tzinfo=UTC
    )
    both = {"completed_at": "2024-01-01T00:00:00Z", "ended_at": "2025-01-01T00:00:00Z"}
    assert task(meta=both).ended_at == datetime(2025, 1, 1, tzinfo=UTC)


WORDS = {
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
"""Section 4.4 of the facts: every word that any page or client uses."""


@pytest.mark.parametrize("word", WORDS)
def test_status_words_in_every_spelling(word: str) -> None:
    """Case and blanks round a status word do not matter; `raw_status` keeps the word as it came."""
    for spelling in (word, word.capitalize(), word.upper(), f"{word}\t", f" {word}\r\n"):
        info = task(status=spelling)
        assert (info.status, info.raw_status) == (WORDS[word], spelling)


@pytest.mark.parametrize("word", ["", "exploded", "complete", "completed!", "not completed", "success ful"])
def test_an_unknown_status_is_not_over(word: str) -> None:
    """A word this version does not know is kept, and taken as not over."""
    info = task(status=word)
    assert (info.status, info.raw_status, info.is_terminal) == (TaskStatus.UNKNOWN, word, False)


@pytest.mark.parametrize("word", [None, 5, True, ["completed"], {}])
def test_a_status_that_is_no_word_is_unknown(word: object) -> None:
    """Something else in place of the status is unknown, too."""
    assert (task(status=word).status, task(status=word).raw_status) == (TaskStatus.UNKNOWN, "")


@pytest.mark.parametrize("digits", range(10))
def test_times_with_zero_to_nine_digits(digits: int) -> None:
    """A time may have any number of fractional digits; what is beyond the microsecond is dropped."""
    fraction = "123456789"[:digits]
    text = f"2025-05-19T12:14:12{'.' if digits else ''}{fraction}Z"
    micro = int(fraction[:6].ljust(6, "0"))
    assert responses.parse_time(text) == datetime(2025, 5, 19, 12, 14, 12, micro, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-05-19T12:14:12+08:00", datetime(2025, 5, 19, 4, 14, 12, tzinfo=UTC)),
        (" 2025-05-19T12:14:12Z\n", datetime(2025, 5, 19, 12, 14, 12, tzinfo=UTC)),
        ("2025-05-19T12:14:12", datetime(2025, 5, 19, 12, 14, 12, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00.000000000Z", None),
        ("", None),
        ("   ", None),
        ("soon", None),
        ("2025-13-01T00:00:00Z", None),
        ("2025-05-19T25:00:00Z", None),
        ("9999-12-31T23:59:59-23:59", None),
        (1747656852, None),
        (None, None),
        ({}, None),
    ],
)
def test_times(text: object, expected: datetime | None) -> None:
    """Times are UTC; the zero time, an empty text, and nonsense are "not yet"."""
    found = responses.parse_time(text)
    assert found == expected
    assert found is None or found.utcoffset() == UTC.utcoffset(None)


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        (None, []),
        ({}, []),
        ("https://e.com/a.png", []),
        ({"image_url": "", "image_base64": ""}, []),
        ({"image_url": None, "image_urls": None}, []),
        ({"image_url": "https://e.com/a"}, ["https://e.com/a"]),
        ({"image_url": " https://e.com/a\n"}, ["https://e.com/a"]),
        ({"image_url": "https://e.com/a", "image_urls": None}, ["https://e.com/a"]),
        ({"image_urls": ["https://e.com/a", "https://e.com/b"]}, ["https://e.com/a", "https://e.com/b"]),
        ({"image_url": "https://e.com/b", "image_urls": ["https://e.com/a", "https://e.com/b"]}, ["https://e.com/b", "https://e.com/a"]),
        ({"image_url": 5, "image_urls": ["", None, 5, {}, "https://e.com/a", "https://e.com/a"]}, ["https://e.com/a"]),
        ({"image_urls": "https://e.com/a"}, []),
        ({"image_base64": "iVBORw0K"}, ["data:image/png;base64,iVBORw0K"]),
        ({"image_base64": " data:image/webp;base64,AAAA "}, ["data:image/webp;base64,AAAA"]),
        ({"image_base64": " \n"}, []),
        ({"image_url": "https://e.com/a", "image_base64": "iVBORw0K"}, ["https://e.com/a"]),
    ],
)  # fmt: skip
def test_where_pictures_are_found(output: object, urls: list[str]) -> None:
    """Pictures come from both URL fields, in order and once each; the base64 one stands in when there is no URL."""
    assert [image.url for image in task(output=output).images] == urls


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ("15000", None),
        ({"type": "llm", "frozen": 1, "consume": 2}, Usage(type="llm", frozen=1, consume=2)),
        ({"type": None, "frozen": 1.9, "consume": 2e5}, Usage(frozen=1, consume=200000)),
        ({"frozen": math.nan, "consume": 5}, Usage(consume=5)),
        ({"consume": "15000"}, Usage(consume=15000)),
        ({"consume": 0}, Usage()),
        ({"consume": 10**400}, Usage(consume=10**15)),
        ({"consume": 1e300}, Usage(consume=10**15)),
        ({"consume": "9" * 5000}, Usage(consume=10**15)),
        ({"frozen": 15, "consume": None}, None),
        ({"frozen": 15, "consume": math.nan}, None),
        ({"frozen": 15, "consume": math.inf}, None),
        ({"frozen": 15, "consume": -5}, None),
        ({"frozen": 15, "consume": True}, None),
        ({"frozen": 15, "consume": "-5"}, None),
        ({"frozen": 15, "consume": "¹5"}, None),
        ({"frozen": 15, "consume": [15000]}, None),
    ],
)
def test_what_a_task_costs(usage: object, expected: Usage | None) -> None:
    """Where what is charged is missing, or cannot be read, there is no `usage`: unknown is not 0."""
    assert task(meta={"usage": usage}).usage == expected
    assert task(meta={}).usage is None
    assert task(meta="none").usage is None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (None, None),
        ({}, None),
        ({"code": 0, "raw_message": "", "message": "", "detail": None}, None),
        ({"code": 0, "message": " ", "raw_message": "\n"}, None),
        ({"code": 10000, "message": ""}, TaskFault(code=10000)),
        ({"code": 0, "message": "m", "raw_message": "r"}, TaskFault(message="m", raw_message="r")),
        ({"code": 0, "raw_message": "r", "detail": [1]}, TaskFault(raw_message="r", detail=[1])),
        ({"code": "x", "message": 5}, None),
        ("it broke", TaskFault(message="it broke")),
        ("", None),
        ([1], None),
    ],
)
def test_what_went_wrong_with_a_task(fault: object, expected: TaskFault | None) -> None:
    """An error object with code 0 and no words is a healthy task's; a plain text is a message."""
    assert task(error=fault).error == expected


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        (None, ()),
        ([], ()),
        (["a", "b"], ("a", "b")),
        ([{"level": "error"}, 5, None], ('{"level": "error"}', "5", "null")),
        ("one text", ("one text",)),
        ({"a": 1}, ('{"a": 1}',)),
    ],
)
def test_log_lines(logs: object, expected: tuple[str, ...]) -> None:
    """Logs become lines, whatever their elements are."""
    assert task(logs=logs).logs == expected


def test_a_failure_whose_reason_is_only_in_the_logs() -> None:
    """A failed task with an empty error still has its reason: the last line of its logs."""
    data = {"task_id": "3f2a", "status": "Failed", "logs": ["started", "NSFW content"], "error": {"code": 0}}
    info = decoded({"code": 200, "data": data})
    assert (info.status, info.reason) == (TaskStatus.FAILED, "NSFW content")


@pytest.mark.parametrize(
    "body",
    [
        CREATED["data"],
        {"data": CREATED["data"]},
        {"code": 0, "data": CREATED["data"]},
        {"code": "200", "data": CREATED["data"]},
        {"code": None, "data": CREATED["data"]},
        {"code": True, "data": CREATED["data"]},
        {"code": 500, "data": CREATED["data"]},
        {**CREATED, "error": "but something else"},
    ],
)
@pytest.mark.parametrize("status", [200, 201, 302, 400, 429, 500])
def test_an_answer_that_carries_a_task_is_a_task(body: object, status: int) -> None:
    """A task with its status word is never lost: not without envelope, not over an error code, not over a status."""
    assert decoded(body, status=status).task_id == CREATED["data"]["task_id"]


@pytest.mark.parametrize("length", range(len(b'{"data":{"task_id":123456')))
def test_a_number_that_is_cut_off_is_not_an_id(length: int) -> None:
    """An id whose digits may go further is not a task's: an answer cut anywhere in it leaves the submit in doubt."""
    lost = errors.ConnectionLostError("lost")
    given_answer = responses.Answer(status=200, headers={}, body=b'{"data":{"task_id":123456'[: length + 1], cut=lost)
    with pytest.raises(errors.ConnectionLostError):
        responses.decode_submit(given_answer, now=0)


def test_a_number_that_ends_is_an_id() -> None:
    """What follows the digits shows that they are all of it, also where the answer is cut just after."""
    given_answer = responses.Answer(status=200, headers={}, body=b'{"data":{"task_id":123456,')
    assert responses.decode_submit(given_answer, now=0).task_id == "123456"


def test_a_refusal_with_an_id_but_no_status_is_a_refusal() -> None:
    """An error that only names a task is an error; a success that only names one is a task of unknown status."""
    named = {"code": 400, "data": {"task_id": "3f2a", "status": ""}, "message": "bad"}
    assert isinstance(refused(named), errors.InvalidRequestError)
    assert isinstance(refused({"task_id": "3f2a"}, status=500), errors.ServerError)
    assert decoded({"code": 200, "data": {"task_id": "3f2a"}}).status is TaskStatus.UNKNOWN


@pytest.mark.parametrize("task_id", ["", "  ", None, True, -5, 5.0, 10**18, []])
def test_a_task_without_an_id_is_no_task(task_id: object) -> None:
    """An answer whose task has no id cannot be used, so a submit answered so is in doubt."""
    body = {"code": 200, "data": {"task_id": task_id, "status": "pending"}}
    assert type(refused(body)) is errors.UnexpectedResponseError


@pytest.mark.parametrize("task_id", [0, 5, 10**18 - 1])
def test_a_task_id_may_be_a_number(task_id: int) -> None:
    """A whole number is a name too, kept as text: a task that was paid for is not lost over it."""
    assert decoded({"code": 200, "data": {"task_id": task_id, "status": "pending"}}).task_id == str(task_id)


# Errors.


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequestError),
        (401, errors.AuthenticationError),
        (402, errors.InsufficientCreditsError),
        (403, errors.AuthenticationError),
        (404, errors.NotFoundError),
        (405, errors.APIError),
        (408, errors.RequestTimeoutError),
        (409, errors.APIError),
        (413, errors.InvalidRequestError),
        (422, errors.InvalidRequestError),
        (429, errors.RateLimitError),
        (499, errors.RequestTimeoutError),
        (500, errors.ServerError),
        (502, errors.ServerError),
        (503, errors.ServerError),
        (504, errors.ServerError),
        (522, errors.ServerError),
        (599, errors.ServerError),
    ],
)
def test_the_error_of_each_status(status: int, kind: type[errors.PiAPIError]) -> None:
    """A status has the same error as an HTTP status and as a `code` inside a 200, and says its number."""
    for error in (refused(status=status), refused({"code": status}), refused({"code": str(status)})):
        assert type(error) is kind
        assert str(error).startswith(f"PiAPI answered {status}: ")
    whole = refused({"code": status, "data": None, "message": "words"}, status=status, headers={"x": "y"})
    assert "words" in str(whole)
    if isinstance(whole, errors.APIError):
        assert (whole.status, whole.code, whole.message, whole.headers) == (status, status, "words", {"x": "y"})
        assert json.loads(whole.body)["message"] == "words"


def test_the_http_status_wins_over_the_code() -> None:
    """When both are errors, the kind follows the HTTP status, and `code` keeps the envelope's."""
    error = api_error({"code": 10000, "message": "words"}, status=404)
    assert type(error) is errors.NotFoundError
    assert (error.status, error.code) == (404, 10000)


@pytest.mark.parametrize(
    ("body", "is_enveloped"),
    [
        ({"code": 404, "message": "task not found"}, True),
        ({"code": "404", "data": None, "message": "task not found"}, True),
        ({"message": "failed to create task", "data": {"task_id": ""}}, True),
        ({"error": "Unauthorized"}, True),
        ({"description": "Unauthorized"}, True),
        ({"message": "no Route matched with those values"}, False),
        ({"error": {"message": "x"}}, False),
        ({"error": " ", "description": ""}, False),
        ({"detail": "Not Found"}, False),
        ({"type": "about:blank", "title": "Forbidden", "status": 403}, False),
        ("404 page not found", False),
        ("<html>404</html>", False),
        ("[]", False),
        ("404", False),
        ("", False),
    ],
)
def test_whose_word_an_error_is(body: object, *, is_enveloped: bool) -> None:
    """An error has the form of PiAPI's own, or is perhaps the word of something in between, and tells which."""
    for status in (401, 404, 409, 429, 500):
        assert api_error(body, status=status).is_enveloped is is_enveloped


@pytest.mark.parametrize("code", [500, 504, 600, 1100, 10000, 10001])
def test_codes_of_500_and_more_inside_a_success(code: int) -> None:
    """A code of 500 or more leaves open whether there is a task, as the same HTTP status would."""
    error = api_error({"code": code, "message": "task failed"})
    assert type(error) is errors.ServerError
    assert (error.status, error.code, error.safe_to_resubmit) == (200, code, False)


@pytest.mark.parametrize("code", [-1, 0, 1, 200, 201, 302, 399])
def test_codes_below_400_refuse_nothing(code: int) -> None:
    """A code below 400 is no refusal, so an answer with it and without a task leaves a submit in doubt."""
    error = refused({"code": code, "message": "words"})
    assert type(error) is errors.UnexpectedResponseError
    assert error.safe_to_resubmit is False


@pytest.mark.parametrize(("status", "kind"), [(429, errors.RateLimitError), (503, errors.ServerError)])
def test_the_pause_a_server_asks_for_is_told(status: int, kind: type[errors.APIError]) -> None:
    """`Retry-After` is part of the message, and nothing is where the server did not ask."""
    error = refused({"message": "busy"}, status=status, headers={"retry-after": "12"})
    assert type(error) is kind
    assert str(error) == f"PiAPI answered {status}: busy; it asks to wait 12 s"
    assert str(refused({"message": "busy"}, status=status)) == f"PiAPI answered {status}: busy"


def test_an_answer_shows_neither_headers_nor_body() -> None:
    """What a server sent may hold secrets, so the `repr` of an answer, as in a traceback's locals, is its status."""
    assert repr(answer("hush", headers={"x": "hush"})) == "Answer(status=200)"


@pytest.mark.parametrize(("secret", "message"), [("k", "bad key k"), ("key", "bad key k"), ("bad key", "*** k")])
def test_secrets_too_short_to_be_one_stay(secret: str, message: str) -> None:
    """Fewer than four characters are part of too many words; they are not taken out of messages."""
    with pytest.raises(errors.APIError) as caught:
        responses.decode_task(answer({"code": 400, "message": "bad key k"}), now=0.0, secrets=(secret, ""))
    assert caught.value.message == message


@pytest.mark.parametrize("code", ["x", "4O4", "⁴", 2.5, True, [], "9" * 5000, None])
def test_a_code_that_is_no_number_is_ignored(code: object) -> None:
    """Nonsense in place of the code makes an answer unreadable, not an error of that number."""
    assert type(refused({"code": code, "message": "x"})) is errors.UnexpectedResponseError


@pytest.mark.parametrize("status", [200, 400, 402, 500])
@pytest.mark.parametrize(
    "words",
    ["failed to freeze credit", "Failed To Freeze point", "oops: failed to freeze", "Insufficient balance"],
)
def test_lack_of_credits_in_words(status: int, words: str) -> None:
    """These words mean the balance, whatever status comes with them, and the error says what to do."""
    error = api_error({"code": 400, "message": words}, status=status)
    assert type(error) is errors.InsufficientCreditsError
    assert error.hint is errors.Hint.CHECK_BALANCE
    assert error.safe_to_resubmit


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "m", "error": "e", "description": "d"}, "m: e: d"),
        ({"error": "Unauthorized, no key"}, "Unauthorized, no key"),
        ({"description": "Unauthorized"}, "Unauthorized"),
        ({"message": " ", "error": {"message": "here, too"}, "description": "d"}, "here, too: d"),
        ({"message": "m", "data": {"error": {"message": "why", "raw_message": "why it was"}}}, "m: why: why it was"),
        ({"message": "m", "data": {"error": {"message": "m"}, "logs": ["first", "last"]}}, "m: first: last"),
        ({"message": "m", "data": {"logs": [{"level": "error", "message": "of an object"}]}}, "m: of an object"),
        ({"message": "success", "data": {"error": "text"}}, "text"),
        ({"message": "x" * 9999, "data": {"error": {"message": "the cause"}}}, "x" * 199 + "…: the cause"),
        ({"message": None, "data": {"error": {"message": "inside"}}}, "inside"),
        ({"data": {"error": "text"}, "error": "outer"}, "outer: text"),
        ({"message": "two\n  lines\t"}, "two lines"),
        ("404 page not found", "404 page not found"),
        ("<html>\n<h1>522</h1>\n</html>", "<html> <h1>522</h1> </html>"),
        ([1, 2], "[1, 2]"),
        ({"code": 5}, '{"code": 5}'),
        ("", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)  # fmt: skip
def test_where_the_server_s_words_are_found(body: object, message: str) -> None:
    """The words come from all known places, else they are the body itself, always as one bounded line."""
    error = api_error(body, status=401)
    assert error.message == message
    hint = "; check the API key (PIAPI_API_KEY) and what its plan allows"
    assert str(error) == f"PiAPI answered 401: {message or 'no reason given'}{hint}"
    assert error.hint is errors.Hint.CHECK_KEY


def test_long_answers_are_shortened() -> None:
    """A megabyte of HTML leaves a line of 200 characters in the message and 500 in the body."""
    error = api_error(b"x" * 1_000_000, status=400)
    assert error.message == "x" * 199 + "…"
    assert error.body == "x" * 500
    assert api_error(b"x" * 200, status=400).message == "x" * 200


@pytest.mark.parametrize("status", [100, 200, 204])
@pytest.mark.parametrize(
    "body", [b"", b"<html>hello", b"null", b"[]", b'{"code":200,"data":null}', b'"text"', b"\xff", b"NaN"]
)
def test_what_is_neither_task_nor_error_is_unexpected(status: int, body: bytes) -> None:
    """A success without a task is unreadable: the error keeps status and body, and is never safe."""
    error = refused(body, status=status)
    assert type(error) is errors.UnexpectedResponseError
    assert error.status == status
    assert error.body == body.decode(errors="replace")
    assert str(error) == f"PiAPI answered {status} with something that is not a task: {error.body or 'nothing'}"
    assert not error.safe_to_resubmit


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_a_redirect_is_a_refusal_that_names_its_target(status: int) -> None:
    """A redirect is not followed and was not accepted: the error says where to, without the query, and what to set."""
    for target, told in ((f"https://api.example/?k={KEY}", "https://api.example/"), ("", "nowhere")):
        error = api_error(b"", status=status, headers={"location": target})
        assert (type(error), error.status) == (errors.APIError, status)
        assert re.search(f"{status}.* to {told},", str(error))
        assert (error.safe_to_resubmit, error.hint) == (True, errors.Hint.CHECK_BASE_URL)


def test_a_408_is_a_time_out() -> None:
    """408 means what a time-out of our own means, with or without words."""
    assert str(refused(status=408)) == "PiAPI answered 408: no reason given"
    assert str(refused({"error": "slow"}, status=408)) == "PiAPI answered 408: slow"


def test_check_wants_no_task() -> None:
    """`check` is content with an answer without a task, such as a cancel's, and raises for a refusal."""
    responses.check(answer({"code": 200, "message": "task 3f2a canceled"}), now=0.0)
    for body in (b"", b"<html>", {"code": 0}, {"code": "200"}, {"code": None}):
        responses.check(answer(body), now=0.0)
    with pytest.raises(errors.NotFoundError):
        responses.check(answer("404 page not found", status=404), now=0.0)
    with pytest.raises(errors.InvalidRequestError):
        responses.check(answer({"code": 400, "message": "too late"}), now=0.0)


@pytest.mark.parametrize(
    "body",
    [
        {"message": f"bad key {KEY} and {SECRET}"},
        {"error": f"{KEY}{KEY}{SECRET}{SECRET}"},
        {"code": 400, "data": {"config": {"webhook_config": {"secret": SECRET}}}},
        {"code": 400, "data": {"config": {"webhook_config": {"secret": "of-another-submit"}}}},
        f"plain {KEY} text {SECRET}",
        f'{{"secret" :  "{KEY}',
        '"secret": "of-another-submit',
        [KEY, {"secret": 'a \\" of-another-submit'}],
    ],
)
@pytest.mark.parametrize("status", [200, 302, 400, 408, 500])
def test_secrets_do_not_show_in_errors(body: object, status: int) -> None:
    """Neither the key nor a webhook secret, known or merely labelled so, is in an error's message or body."""
    error = refused(body, status=status)
    shown = f"{error} {error!r} {getattr(error, 'body', '')} {getattr(error, 'message', '')}"
    for piece in (KEY, KEY[:12], "hush", "another-submit"):
        assert piece not in shown


def test_a_secret_inside_another_uncovers_nothing() -> None:
    """A webhook secret that holds the key is hidden whole, in whatever order the two are given."""
    long = f"{KEY}-and-more"
    for secrets in ((KEY, long), (long, KEY)):
        with pytest.raises(errors.InvalidRequestError, match=r"^PiAPI answered 400: bad \*\*\* here$") as caught:
            responses.decode_task(answer(f"bad {long} here", status=400), now=0.0, secrets=secrets)
        assert caught.value.body == "bad *** here"


def test_an_empty_secret_hides_nothing() -> None:
    """A webhook without a secret does not turn the whole message into stars."""
    with pytest.raises(errors.InvalidRequestError, match="plain words"):
        responses.decode_task(answer("plain words", status=400), now=0.0, secrets=("", KEY))


# Retry-After.


@pytest.fixture(params=["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The machine's time zone, which must not matter."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


NOW = datetime(2015, 10, 21, 7, 28, tzinfo=UTC).timestamp()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    ("value", "date", "expected"),
    [
        ("12", None, 12.0),
        (" 1.5 ", None, 1.5),
        ("0", None, 0.0),
        ("-5", None, 0.0),
        ("3600", None, 3600.0),
        ("3601", None, 3600.0),
        ("1e999", None, 3600.0),
        ("9" * 400, None, 3600.0),
        ("nan", None, None),
        ("", None, None),
        ("soon", None, None),
        ("Wed, 21 Oct 2015 07:28:30 GMT", None, 30.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", None, 30.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", None, 30.0),
        ("Wed Oct 21 07:28:30 2015", None, 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", None, 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None, 3600.0),
        ("Wed, 99 Oct 2015 07:28:30 GMT", None, None),
        ("Wed, 21 Oct 2015 12:00:30 GMT", "Wed, 21 Oct 2015 12:00:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 01:00:30 GMT", "Wed, 21 Oct 2015 01:00:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "garbage", 30.0),
        ("12", "Wed, 21 Oct 2015 01:00:00 GMT", 12.0),
    ],
)  # fmt: skip
def test_retry_after(value: str, date: str | None, expected: float | None) -> None:
    """A pause is seconds or a date in any of HTTP's forms, 0 to 3600, counted from the server's own clock if given."""
    headers = {"retry-after": value} | ({} if date is None else {"date": date})
    assert responses.parse_retry_after(headers, now=NOW) == expected


def test_no_retry_after() -> None:
    """Without the header there is no pause to obey."""
    assert responses.parse_retry_after({}, now=NOW) is None


@pytest.mark.parametrize(("status", "kind"), [(429, errors.RateLimitError), (503, errors.ServerError)])
def test_retry_after_reaches_the_errors_that_have_it(status: int, kind: type[errors.PiAPIError]) -> None:
    """429 and 5xx carry the pause, as an HTTP status and as a code inside a 200; a date counts from `now`."""
    for answered in ({"status": status}, {"body": {"code": status}}):
        error = refused(**{"body": b"", "headers": {"retry-after": "7"}, **answered})
        assert isinstance(error, kind)
        assert getattr(error, "retry_after", None) == 7.0
    with pytest.raises(kind) as caught:
        responses.decode_task(
            answer(b"", status=status, headers={"retry-after": "Wed, 21 Oct 2015 07:28:09 GMT"}), now=NOW
        )
    assert getattr(caught.value, "retry_after", None) == 9.0


# Anything at all.


def outcome(given_answer: responses.Answer) -> TaskInfo | errors.PiAPIError:
    """What becomes of an answer: a task, or one of our errors; anything else is raised."""
    try:
        return responses.decode_task(given_answer, now=NOW, secrets=(KEY, SECRET))
    except errors.PiAPIError as error:
        return error


def survives(given_answer: responses.Answer) -> None:
    """The answer gives a whole `TaskInfo` or one of our errors, each fit to be shown, and nothing else."""
    found = outcome(given_answer)
    if isinstance(found, errors.PiAPIError):
        assert KEY not in str(found)
        assert len(str(found).splitlines()) == 1
        assert 0 <= (getattr(found, "retry_after", None) or 0.0) <= 3600
    else:
        assert found.task_id.strip()
        assert len(repr(found).splitlines()) == 1
        assert {type(value) for value in (found.is_terminal, found.has_output)} == {bool}
        assert isinstance(found.reason, str)
        assert {found: "a key"}


@given(answers(st.binary(max_size=200)))
@example(answer(b"[" * 100_000))
@example(answer(b'{"task_id":"x","logs":' + b"[" * 980 + b"]" * 980 + b"}"))
@example(answer(b'{"task_id":"x","logs":' + b'{"a":' * 985 + b"1" + b"}" * 985 + b"}"))
@example(answer(b'{"task_id":"\\ud800","status":"completed"}'))
@example(answer(b'{"code":' + b"9" * 5000 + b"}"))
@example(answer(b'{"code":200,"data":{"task_id":"x","meta":{"usage":{"consume":1e400,"frozen":-1e308}}}}'))
def test_any_bytes_give_a_task_or_an_error_of_ours(given_answer: responses.Answer) -> None:
    """Whatever bytes, status and headers a server sends, the outcome is a `TaskInfo` or a `PiAPIError`."""
    survives(given_answer)


@pytest.mark.parametrize("nest", [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("place", ["logs", "error", "output", "anything"])
def test_no_depth_of_nesting_gives_anything_else(nest: tuple[bytes, bytes], place: str) -> None:
    """JSON so deep that it can be read but not kept, or just about, gives a task or an error of ours at every depth."""
    left, right = nest
    for depth in range(700, 1010):
        body = b'{"task_id":"x","%s":%s}' % (place.encode(), left * depth + b"1" + right * depth)
        survives(answer(body))


@settings(max_examples=300)
@given(answers(PAYLOADS.map(json.dumps).map(str.encode)))
def test_any_json_gives_a_task_or_an_error_of_ours(given_answer: responses.Answer) -> None:
    """JSON shaped like tasks and envelopes, with wrong types everywhere, gives a `TaskInfo` or a `PiAPIError`."""
    survives(given_answer)


@given(TASKS.filter(lambda shaped: isinstance(shaped.get("task_id"), str) and shaped["task_id"].strip()))
def test_a_task_object_keeps_its_words(shaped: dict[str, Any]) -> None:
    """Any object with an id is a task whose texts are the object's own."""
    info = responses.parse_task(shaped)
    assert info.task_id == shaped["task_id"]
    word = shaped.get("status")
    assert info.raw_status == (word if isinstance(word, str) else "")
    assert len(set(info.images)) == len(info.images)


@pytest.mark.parametrize("body", [b'{"n": ' + b"9" * 5000 + b"}", b"[" * 100_000])
def test_an_answer_that_no_reader_bears_is_in_doubt(body: bytes) -> None:
    """A number or a depth beyond Python's limits gives no task, and no error but ours."""
    with pytest.raises(errors.UnexpectedResponseError):
        responses.decode_submit(responses.Answer(status=200, headers={}, body=body), now=0.0)
