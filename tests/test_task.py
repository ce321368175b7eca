"""Values of a task: what is asked, what the service says, and how they show themselves."""

import copy
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import JSON

from piapi_async import Image, Img2Img, TaskInfo, TaskRequest, TaskStatus, Usage, WebhookConfig
from piapi_async.task import Submittable, TaskFault

VALUES = [
    TaskRequest(model="m", task_type="t", input={"prompt": "x"}),
    WebhookConfig("https://example.com/hook", secret="hush"),
    Image("https://example.com/a.png"),
    Usage(type="quota", consume=15000),
    TaskFault(code=10000, message="task failed", detail={"a": [1]}),
    TaskInfo(task_id="3f2a", status=TaskStatus.COMPLETED, images=(Image("https://e.com/a.png"),), raw={"a": [1]}),
]


def info(**fields: Any) -> TaskInfo:
    """A task with these fields."""
    return TaskInfo(**{"task_id": "3f2a", "status": TaskStatus.FAILED, **fields})


def test_the_words_for_where_a_task_stands() -> None:
    """There are eight statuses, and exactly the three that no later poll can change are terminal."""
    assert {str(status) for status in TaskStatus} == {
        "pending",
        "staged",
        "processing",
        "retry",
        "completed",
        "failed",
        "canceled",
        "unknown",
    }
    assert {status for status in TaskStatus if status.is_terminal} == {"completed", "failed", "canceled"}


@pytest.mark.parametrize("status", TaskStatus)
def test_a_task_is_over_when_its_status_is(status: TaskStatus) -> None:
    """`TaskInfo.is_terminal` is its status's."""
    assert info(status=status).is_terminal is status.is_terminal


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen_hashable_comparable_and_portable(value: Any) -> None:
    """Every value refuses changes, is a fit key for a dictionary, and equals its copies and its pickled self."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(type(value))[0].name, "other")
    twins = {value, copy.deepcopy(value), pickle.loads(pickle.dumps(value))}
    assert twins == {value}


def test_a_task_request_takes_what_a_submit_takes() -> None:
    """Generic and typed requests have the four attributes that `Session.submit` reads."""
    wanted: list[Submittable] = [
        TaskRequest(model="m", task_type="t", input={}),
        Img2Img(prompt="a", image="https://e.com/a.jpg"),
    ]
    for request in wanted:
        assert [request.model, request.task_type, dict(request.input), request.service_mode]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": ""}, "ValueError: model must be a text that is not blank, got ''"),
        ({"model": 5}, "TypeError: model must be a string, got 5"),
        ({"task_type": " "}, "ValueError: task_type must be a text that is not blank, got ' '"),
        ({"task_type": None}, "TypeError: task_type must be a string, got None"),
        ({"input": [1]}, "TypeError: input must be a mapping, got [1]"),
        ({"service_mode": "hya"}, "ValueError: service_mode must be one of 'public', 'private', got 'hya'"),
    ],
)
def test_a_bad_task_request_is_refused_in_one_sentence(fields: dict[str, Any], words: str) -> None:
    """The outer shape of a generic request is checked before anything is sent."""
    with pytest.raises((TypeError, ValueError)) as caught:
        TaskRequest(**{"model": "m", "task_type": "t", "input": {}, **fields})
    assert f"{caught.type.__name__}: {caught.value}" == words


def test_a_task_request_is_kept_as_given() -> None:
    """The input of a generic request is neither copied nor judged, and compares by value."""
    given_input = {"image": Path("a.png"), "anything": object()}
    request = TaskRequest(model="m", task_type="t", input=given_input, service_mode="private")
    assert request.input is given_input
    assert request.service_mode == "private"
    assert request == TaskRequest(model="m", task_type="t", input=dict(given_input), service_mode="private")
    assert request != TaskRequest(model="m", task_type="t", input={}, service_mode="private")


def test_a_task_request_shows_itself_in_a_line() -> None:
    """A large input is cut short in the `repr`."""
    shown = repr(TaskRequest(model="m", task_type="t", input={"image": b"x" * 5_000_000}))
    assert len(shown) < 400
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("webhook.site/x", ""), "ValueError: endpoint must be an http(s) URL, got 'webhook.site/x'"),
        ((None, ""), "TypeError: endpoint must be an http(s) URL, got None"),
        (("https://e.com", None), "TypeError: secret must be a string, got None"),
        (("https://e.com", 5), "TypeError: secret must be a string, got 5"),
    ],
)
def test_a_bad_webhook_is_refused_in_one_sentence(arguments: tuple[Any, Any], words: str) -> None:
    """A webhook needs a URL, and its secret has to be a string."""
    endpoint, secret = arguments
    with pytest.raises((TypeError, ValueError)) as caught:
        WebhookConfig(endpoint, secret=secret)
    assert f"{caught.type.__name__}: {caught.value}" == words


def test_a_webhook_hides_its_secret() -> None:
    """The secret is in neither `repr` nor `str`."""
    webhook = WebhookConfig("https://webhook.site/xxxx", secret="hush-hush")
    assert "hush" not in f"{webhook!r}{webhook!s}"
    assert "https://webhook.site/xxxx" in repr(webhook)
    assert WebhookConfig("https://webhook.site/xxxx").secret == ""


@pytest.mark.parametrize(
    ("url", "inline"), [("https://img.theapi.app/temp/a.png", False), ("data:image/png;base64,AAAA", True)]
)
def test_a_picture_is_inline_when_its_url_holds_it(url: str, *, inline: bool) -> None:
    """A data URI is the picture itself, a URL is where it is; a long one is cut short in the `repr`."""
    assert Image(url).is_inline is inline
    assert len(repr(Image(url * 1000))) < 80


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        ({"error": TaskFault(code=1, message="said", raw_message="raw"), "logs": ("log",)}, "said: raw: log"),
        ({"error": TaskFault(code=1, raw_message="raw"), "logs": ("log",)}, "raw: log"),
        ({"error": TaskFault(code=1, message="same "), "logs": ("same",)}, "same"),
        ({"error": TaskFault(code=1), "logs": ("log",)}, "log"),
        ({"error": None, "logs": ("first", "last")}, "last"),
        ({"logs": ("the cause", " ", "")}, "the cause"),
        ({"logs": (" ", "")}, ""),
        ({"error": TaskFault(code=1)}, ""),
        ({"error": TaskFault(message="task failed: raw", raw_message="raw"), "logs": ("raw",)}, "task failed: raw"),
        ({"logs": ("two\nlines\x1b[31m",)}, "two lines\ufffd[31m"),
        ({"logs": ("x" * 9999,)}, "x" * 199 + "…"),
        ({"error": TaskFault(message="a" * 999, raw_message="b" * 999), "logs": ("c" * 999,)},
         f"{'a' * 199}…: {'b' * 199}…: {'c' * 95}…"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failure(fields: dict[str, Any], reason: str) -> None:
    """The reason is the error's messages and the last log line with something in it, as one bounded line."""
    assert info(**fields).reason == reason


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"images": (Image("https://e.com/a.png"),)}, True),
        ({"raw": {"output": None}}, False),
        ({"raw": {"output": {}}}, False),
        ({"raw": {"output": {"image_url": "", "image_urls": None}}}, False),
        ({"raw": {"output": {"video_url": "https://e.com/a.mp4"}}}, True),
        ({"raw": {"output": ["https://e.com/a.mp4"]}}, False),
        ({"raw": {"output": "text"}}, False),
    ],
)
def test_whether_a_task_has_output(fields: dict[str, Any], *, expected: bool) -> None:
    """Pictures are output, and so is anything that another model put into `output`."""
    assert info(**fields).has_output is expected


def test_what_a_task_shows() -> None:
    """The `repr` of a task is what a person looks for first; what is not known is left out."""
    whole = TaskInfo(
        task_id="3f2a",
        model="Qubico/flux1-schnell",
        task_type="img2img",
        status=TaskStatus.COMPLETED,
        raw_status="Completed",
        images=(Image("https://e.com/a.png"),),
        usage=Usage(consume=15000),
        created_at=datetime(2025, 6, 30, tzinfo=UTC),
        raw={"config": {"webhook_config": {"secret": "hush"}}},
    )
    assert repr(whole) == "<TaskInfo 3f2a Completed Qubico/flux1-schnell img2img 1 images 15000 points>"
    assert repr(info(status=TaskStatus.PENDING)) == "<TaskInfo 3f2a pending>"


@given(st.text(), st.text(), st.text(max_size=500))
def test_a_task_shows_itself_in_a_line_whatever_the_server_says(task_id: str, word: str, model: str) -> None:
    """Names that a server chose, however long or odd, leave the `repr` one line of at most 400 characters."""
    shown = repr(info(task_id=task_id * 50, raw_status=word * 50, model=model, usage=Usage(consume=10**300)))
    assert len(shown) <= 400
    assert len(shown.splitlines()) == 1


@given(st.dictionaries(st.text(), JSON))
def test_raw_is_what_the_service_sent(raw: dict[str, Any]) -> None:
    """`raw` gives the service's object back as it was, and changing it changes nothing in the task."""
    task = info(raw=raw)
    assert repr(task.raw) == repr(raw)
    task.raw.clear()
    assert repr(task.raw) == repr(raw)


def test_tasks_compare_by_what_they_say() -> None:
    """Two polls that differ in `raw` alone are equal, others are not; that is how changes are noticed."""
    assert info(raw={"a": 1}) == info(raw={"a": 2})
    assert info(raw_status="failed") != info(raw_status="Failed")


def test_webhook_shows_no_query() -> None:
    """A token that tells one submit from another stands in the endpoint's query, and is not shown."""
    assert (
        repr(WebhookConfig("https://example.com/hook?token=hush"))
        == "WebhookConfig(endpoint='https://example.com/hook')"
    )
