"""The error tree: its shape, its attributes, and what each error says about paying twice."""

import copy
import inspect
import pickle
import re
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from piapi_async import Img2Img, TaskInfo, TaskStatus, errors
from piapi_async._client.responses import Answer, decode_task
from piapi_async.retry import RETRY_SUBMIT, may_poll_again, may_submit_again

TREE = {
    "ConfigurationError": ("PiAPIError", "ValueError"),
    "TransportError": ("PiAPIError", None),
    "ConnectError": ("TransportError", "ConnectionError"),
    "ConnectionLostError": ("TransportError", "ConnectionError"),
    "RequestTimeoutError": ("TransportError", "TimeoutError"),
    "APIError": ("PiAPIError", None),
    "InvalidRequestError": ("APIError", None),
    "AuthenticationError": ("APIError", None),
    "InsufficientCreditsError": ("APIError", None),
    "NotFoundError": ("APIError", None),
    "RateLimitError": ("APIError", None),
    "ServerError": ("APIError", None),
    "UnexpectedResponseError": ("PiAPIError", None),
    "TaskError": ("PiAPIError", None),
    "TaskFailedError": ("TaskError", None),
    "TaskCanceledError": ("TaskError", None),
    "NoOutputError": ("TaskError", None),
    "WaitTimeoutError": ("TaskError", "TimeoutError"),
    "SubmissionInDoubtError": ("PiAPIError", None),
    "SpendLimitError": ("PiAPIError", None),
    "BatchStoppedError": ("PiAPIError", None),
    "OutputError": ("PiAPIError", None),
    "WebhookError": ("PiAPIError", None),
    "WebhookSecretError": ("WebhookError", None),
    "WebhookPayloadError": ("WebhookError", None),
    "LedgerError": ("PiAPIError", None),
    "LedgerConflictError": ("LedgerError", None),
}
"""Section 5 of the design: each error with its parent and the built-in it also is."""

SAFE = {
    "BatchStoppedError",
    "ConfigurationError",
    "ConnectError",
    "APIError",
    "InvalidRequestError",
    "AuthenticationError",
    "InsufficientCreditsError",
    "NotFoundError",
    "RateLimitError",
    "SpendLimitError",
}
"""Errors after which submitting again cannot pay twice, whatever they carry."""

INFO = TaskInfo(task_id="3f2a", status=TaskStatus.FAILED, raw_status="failed", raw={"status": "failed"})
REQUEST = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
REFUSAL: dict[str, object] = {
    "status": 429,
    "code": 430,
    "message": "words",
    "body": "body",
    "headers": {"date": "today"},
    "is_enveloped": True,
}
TASK: dict[str, object] = {"info": INFO}
EXTRAS: dict[str, dict[str, object]] = {
    **dict.fromkeys([name for name, (parent, _) in TREE.items() if "APIError" in (name, parent)], REFUSAL),
    **dict.fromkeys([name for name, (parent, _) in TREE.items() if "TaskError" in (name, parent)], TASK),
    "RateLimitError": {**REFUSAL, "retry_after": 12.5},
    "ServerError": {**REFUSAL, "retry_after": 12.5},
    "RequestTimeoutError": {"status": 408},
    "UnexpectedResponseError": {"status": 200, "body": "<html>"},
    "SubmissionInDoubtError": {"key": "job-1", "request": REQUEST, "since": 1.5, "why": "it was lost"},
    "OutputError": {"url": "https://example.com/a.png"},
}
"""What each error takes besides its message, for those that take anything."""


def error_classes() -> dict[str, type[errors.PiAPIError]]:
    """The exception classes that the module defines."""
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.PiAPIError)
    }


def example(name: str) -> errors.PiAPIError:
    """An error of that class with everything set that it takes."""
    kind: type[errors.PiAPIError] = getattr(errors, name)
    return kind("the fact, the number, then what to do", **EXTRAS.get(name, {}))


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """The tree that the module's docstring draws: each name with its parent and its built-in."""
    drawing = re.findall(r"```text\n(.*?)```", errors.__doc__ or "", flags=re.DOTALL)[0]
    path: list[str] = []
    found: dict[str, tuple[str | None, str | None]] = {}
    for line in drawing.splitlines():
        match = re.match(r"(?P<branches>[│├└─ ]*)(?P<name>\w+)(\((?P<builtin>\w+)\))?", line)
        assert match is not None, line
        depth = len(match["branches"]) // 4
        path[depth:] = [match["name"]]
        found[match["name"]] = (path[depth - 1] if depth else None, match["builtin"])
    return found


def test_the_module_defines_exactly_the_tree_of_the_design() -> None:
    """The module's classes and `__all__` are the tree of the design, no more and no less but two values."""
    assert set(error_classes()) == {"PiAPIError", *TREE}
    assert sorted(errors.__all__) == sorted({*error_classes(), "Hint", "ORIGIN_NOT_REACHED"})


@pytest.mark.parametrize("name", TREE)
def test_each_error_has_its_parent_and_its_builtin(name: str) -> None:
    """Every error has exactly the bases that the design gives it."""
    parent, builtin = TREE[name]
    expected = [parent] if builtin is None else [parent, builtin]
    assert [base.__name__ for base in getattr(errors, name).__bases__] == expected


def test_the_root_is_a_plain_exception() -> None:
    """The one root is an `Exception` and nothing else, and is unsafe to resubmit unless a class says otherwise."""
    assert errors.PiAPIError.__bases__ == (Exception,)
    assert errors.PiAPIError("x").safe_to_resubmit is False


def test_the_docstring_draws_the_classes() -> None:
    """The tree drawn in the module's docstring is the tree of the classes."""
    assert drawn_tree() == {"PiAPIError": (None, None), **TREE}


def test_every_error_has_a_docstring_of_its_own() -> None:
    """Each class says in its own words what it means."""
    texts = [kind.__doc__ for kind in error_classes().values()]
    assert all(texts)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", ["PiAPIError", *TREE])
def test_each_error_says_whether_resubmitting_is_safe(name: str) -> None:
    """`safe_to_resubmit` is `True` exactly for the classes after which no task can exist."""
    assert getattr(errors, name)("x").safe_to_resubmit is (name in SAFE)
    assert example(name).safe_to_resubmit is (name in SAFE)


GENERAL = [
    "PiAPIError",
    *[name for name, (_, builtin) in TREE.items() if name not in EXTRAS and builtin is None],
    *[name for name in EXTRAS if name not in ("OutputError", *[n for n in EXTRAS if EXTRAS[n] is TASK])],
    "ConnectError",
]
"""Errors that are told what holds for all errors; the others are always made in the same way."""


@pytest.mark.parametrize("name", GENERAL)
def test_what_holds_for_an_error_is_said_where_it_is_made(name: str) -> None:
    """Safety, task and hint are given to the constructor; they survive pickling, and the class stays as it is."""
    kind: type[errors.PiAPIError] = getattr(errors, name)
    safe = not kind.safe_to_resubmit
    error = kind("x", safe_to_resubmit=safe, task_id="t-1", hint=errors.Hint.CHECK_KEY, **EXTRAS.get(name, {}))
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert (one.safe_to_resubmit, one.task_id, one.hint) == (safe, "t-1", errors.Hint.CHECK_KEY)
    assert (kind.safe_to_resubmit, kind.task_id, kind.hint) == (not safe, None, None)


@pytest.mark.parametrize("hint", errors.Hint)
def test_an_error_says_the_fact_and_then_what_to_do(hint: errors.Hint) -> None:
    """The advice follows the fact in `str`; the fact alone is the only argument, for surfaces with other words."""
    error = errors.ConnectError("the fact", hint=hint)
    assert error.args == ("the fact",)
    assert re.fullmatch(r"the fact; [a-z].+[^.]", str(error))
    assert str(errors.ConnectError("the fact")) == "the fact"


@pytest.mark.parametrize("name", ["PiAPIError", *TREE])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_each_error_survives_pickling_with_all_it_carries(name: str, protocol: int) -> None:
    """Type, message, notes and every attribute come back from a pickle of any protocol."""
    error = example(name)
    error.add_note("a note")
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
    assert twin.safe_to_resubmit is error.safe_to_resubmit


@pytest.mark.parametrize("name", EXTRAS)
def test_each_error_keeps_what_it_was_given(name: str) -> None:
    """Every keyword of an error's constructor is an attribute with that value."""
    error = example(name)
    assert {field: getattr(error, field) for field in EXTRAS[name]} == EXTRAS[name]


@pytest.mark.parametrize("name", ["PiAPIError", *TREE])
def test_each_error_takes_one_positional_message(name: str) -> None:
    """All extras have defaults, so that every error can be made from its message alone."""
    error = getattr(errors, name)("only the message")
    assert str(error) == "only the message"
    assert copy.copy(error).args == ("only the message",)


def test_the_defaults_of_the_extras_say_nothing() -> None:
    """What was not given is empty, zero or `None`."""
    refusal = errors.APIError("x")
    assert vars(refusal) == {"status": 0, "code": None, "message": "", "body": "", "headers": {}, "is_enveloped": False}
    assert vars(errors.RateLimitError("x")) == {**vars(refusal), "retry_after": None}
    assert vars(errors.UnexpectedResponseError("x")) == {"status": 0, "body": ""}
    assert vars(errors.RequestTimeoutError("x")) == {"status": 0}
    assert vars(errors.WaitTimeoutError("x")) == {"info": None, "task_id": None, "handle": None}
    assert vars(errors.SubmissionInDoubtError("x")) == {"key": None, "request": None, "since": 0.0, "why": ""}
    assert vars(errors.OutputError("x")) == {"url": ""}


@pytest.mark.parametrize("name", ["PiAPIError", *TREE])
def test_an_error_is_about_no_task_unless_it_has_one(name: str) -> None:
    """`task_id` is `None` on every error made from words alone, and the task's where the error carries one."""
    assert getattr(errors, name).task_id is None
    assert getattr(errors, name)("x").task_id is None
    assert example(name).task_id == (INFO.task_id if EXTRAS.get(name) is TASK else None)


def test_a_wait_timeout_names_the_task_of_its_handle() -> None:
    """The handle knows the task also when no poll of it ever succeeded."""
    handle: Any = SimpleNamespace(task_id="t-1")
    assert errors.WaitTimeoutError("x", handle=handle).task_id == "t-1"


def test_headers_of_an_error_are_a_copy() -> None:
    """An error's headers do not change when the mapping they came from does."""
    headers = {"date": "today"}
    error = errors.APIError("x", headers=headers)
    headers.clear()
    assert error.headers == {"date": "today"}


def test_a_wait_timeout_leaves_its_handle_behind() -> None:
    """The handle, which cannot leave the process, is dropped by pickling; the rest stays, here and there."""
    handle: Any = SimpleNamespace(task_id="3f2a", lock=threading.Lock())
    error = errors.WaitTimeoutError("still pending", info=INFO, handle=handle)
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.info, twin.handle, twin.task_id) == ("still pending", INFO, None, "3f2a")
    assert error.handle is handle


def answered(status: int, body: bytes = b"") -> errors.PiAPIError:
    """The error that an answer is."""
    with pytest.raises(errors.PiAPIError) as caught:
        decode_task(Answer(status=status, headers={}, body=body), now=0.0)
    return caught.value


@pytest.mark.parametrize(
    ("error", "safe", "submit", "poll"),
    [
        pytest.param(errors.ConnectError("x"), True, True, True, id="nothing was sent"),
        *[
            pytest.param(error, False, False, True, id=type(error).__name__)
            for error in (errors.ConnectionLostError("x"), errors.RequestTimeoutError("x"), errors.TransportError("x"))
        ],
        pytest.param(answered(429), True, True, True, id="429"),
        pytest.param(answered(200, b'{"code":429}'), True, True, True, id="429 inside 200"),
        *[
            pytest.param(answered(status), False, False, True, id=str(status))
            for status in (500, 502, 503, 504, 520, 522, 524, 599, 408, 499, 200, 204)
        ],
        *[
            pytest.param(answered(status), True, True, True, id=f"{status}: PiAPI was not reached")
            for status in (521, 523, 525, 526, 530)
        ],
        *[pytest.param(answered(status), True, False, False, id=str(status)) for status in (301, 302, 307, 308)],
        pytest.param(answered(403, b"error code: 1010"), True, False, True, id="403 of Cloudflare"),
        pytest.param(answered(200, b"<html>"), False, False, True, id="2xx unreadable"),
        *[
            pytest.param(answered(status), True, False, False, id=str(status))
            for status in (400, 401, 402, 403, 404, 405, 409, 410, 413, 418, 422, 451)
        ],
        *[
            pytest.param(answered(200, b'{"code":%d}' % code), True, False, False, id=f"{code} inside 200")
            for code in (400, 401, 402, 403, 404, 422)
        ],
        *[
            pytest.param(answered(200, b'{"code":%d}' % code), False, False, True, id=f"{code} inside 200")
            for code in (408, 499, 500, 504, 521, 1100, 10000)
        ],
        *[
            pytest.param(answered(status, body), False, False, poll, id=f"{status} that names a task")
            for status, body, poll in (
                (429, b'{"code":429,"data":{"task_id":"T1"}}', True),
                (200, b'{"code":429,"data":{"task_id":"T1"}}', True),
                (521, b'{"data":{"task_id":"T1"}}', True),
                (400, b'{"code":400,"task_id":"T1"}', False),
            )
        ],
        pytest.param(
            answered(502, b'{"message":"upstream said: invalid request"}'),
            *(False, False, True),
            id="known words of a gateway",
        ),
        pytest.param(answered(521, b'{"code":521,"message":"x"}'), False, False, True, id="521 in PiAPI's own form"),
        pytest.param(
            answered(500, b'{"code":500,"message":"Service is under maintenance"}'),
            *(True, False, True),
            id="maintenance",
        ),
        pytest.param(
            answered(530, b'{"code":500,"message":"invalid model"}'), True, False, False, id="invalid, with a 530"
        ),
    ],
)
def test_the_retry_table(error: errors.PiAPIError, *, safe: bool, submit: bool, poll: bool) -> None:
    """Each row of the design's table: whether resubmitting is safe, and whether submit and poll are tried again."""
    assert error.safe_to_resubmit is safe
    assert may_submit_again(error) is submit
    assert may_poll_again(error) is poll


def test_a_submit_is_never_retried_after_an_unsafe_error() -> None:
    """Whatever the submit policy retries is safe to resubmit: nobody pays twice by policy."""
    assert all(kind("x").safe_to_resubmit for kind in RETRY_SUBMIT)
    assert not {kind.__name__ for kind in RETRY_SUBMIT} - SAFE
