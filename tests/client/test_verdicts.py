"""What an answer, or the lack of one, means for a submit and for a GET: the retry table, row by row, on sockets."""

import asyncio
import base64
import gc
import hashlib
import json
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.raw_server import PNG, RawServer, Reply, answer, closing, cut, stall, stalling_after, task

from piapi_async import (
    Backoff,
    Batch,
    Img2Img,
    Polling,
    RetryPolicy,
    Session,
    TaskInfo,
    events,
)
from piapi_async._client.api import Journal
from piapi_async._client.body import Content
from piapi_async.batch import Failed
from piapi_async.errors import (
    APIError,
    AuthenticationError,
    Hint,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    PiAPIError,
    ServerError,
    SubmissionInDoubtError,
    TaskFailedError,
    UnexpectedResponseError,
)
from piapi_async.ledger import SQLiteLedger
from piapi_async.testing import EventLog, run_in_virtual_time

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
BRIEF = aiohttp.ClientTimeout(total=1)
ID = "1631d053-2352-4add-95cc-360fc52d5f89"


class Hooks(Journal):
    """A record of what a submit's hooks were told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def sending(self, body: Content) -> None:
        """The body begins."""
        self.told.append(f"sending {bool(body.parts)}")

    async def refused(self) -> None:
        """No task."""
        self.told.append("refused")

    async def accepted(self, info: TaskInfo) -> None:
        """A task."""
        self.told.append(f"accepted {info.task_id}")

    async def lost(self) -> None:
        """Who knows."""
        self.told.append("lost")


def said(code: int | None, message: str, **data: Any) -> dict[str, Any]:
    """An error in PiAPI's own form."""
    envelope: dict[str, Any] = {"message": message, "data": {"task_id": "", **data} if data else None}
    return envelope if code is None else {"code": code, **envelope}


def page(status: int, body: bytes = b"<!DOCTYPE html><title>Cloudflare</title>", **headers: str) -> bytes:
    """An answer of something in front of PiAPI."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(body, status=status, headers={"Content-Type": "text/html", **names})


NOT_ACCESSIBLE = said(None, "failed to create task", error={"message": "image url is not accessible"})
AGAIN, DOUBT = "again", "doubt"
TABLE: list[tuple[str, Reply, Any, Any]] = [
    ("closed after the request", cut, AGAIN, DOUBT),
    ("time-out", stall, AGAIN, DOUBT),
    ("time-out in the head", stalling_after(b"HTTP/1.1 200 OK\r\nContent-"), AGAIN, DOUBT),
    ("time-out in the body", stalling_after(answer(b"", headers={"Content-Length": "9"})), AGAIN, DOUBT),
    ("cut in the body", closing(answer(b'{"co', headers={"Content-Length": "99"})), AGAIN, DOUBT),
    ("not HTTP", closing(b"SSH-2.0-OpenSSH_9.6\r\n"), AGAIN, DOUBT),
    ("429", answer(status=429), AGAIN, AGAIN),
    ("429 of Cloudflare", page(429, b"error code: 1015"), AGAIN, AGAIN),
    ("429 with other words", answer(said(429, "invalid request rate"), status=429), AGAIN, AGAIN),
    (
        "401 with other words",
        answer(said(401, "invalid request"), status=401),
        AuthenticationError,
        AuthenticationError,
    ),
    ("429 in a 200", answer(said(429, "rate limit exceeded")), AGAIN, AGAIN),
    *[(f"{status}", page(status), AGAIN, DOUBT) for status in (500, 502, 503, 504, 520, 522, 524, 599)],
    ("503 in PiAPI's form", answer(said(503, "upstream connect error"), status=503), AGAIN, DOUBT),
    ("500 with an unknown cause", answer(said(500, "failed to create task", error="EOF"), status=500), AGAIN, DOUBT),
    ("maintenance, not in JSON", page(503, b"Service is under maintenance"), AGAIN, DOUBT),
    ("2xx without a body", answer(), AGAIN, DOUBT),
    ("2xx of HTML", page(200), AGAIN, DOUBT),
    ("2xx without a task", answer({"code": 200, "data": None, "message": "success"}), AGAIN, DOUBT),
    *[(f"code {code} in a 200", answer(said(code, "x")), AGAIN, DOUBT) for code in (500, 504, 521, 1100, 10000)],
    *[(f"{status}", page(status), AGAIN, AGAIN) for status in (521, 523, 525, 526, 530)],
    ("408", answer(status=408), AGAIN, DOUBT),
    ("499", page(499), AGAIN, DOUBT),
    ("408 in a 200", answer(said(408, "slow")), AGAIN, DOUBT),
    ("499 in a 200", answer(said(499, "gone")), AGAIN, DOUBT),
    *[
        (f"{status}", answer(status=status, headers={"Location": "https://api.example/"}), APIError, APIError)
        for status in (301, 302, 303, 307, 308)
    ],
    ("403 page of Cloudflare", page(403), AGAIN, APIError),
    ("403 with its code", answer(b"error code: 1010", status=403), AGAIN, APIError),
    ("challenge with another status", page(503, cf_mitigated="challenge"), AGAIN, APIError),
    ("400", answer(said(400, "x"), status=400), InvalidRequestError, InvalidRequestError),
    ("401", answer({"error": "Unauthorized"}, status=401), AuthenticationError, AuthenticationError),
    ("402", answer(status=402), InsufficientCreditsError, InsufficientCreditsError),
    ("403 of PiAPI", answer(said(403, "plan"), status=403), AuthenticationError, AuthenticationError),
    ("404", answer(b"404 page not found", status=404), NotFoundError, NotFoundError),
    ("405", answer(status=405), APIError, APIError),
    ("413", page(413), InvalidRequestError, InvalidRequestError),
    ("400 in a 200", answer(said(400, "x")), InvalidRequestError, InvalidRequestError),
    ("401 in a 200", answer(said(401, "failed to verify api key")), AuthenticationError, AuthenticationError),
    ("cause in data, 500", answer(NOT_ACCESSIBLE, status=500), InvalidRequestError, InvalidRequestError),
    ("cause in data, 200", answer(NOT_ACCESSIBLE), InvalidRequestError, InvalidRequestError),
    (
        "cause in logs",
        answer(said(500, "failed to create task", logs=["invalid image url"]), status=500),
        *(InvalidRequestError, InvalidRequestError),
    ),
    (
        "cause in a log object",
        answer(said(500, "failed to create task", logs=[{"level": "error", "message": "invalid model"}])),
        *(InvalidRequestError, InvalidRequestError),
    ),
    (
        "cause in raw_message",
        answer(said(10000, "task failed", error={"raw_message": "task input too large"})),
        *(InvalidRequestError, InvalidRequestError),
    ),
    (
        "a number as text",
        answer(said(500, "json: cannot unmarshal string into Go struct field of type float64"), status=500),
        *(InvalidRequestError, InvalidRequestError),
    ),
    ("key, 500", answer(said(500, "failed to verify api key"), status=500), AuthenticationError, AuthenticationError),
    *[
        (f"{words}, {status}", answer(said(500, words), status=status), kind, kind)
        for words in ("insufficient balance", "failed to freeze credit", "Failed to freeze point")
        for status, kind in ((200, InsufficientCreditsError), (500, InsufficientCreditsError))
    ],
    ("maintenance, 500", answer(said(500, "Service is under maintenance"), status=500), AGAIN, ServerError),
    ("maintenance, 400", answer(said(400, "Service is under maintenance"), status=400), AGAIN, ServerError),
    ("maintenance, 200", answer(said(None, "", error="Service is under maintenance")), AGAIN, ServerError),
]
"""The rows of the table: what comes, then what that is for a GET and for a submit. An error is final."""

ROWS = pytest.mark.parametrize(("reply", "get", "submit"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])


@ROWS
async def test_get_by_the_table(reply: Reply, get: Any, submit: Any) -> None:
    """A GET is made again, or its error is raised after one request, as the table says."""
    async with RawServer(reply, task()) as server, Session("k", base_url=server.url, timeout=BRIEF) as session:
        if get is AGAIN:
            assert (await session.get_task("t")).task_id == "t"
            assert len(server.received) == 2
        else:
            with pytest.raises(get) as caught:
                await session.get_task("t")
            assert type(caught.value) is get
            assert len(server.received) == 1
    assert submit  # the other half of the row


@ROWS
async def test_submit_by_the_table(reply: Reply, get: Any, submit: Any) -> None:
    """A submit is made again, refused, or in doubt, as the table says; hooks, events and the spending say the same."""
    hooks, log = Hooks(), EventLog()
    async with (
        RawServer(reply, task()) as server,
        Session("k", base_url=server.url, timeout=BRIEF, observers=[log]) as session,
    ):
        if submit is AGAIN:
            assert (await session.submit(BEAR, journal=hooks)).task_id == "t-1"
            assert hooks.told == ["sending True", "refused", "sending True", "accepted t-1"]
            assert len(server.received) == 2
            return
        with pytest.raises(SubmissionInDoubtError if submit is DOUBT else submit) as caught:
            await session.submit(BEAR, journal=hooks)
        assert len(server.received) == 1
        assert bool(session.spent) is (submit is DOUBT)
    assert type(caught.value) is (SubmissionInDoubtError if submit is DOUBT else submit)
    assert caught.value.safe_to_resubmit is (submit is not DOUBT)
    assert hooks.told == ["sending True", "lost" if submit is DOUBT else "refused"]
    assert [event.error for event in log.of(events.SubmissionInDoubt)] == [caught.value] * (submit is DOUBT)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert get  # the other half of the row


async def test_get_that_cloudflare_keeps_out_is_told_as_such() -> None:
    """After all attempts a client that Cloudflare blocks is told so, and not to check its key."""
    async with RawServer(page(403, b"error code: 1010")) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(APIError, match="1010") as caught:
            await session.get_task("t")
        assert len(server.received) == RetryPolicy().attempts
    assert caught.value.hint is Hint.CLIENT_BLOCKED
    assert not caught.value.is_enveloped
    assert "PIAPI_API_KEY" not in str(caught.value)


async def test_doubt_says_that_the_answer_was_lost_only_where_it_was() -> None:
    """A 503 that came whole is told as what came; an answer that did not come was lost; `why` is the same in short."""
    replies = ((page(503), False), (answer(), False), (page(499), False), (cut, True), (stall, True))
    for reply, is_lost in replies:
        async with RawServer(reply) as server, Session("k", base_url=server.url, timeout=BRIEF) as session:
            with pytest.raises(SubmissionInDoubtError) as caught:
                await session.submit(BEAR)
        assert ("lost" in str(caught.value)) is is_lost
        assert caught.value.why in str(caught.value)
        assert str(caught.value.__cause__) in caught.value.why
        assert caught.value.hint is Hint.CHECK_TASKS


@pytest.mark.parametrize(
    "reply",
    [
        answer(said(500, "task made, queue down", task_id=ID), status=500),
        answer(said(500, "failed to create task", task_id=ID, error="insufficient balance"), status=500),
        answer({"code": 504, "data": {"task_id": ID}}),
        answer({"code": 504, "task_id": ID}),
        answer({"code": 500, "data": {"input": {"task_id": "x"}, "task_id": ID}}, status=500),
        answer(f'{{"code":500,"data":{{"logs":[{{"task_id":"x"}}],"task_id":"{ID}","error":{{'.encode(), status=500),
    ],
)
async def test_doubt_names_the_task_that_the_answer_names(reply: Reply) -> None:
    """An answer that is unreadable, or an error, and names a task puts its id into the doubt."""
    async with RawServer(reply) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(SubmissionInDoubtError, match=ID) as caught:
            await session.submit(BEAR)
    assert caught.value.task_id == ID


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("status", [200, 500, 502])
@pytest.mark.parametrize(
    "body",
    [
        f'{{"code":200,"data":{{"input":{{"task_id":"{ID}"}},"task_id":"',
        f'{{"code":200,"data":{{"logs":["{{\\"task_id\\":\\"{ID}\\"}}",{{"task_id":"{ID}"}}],"status":"pending"',
        f'{{"result":{{"task_id":"{ID}"}}}}',
        f'[{{"task_id":"{ID}"}}]',
        f'["task_id": "{ID}"]',
        f'<pre>{{"task_id" : "{ID}"}}</pre>',
    ],
)
async def test_doubt_names_no_task_but_the_envelopes(body: str, status: int, *, is_cut: bool) -> None:
    """An id inside an echoed input, a log or a page may be another task's: the doubt does not name it."""
    headers = {"Content-Length": "999"} if is_cut else {}
    reply = closing(answer(body.encode(), status=status, headers=headers))
    async with RawServer(reply) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(SubmissionInDoubtError) as caught:
            await session.submit(BEAR)
    assert caught.value.task_id is None


WHOLE = json.dumps(
    {
        "code": 200,
        "data": {
            "task_id": ID,
            "model": "m",
            "task_type": "img2img",
            "status": "completed",
            "input": {"prompt": 'a "bear", {"task_id": "x"}' + "b" * 99, "image": None, "steps": 28},
            "output": {"image_url": "https://img.example.com/1.png"},
        },
        "message": "success",
    }
).encode()
AFTER_ID = WHOLE.index(b'"', WHOLE.index(ID.encode())) + 1


@pytest.mark.parametrize("end", [AFTER_ID, AFTER_ID + 1, AFTER_ID + 9, len(WHOLE) // 2, len(WHOLE) - 1, len(WHOLE)])
@pytest.mark.parametrize("how", ["closed", "stalled", "reset", "chunked", "complete"])
async def test_answer_that_breaks_off_after_the_id_is_an_acceptance(end: int, how: str) -> None:
    """Wherever and however the answer to a submit breaks off after the task's id, the task is known and waited for."""
    part = WHOLE[:end]
    longer = answer(part, headers={"Content-Length": str(len(WHOLE) + 1)})

    async def reset(_received: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(longer)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.get_extra_info("socket").setsockopt(*_LINGER)
        writer.transport.abort()

    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n9\r\nabc" % (len(part), part)
    replies = {
        "closed": closing(longer),
        "stalled": stalling_after(longer),
        "reset": reset,
        "chunked": closing(chunked),
        "complete": answer(part),
    }
    hooks = Hooks()
    polling = Polling(wait=Backoff(initial=0.1))
    async with RawServer(replies[how], task(status="completed")) as server:
        async with Session("k", base_url=server.url, timeout=BRIEF, polling=polling) as session:
            handle = await session.submit(BEAR, journal=hooks)
            assert (handle.task_id, hooks.told[-1]) == (ID, f"accepted {ID}")
            assert handle.info is not None
            assert handle.info.is_terminal is (end >= len(WHOLE) - (how != "complete") and end == len(WHOLE))
            assert (await handle).images


_LINGER = (1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: closing resets


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\r\n "])
async def test_answer_that_breaks_off_may_begin_with_blanks(before: bytes) -> None:
    """A byte order mark or a line break before an answer that breaks off does not hide its task."""
    async with RawServer(answer(before + WHOLE[: AFTER_ID + 9])) as server:
        async with Session("k", base_url=server.url) as session:
            assert (await session.submit(BEAR)).task_id == ID


@pytest.mark.parametrize("end", [0, 1, AFTER_ID - len(ID) - 2, AFTER_ID - 1])
async def test_answer_that_breaks_off_before_the_id_is_in_doubt(end: int) -> None:
    """Of an answer that breaks off within the task's id, or before it, nothing is made up."""
    for reply in (closing(answer(WHOLE[:end], headers={"Content-Length": "999"})), answer(WHOLE[:end])):
        async with RawServer(reply) as server, Session("k", base_url=server.url) as session:
            with pytest.raises(SubmissionInDoubtError) as caught:
                await session.submit(BEAR)
        assert caught.value.task_id is None


async def test_refusal_that_breaks_off_is_a_refusal() -> None:
    """The head says no, or the envelope's code does, before the answer breaks off: nothing was accepted."""
    for reply in (
        closing(answer(b'{"code": 402, "mess', status=402, headers={"Content-Length": "99"})),
        closing(answer(b'{"code": 402, "mess', headers={"Content-Length": "99"})),
    ):
        async with RawServer(reply) as server, Session("k", base_url=server.url) as session:
            with pytest.raises(InsufficientCreditsError):
                await session.submit(BEAR)


async def test_half_an_answer_of_a_get_is_no_answer() -> None:
    """What is read of a GET's answer before it breaks off is not believed: the next one is whole."""
    half = closing(answer(WHOLE[:-90], headers={"Content-Length": "9999"}))
    async with RawServer(half, answer(WHOLE[:-90]), task(ID, "processing")) as server:
        async with Session("k", base_url=server.url) as session:
            assert (await session.get_task(ID)).status == "processing"
        assert len(server.received) == 3


ODD: Mapping[str, bytes] = {
    "line break": WHOLE.replace(b"bear", b"be\nar"),
    "tab": WHOLE.replace(b"bear", b"be\tar"),
    "other control characters": WHOLE.replace(b"bear", b"\x00\x01\x1b\x7f"),
    "half an emoji": WHOLE.replace(b"bear", b"\xf0\x9f\x90"),
    "Latin-1": WHOLE.replace(b"bear", b"b\xe4r"),
    "lone surrogate, escaped": WHOLE.replace(b"bear", rb"\ud83d"),
    "lone surrogate, raw": WHOLE.replace(b"bear", b"\xed\xa0\xbd"),
    "byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "NaN": WHOLE.replace(b"28", b"NaN"),
    "infinity": WHOLE.replace(b"28", b"-Infinity"),
    "rest of another answer": WHOLE + b'{"code":200}',
    "a warning after it": WHOLE + b"\n<br>Warning: headers already sent",
    "NULs after it": WHOLE + b"\0\0",
    "blanks before it": b"\r\n  " + WHOLE,
    "a mark and blanks before it": b"\xef\xbb\xbf \t\0\r\n" + WHOLE,
    "a key twice": WHOLE.replace(b'"model"', b'"task_id": "%s", "model"' % ID.encode()),
    "keys of several forms": WHOLE.replace(b'"code": 200', b'"code": "200"'),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_bytes_do_not_make_an_answer_unreadable(name: str) -> None:
    """One odd byte in an echo, or round the answer, and the task is still the task: submitted, seen, kept whole."""
    async with RawServer(answer(ODD[name])) as server, Session("k", base_url=server.url) as session:
        handle = await session.submit(BEAR)
        info = await session.get_task(ID)
        assert len(server.received) == 2
    for seen in (handle.info, info):
        assert seen is not None
        assert (seen.task_id, seen.status, len(seen.images)) == (ID, "completed", 1)
        assert seen.raw["input"]["prompt"].endswith("b" * 99)
        assert pickle.loads(pickle.dumps(seen)).raw["model"] == "m"


async def test_answer_about_another_task_is_asked_for_again() -> None:
    """What a cache or a gateway answers about another task is not this task's, for a poll, a wait and a cancel."""
    other = task("somebody-elses", "completed")
    log = EventLog()
    async with (
        RawServer(task(ID), other, other, task(ID, "completed")) as server,
        Session("k", base_url=server.url, observers=[log]) as session,
    ):
        info = await session.run(BEAR)
        assert (info.task_id, len(server.received)) == (ID, 4)
        server.replies[:] = [other, task(ID)]
        assert (await session.get_task(ID)).task_id == ID
        server.replies[:] = [other, answer({"code": 200}), other, task(ID, "canceled")]
        assert (await session.cancel_task(ID)).status == "canceled"
        assert [one.line.split()[0] for one in server.received[-4:]] == ["DELETE", "DELETE", "GET", "GET"]
    assert {type(event.error) for event in log.of(events.PollFailed)} == {UnexpectedResponseError}


async def test_answer_that_is_always_about_another_task_is_told_as_such() -> None:
    """After all attempts the error names both tasks; ids differ neither by their case nor by blanks round them."""
    async with RawServer(task("other")) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(UnexpectedResponseError, match=r"mine.*other") as caught:
            await session.get_task("mine")
        assert caught.value.task_id == "mine"
        server.replies[:] = [task(f" {ID.upper()} ")]
        assert (await session.get_task(ID)).status == "pending"


class Broken(Hooks):
    """Hooks that fail whenever they are told how a submit ended."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def refused(self) -> None:
        """No task."""
        raise self.error

    async def accepted(self, info: TaskInfo) -> None:
        """A task."""
        await super().accepted(info)
        raise self.error

    async def lost(self) -> None:
        """Who knows."""
        raise self.error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PiAPIError("bug"), asyncio.CancelledError()])
async def test_hook_that_raises_changes_nothing_of_what_the_service_said(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """A paid task is handed out though the hook that was to record it fails; that is logged, with the task's id."""
    async with RawServer(task(ID), answer(status=402), cut) as server, Session("k", base_url=server.url) as session:
        assert (await session.submit(BEAR, journal=Broken(error))).task_id == ID
        assert ID in caplog.text
        with pytest.raises(InsufficientCreditsError):
            await session.submit(BEAR, journal=Broken(error))
        with pytest.raises(SubmissionInDoubtError):
            await session.submit(BEAR, journal=Broken(error))
        assert [type(record.exc_info) for record in caplog.records if record.exc_info] == [tuple] * 3


async def test_hook_that_never_ends_does_not_keep_a_canceled_submit_from_naming_its_task() -> None:
    """A submit that is cancelled while its hook hangs still names its task, within the seconds that a cancel has."""

    class Hanging(Journal):
        async def accepted(self, info: TaskInfo) -> None:
            assert info.task_id == ID
            await asyncio.Event().wait()

    log = EventLog()
    async with RawServer(task(ID)) as server, Session("k", base_url=server.url, observers=[log]) as session:
        submitting = asyncio.ensure_future(session.submit(BEAR, journal=Hanging()))
        await asyncio.sleep(1)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
    assert [event.info.task_id for event in log.of(events.Submitted)] == [ID]
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == [ID]
    assert log.of(events.SubmissionInDoubt) == []


async def test_canceled_submit_without_an_answer_is_in_doubt_as_such() -> None:
    """A submit that is cancelled, and gets no answer in the time that a cancel has, is told as just that."""
    log = EventLog()
    async with RawServer(stall) as server, Session("k", base_url=server.url, observers=[log]) as session:
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await asyncio.sleep(1)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
    (event,) = log.of(events.SubmissionInDoubt)
    assert isinstance(event.error, SubmissionInDoubtError)
    assert "cancelled before the answer came" in event.error.why


async def test_batch_notes_what_is_known_of_a_doubt(tmp_path: Any) -> None:
    """The ledger's reason for a doubt is what came, and not that the answer was lost where it was not."""
    async with RawServer(page(503)) as server, Session("k", base_url=server.url) as session:
        async with Batch(session, ledger=tmp_path / "ledger.db", on_doubt="skip") as batch:
            batch.add(BEAR, key="bear")
            assert [type(outcome) async for outcome in batch] == [Failed]
    async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
        row = await ledger.get("bear")
    assert row is not None
    assert (row.state, "503" in str(row.error), "lost" in str(row.error)) == ("in_doubt", True, False)


BIG = PNG + bytes(2**20)
URI = "data:image/png;base64," + base64.b64encode(BIG).decode()


@pytest.mark.parametrize("status", [402, 503])
async def test_error_of_a_submit_does_not_keep_its_picture(status: int, tmp_path: Any) -> None:
    """Errors that are kept, tracebacks and all, keep no megabyte of picture each."""
    path = tmp_path / "a.png"
    path.write_bytes(_picture(2**20))
    async with RawServer(answer(status=status)) as server, Session("k", base_url=server.url) as session:
        tracemalloc.start()
        try:
            doing = [session.run(Img2Img(prompt="x", image=path)) for _ in range(10)]
            kept = await asyncio.gather(*doing, return_exceptions=True)
            server.received.clear()
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert all(isinstance(error, PiAPIError) and error.__traceback__ is not None for error in kept)
    assert size < 5 * 2**20


def _picture(size: int) -> bytes:
    """A PNG of at least so many bytes: the one pixel, with a comment."""
    text = b"tEXtComment\0" + b"x" * size
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return PNG[:33] + chunk + PNG[33:]


async def test_task_does_not_keep_an_echoed_picture() -> None:
    """A picture, or another endless text, of the echo stands in `raw` as its digest; what the task gave stays."""
    echo = {"prompt": "p" * 20_000, "image": URI, "list": [URI[:-3] + "*=="], "short": "data:,x"}
    output = {"image_base64": "A" * 20_000}
    data = task(ID, "completed", input=echo, output=output, logs=["l" * 20_000])
    async with RawServer(data) as server, Session("k", base_url=server.url) as session:
        info = await session.get_task(ID)
    assert len(pickle.dumps(info)) < 60_000
    shown = info.raw["input"]
    assert shown["image"] == {"sha256": _sha256(BIG), "bytes": len(BIG)}
    assert shown["prompt"] == {"text_sha256": _sha256(b"p" * 20_000), "characters": 20_000}
    assert shown["list"][0].keys() == {"text_sha256", "characters"}
    assert shown["short"] == "data:,x"
    assert info.raw["output"] == output
    assert [len(line) for line in info.logs] == [4000]
    assert info.has_output


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_failed_task_is_told_without_secrets_and_in_one_line() -> None:
    """The message of a failed task is bounded, one line, and without the key or the webhook's secret it may quote."""
    key, secret = "0123456789abcdef", "hush-hush"
    logs = [{"message": f"call with {key} failed:\n" + "x" * 9999}, f"webhook got {secret} and {key}"]
    config = {"webhook_config": {"endpoint": "https://e.com", "secret": secret}}
    failed = task(ID, "failed", logs=logs, config=config, error={"raw_message": f"{key} is not allowed"})
    async with RawServer(task(ID), failed) as server, Session(key, base_url=server.url) as session:
        with pytest.raises(TaskFailedError) as caught:
            await session.run(BEAR)
    assert caught.value.info is not None
    told = f"{caught.value} {caught.value.info.reason} {caught.value.info.logs} {caught.value.info.error}"
    assert key not in told
    assert secret not in told
    assert len(str(caught.value)) < 600
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.info.raw["config"] == config


async def test_output_that_comes_before_the_end_is_not_the_end() -> None:
    """Pictures may be there while the status still says pending; the wait goes on until it says completed."""
    early = task(ID, " Pending\t", output={"image_url": "https://img.example.com/1.png"})
    async with RawServer(task(ID), early, task(ID, "In Progress"), task(ID, "completed")) as server:
        async with Session("k", base_url=server.url) as session:
            assert (await session.run(BEAR)).status == "completed"
            assert len(server.received) == 4


async def test_answer_in_the_form_of_a_webhook_is_a_task() -> None:
    """A GET answered with `{timestamp, data}`, as a page of PiAPI shows it, is the task."""
    told = answer({"timestamp": 1723018391, "data": {"task_id": "t", "status": "completed"}})
    async with RawServer(told) as server, Session("k", base_url=server.url) as session:
        assert (await session.get_task("t")).status == "completed"


def _settled(status: int, content: bytes, *, is_cut: bool) -> str | PiAPIError:
    """The task of a submit that is answered so, or its error."""

    async def main() -> str | PiAPIError:
        reply = answer(content, status=status, headers={"Content-Length": str(len(content) + is_cut)})
        async with RawServer(closing(reply)) as server:
            async with Session("k", base_url=server.url, retry=RetryPolicy(attempts=1)) as session:
                try:
                    return (await session.submit(BEAR)).task_id
                except PiAPIError as error:
                    return error

    return run_in_virtual_time(main())


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(status=st.integers(200, 599), body=st.binary(max_size=60), keep=st.integers(0, len(WHOLE)), is_cut=st.booleans())
def test_any_half_answer_gives_a_task_or_an_error_of_ours(status: int, body: bytes, keep: int, *, is_cut: bool) -> None:
    """Any bytes after any part of an answer, cut or not, give the task, a refusal or a doubt, and nothing else."""
    found = _settled(status, WHOLE[:keep] + body, is_cut=is_cut)
    if isinstance(found, str):
        assert keep < AFTER_ID or found == ID
    else:
        assert found.safe_to_resubmit or isinstance(found, SubmissionInDoubtError)
        assert status >= 300 or keep < AFTER_ID or status == 204  # which has no body
