"""Events: what they say, at which level, and that nobody who listens can do harm."""

import asyncio
import inspect
import logging
import math
from typing import get_args

import attrs
import pytest

from piapi_async import Image, TaskInfo, TaskStatus, errors, events

INFO = TaskInfo(
    task_id="3f2a",
    model="Qubico/flux1-schnell",
    task_type="img2img",
    status=TaskStatus.PROCESSING,
    raw_status="Processing",
    raw={"config": {"webhook_config": {"secret": "hush"}}},
)
ERROR = errors.ConnectError("cannot connect to api.piapi.ai; nothing was sent")

SAYS: list[tuple[events.Event, int, str]] = [
    (events.Submitted(info=INFO), logging.DEBUG, "task 3f2a submitted (Qubico/flux1-schnell img2img)"),
    (events.Polled(info=INFO), logging.DEBUG, "task 3f2a is Processing"),
    (
        events.Polled(info=TaskInfo(task_id="3f2a", status=TaskStatus.PENDING)),
        logging.DEBUG,
        "task 3f2a is pending",
    ),
    (
        events.PollFailed(task_id="3f2a", error=ERROR),
        logging.INFO,
        "poll of task 3f2a failed: cannot connect to api.piapi.ai; nothing was sent",
    ),
    (
        events.UnknownStatus(task_id="3f2a", raw_status="odd\t"),
        logging.WARNING,
        "task 3f2a has the unknown status 'odd\\t', taken as not over",
    ),
    (
        events.Retrying(action="submit", attempt=2, wait=1.25, error=ERROR),
        logging.INFO,
        "submit again in 1.2 s, attempt 2 failed: cannot connect to api.piapi.ai; nothing was sent",
    ),
    (
        events.Paused(seconds=1.0, asked=None),
        logging.INFO,
        "answered 429, pausing for 1.0 s",
    ),
    (
        events.Paused(seconds=8.0, asked=8.0),
        logging.INFO,
        "answered 429, pausing for 8.0 s",
    ),
    (
        events.Paused(seconds=120.0, asked=3600.0),
        logging.INFO,
        "answered 429, pausing for 120.0 s, the server asked for 3600 s",
    ),
    (
        events.LimitLearned(limit="requests", value=18.6),
        logging.INFO,
        "PiAPI seems to bear 18.6 requests a second",
    ),
    (
        events.LimitLearned(limit="tasks in flight", value=30),
        logging.INFO,
        "PiAPI seems to bear 30 tasks in flight",
    ),
    (
        events.LimitLearned(limit="tasks in flight", value=math.inf),
        logging.INFO,
        "no limit on tasks in flight is known",
    ),
    (
        events.SubmissionInDoubt(error=errors.SubmissionInDoubtError("a task may exist")),
        logging.ERROR,
        "a task may exist",
    ),
    (
        events.WaitAbandoned(task_id="3f2a"),
        logging.WARNING,
        "task 3f2a may go on and be billed; session.task('3f2a') finds it again",
    ),
    (events.Saved(image=Image("https://e.com/a.png"), path="out/a.png"), logging.DEBUG, "saved out/a.png"),
]
"""An example of each event, its level and its sentence."""


def test_every_event_has_an_example_here() -> None:
    """The union `Event` is all the frozen classes of the module, and each is in the table."""
    defined = {value for value in vars(events).values() if inspect.isclass(value) and hasattr(value, "level")}
    assert defined == set(get_args(events.Event)) == {type(event) for event, *_ in SAYS}


@pytest.mark.parametrize(("event", "level", "words"), SAYS, ids=lambda value: type(value).__name__)
def test_what_each_event_says(event: events.Event, level: int, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each event is one record of the logger `piapi_async`, at its level, with its sentence and no secret."""
    caplog.set_level(logging.DEBUG, logger="piapi_async")
    events.log_event(event)
    assert caplog.record_tuples == [("piapi_async", level, words)]
    assert "hush" not in f"{event!r}"
    field = attrs.fields(type(event))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, field, None)


def test_an_event_is_told_to_the_log_and_to_all_observers_in_order(caplog: pytest.LogCaptureFixture) -> None:
    """Every observer hears every event, once, in the order given, and so does the log."""
    caplog.set_level(logging.DEBUG, logger="piapi_async")
    heard: list[tuple[int, events.Event]] = []
    announce = events.Announcer(iter([lambda event, n=n: heard.append((n, event)) for n in range(3)]))
    for event, *_ in SAYS[:2]:
        announce(event)
    assert heard == [(n, event) for event, *_ in SAYS[:2] for n in range(3)]
    assert len(caplog.records) == 2


def test_an_observer_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """What an observer raises is logged with its traceback, and the others still hear the event."""
    heard: list[events.Event] = []

    def fail(_event: events.Event) -> None:
        raise ValueError("a bug in an observer")

    announce = events.Announcer([fail, heard.append, fail])
    announce(SAYS[0][0])
    assert heard == [SAYS[0][0]]
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 2
    assert all("fail" in record.getMessage() and record.exc_info for record in failures)
    assert "a bug in an observer" in caplog.text


def test_only_ctrl_c_passes_an_observer(caplog: pytest.LogCaptureFixture) -> None:
    """A cancel out of an observer is a mistake like any other, as nothing is awaited in it; Ctrl-C is not swallowed."""

    def cancel(_event: events.Event) -> None:
        raise asyncio.CancelledError

    def interrupt(_event: events.Event) -> None:
        raise KeyboardInterrupt

    events.Announcer([cancel])(SAYS[0][0])
    assert "CancelledError" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        events.Announcer([interrupt])(SAYS[0][0])
