"""Scripted faults: the script by itself, and each fault as a client sees it."""

import contextlib
import email.utils
import re
from typing import Any

import aiohttp
import pytest
from support.rig import Api, img2img

from piapi_async.emulator import Faults, faults
from piapi_async.emulator._http.inject import _SPOILERS
from piapi_async.emulator.faults import ENDPOINTS, KINDS

STATUSES = ("500", "502", "503", "504", "522")


def names_in_the_docstring() -> set[str]:
    """First cells of the tables in the module's docstring."""
    cells = re.findall(r"^\| (`[^|]*)\|", faults.__doc__ or "", flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_documented_faults_are_those_that_exist() -> None:
    """The table in the docstring, the table of kinds and the table of functions name the same faults."""
    assert names_in_the_docstring() == set(KINDS)
    assert {name for name, kind in KINDS.items() if kind.when != "task"} == set(_SPOILERS)


def test_faults_are_used_up_in_order() -> None:
    """One per request, by endpoint; `times` repeats, nothing is left in the end."""
    script = Faults()
    script.next("get", "500", times=2)
    script.next("get", "html")
    script.next("create", "stall")
    taken = [script.take("get") for _ in range(4)]
    assert [fault and fault.name for fault in taken] == ["500", "500", "html", None]
    assert repr(script) == "<Faults next={'create': ['stall']}, spells=[]>"


def test_the_script_can_be_cleared() -> None:
    """What is left over does not reach the next part of a test."""
    script = Faults()
    script.next("get", "500", times=9)
    script.clear()
    assert script.take("get") is None


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("create", "explode"), {}, r"'explode' is no fault; there is cut-before-accept, .*task-fails"),
        (("get", "task-fails"), {}, r"'task-fails' is no fault; there is cut"),
        (("create", "oversized"), {}, r"'oversized' is no fault"),
        (("file", "500"), {}, r"'file' is no endpoint; there is create, get, cancel, result, upload"),
        (("get", "500"), {"seconds": 1}, r"'seconds' is no option of 500; there is none"),
        (("get", "429"), {"after": 1}, r"'after' is no option of 429; there is retry_after, seconds"),
        (("create", "task-fails"), {"where": "detail"}, r"'detail' is no where; there is error, logs"),
        (("get", "500"), {"times": 0}, r"times is 0, it must be 1 or more"),
        (("get", "slow-body"), {"seconds": "2"}, r"seconds is '2', it must be a number"),
    ],
)
def test_mistakes_in_a_script_name_what_would_be_right(
    arguments: tuple[str, str], options: dict[str, Any], message: str
) -> None:
    """An endpoint, a fault or an option that does not exist is a ValueError listing the ones that do."""
    with pytest.raises(ValueError, match=message):
        Faults().next(*arguments, **options)


BEFORE = ["cut-before-accept", *STATUSES, "429", "404", "redirect-away"]
AFTER = [
    "cut-after-accept",
    *(f"{status}-after-accept" for status in STATUSES),
    *("html", "empty", "garbled", "slow-headers", "slow-body", "truncated", "wrong-type", "clock-skew"),
]


@pytest.mark.parametrize(("name", "tasks"), [*((name, 0) for name in BEFORE), *((name, 1) for name in AFTER)])
async def test_a_fault_comes_before_or_after_the_task_is_made(api: Api, name: str, tasks: int) -> None:
    """What decides whether money is spent: the first group makes no task, the second makes exactly one."""
    api.emulator.faults.next("create", name)
    with contextlib.suppress(aiohttp.ClientError, ValueError):
        await api.send("POST", "/api/v1/task", json=img2img())
    assert len(api.emulator.tasks) == tasks
    record = api.emulator.requests[-1]
    assert (record.fault, record.task_id) == (name, next(iter(api.emulator.tasks), None))
    await api.create()
    assert len(api.emulator.tasks) == tasks + 1


@pytest.mark.parametrize("name", ["cut-before-accept", "cut-after-accept"])
async def test_a_cut_connection_gives_no_answer(api: Api, name: str) -> None:
    """The client learns nothing: not a status, not a byte."""
    api.emulator.faults.next("create", name)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await api.create()
    assert api.emulator.requests[-1].status is None


@pytest.mark.parametrize("suffix", ["", "-after-accept"])
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_server_errors_are_json_or_the_page_of_a_proxy(api: Api, endpoint: str, status: str, suffix: str) -> None:
    """4.9 (T): 502, 503, 504 and 522 come as HTML from Cloudflare, on any endpoint."""
    api.emulator.faults.next(endpoint, status + suffix)
    method, path = {
        "create": ("POST", "/api/v1/task"),
        "get": ("GET", "/api/v1/task/x"),
        "cancel": ("DELETE", "/api/v1/task/x"),
        "result": ("GET", "/temp/x.png"),
        "upload": ("POST", "/api/ephemeral_resource"),
        "account": ("GET", "/account/info"),
        "active-tasks": ("GET", "/account/active_tasks"),
        "history": ("GET", "/api/open/tasks/histories"),
    }[endpoint]
    reply = await api.send(method, path, json=img2img())
    assert reply.status == api.emulator.requests[-1].status == int(status)
    error = {"code": 500, "data": None, "message": "internal server error"}
    assert b"<html>" in reply.body if status != "500" else reply.json == error


@pytest.mark.parametrize(("retry_after", "header"), [(0.5, "0.5"), (12, "12"), (None, None)])
async def test_too_many_requests_may_say_when_to_come_back(api: Api, retry_after: Any, header: str | None) -> None:
    """4.9 (T): 429 with and without Retry-After."""
    api.emulator.faults.next("get", "429", retry_after=retry_after)
    reply = await api.send("GET", "/api/v1/task/x")
    assert reply.status == 429
    assert reply.json == {"code": 429, "data": None, "message": "rate limit exceeded"}
    assert reply.headers.get("Retry-After") == header


async def test_too_many_requests_may_give_a_date(api: Api) -> None:
    """RFC 9110 allows a date for Retry-After."""
    api.emulator.faults.next("get", "429", retry_after="date", seconds=5.0)
    reply = await api.send("GET", "/api/v1/task/x")
    assert reply.headers["Retry-After"].endswith(" GMT")
    then = email.utils.parsedate_to_datetime(reply.headers["Retry-After"])
    assert then.timestamp() == api.clock.now() + 5


async def test_a_task_may_not_be_visible_yet(api: Api) -> None:
    """A look right after the submit gives 404, the next one finds the task."""
    task_id = (await api.create())["task_id"]
    api.emulator.faults.next("get", "404")
    reply = await api.send("GET", f"/api/v1/task/{task_id}")
    assert reply.status == 404
    assert reply.json == {"code": 404, "data": None, "message": "task not found"}
    assert (await api.get(task_id))["status"] == "pending"


@pytest.mark.parametrize(("name", "body"), [("html", b"<!DOCTYPE html>"), ("empty", b"")])
async def test_an_answer_may_be_no_answer(api: Api, name: str, body: bytes) -> None:
    """200, and nothing that says which task it is."""
    api.emulator.faults.next("create", name)
    reply = await api.send("POST", "/api/v1/task", json=img2img())
    assert reply.status == 200
    assert reply.body.startswith(body)
    assert len(reply.body) < 200


async def test_garbled_json_does_not_parse(api: Api) -> None:
    """200, application/json, half an object."""
    api.emulator.faults.next("create", "garbled")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        await api.create()


async def test_garbled_answers_say_200_even_to_a_refusal(api: Api) -> None:
    """Nothing about the status gives a broken body away."""
    api.emulator.faults.next("get", "garbled")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        await api.get("unknown")
    assert api.emulator.requests[-1].status == 200
    api.emulator.faults.next("get", "garbled")
    async with api.http.get(api.emulator.url + "/api/v1/task/unknown") as response:
        assert response.status == 200


@pytest.mark.parametrize("name", ["slow-headers", "slow-body"])
async def test_a_slow_answer_is_right_in_the_end(api: Api, name: str) -> None:
    """The task is made first; the answer takes the seconds it was given and is whole."""
    api.emulator.faults.next("create", name, seconds=30.0)
    assert (await api.create())["status"] == "pending"
    assert api.clock.seconds == 30.0


async def test_a_truncated_answer_is_shorter_than_it_says(api: Api) -> None:
    """The connection ends before Content-Length is reached."""
    api.emulator.faults.next("create", "truncated")
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.create()


async def test_a_stalled_request_never_gets_an_answer(api: Api) -> None:
    """The task is there, the client waits until its own patience ends."""
    api.emulator.faults.next("create", "stall")
    with pytest.raises(TimeoutError):
        await api.send("POST", "/api/v1/task", json=img2img(), timeout=aiohttp.ClientTimeout(total=0.05))
    assert len(api.emulator.tasks) == 1
    assert api.emulator.requests[-1].status is None


async def test_a_stalled_task_never_ends(api: Api) -> None:
    """`task-stalls` answers well, and then leaves the task in processing for ever."""
    api.emulator.faults.next("create", "task-stalls")
    assert (await api.finished())["status"] == "processing"
    assert api.emulator.charges == ()
    assert api.emulator.requests[0].fault == "task-stalls"


async def test_the_code_of_a_failure_can_be_chosen(api: Api) -> None:
    """4.8: error codes other than 10000 exist."""
    api.emulator.faults.next("create", "task-fails", code=10001, reason="too many requests")
    error = (await api.finished())["error"]
    assert (error["code"], error["message"]) == (10001, "too many requests")


async def result_link(api: Api) -> str:
    """The link of a finished picture."""
    link: str = (await api.finished())["output"]["image_url"]
    return link


async def test_a_picture_may_come_under_another_type(api: Api) -> None:
    """The bytes are right, Content-Type is not."""
    link = await result_link(api)
    api.emulator.faults.next("result", "wrong-type", content_type="text/html")
    reply = await api.send("GET", link)
    assert reply.headers["Content-Type"].startswith("text/html")
    assert reply.body.startswith(b"\x89PNG")


@pytest.mark.parametrize(("to", "location"), [(None, None), ("http://elsewhere.test/x", "http://elsewhere.test/x")])
async def test_a_picture_may_be_somewhere_else(api: Api, to: str | None, location: str | None) -> None:
    """302 to another place, by default to the same file, which is then served."""
    link = await result_link(api)
    api.emulator.faults.next("result", "redirect", to=to)
    reply = await api.send("GET", link)
    assert (reply.status, api.emulator.requests[-1].status) == (302, 302)
    assert reply.headers["Location"] == location or link.endswith(reply.headers["Location"])
    assert (await api.send("GET", link)).status == 200


@pytest.mark.parametrize("to", [None, "http://elsewhere.test/x"])
@pytest.mark.parametrize("endpoint", ["create", "result"])
async def test_any_request_may_be_sent_to_another_host(api: Api, endpoint: str, to: str | None) -> None:
    """307 to another name of this machine, or to the URL that was given; nothing was done."""
    api.emulator.faults.next(endpoint, "redirect-away", to=to)
    method, path = {"create": ("POST", "/api/v1/task"), "result": ("GET", "/temp/x.png")}[endpoint]
    reply = await api.send(method, path, json=img2img())
    elsewhere = api.emulator.url.replace("127.0.0.1", "localhost") + path
    assert (reply.status, api.emulator.requests[-1].status) == (307, 307)
    assert reply.headers["Location"] == (to or elsewhere)


async def test_the_other_host_is_this_machine_and_sends_back(api: Api) -> None:
    """A client that follows arrives, under the other name; from there it is sent back under the first."""
    api.emulator.faults.next("get", "redirect-away", times=2)
    async with api.http.get(api.emulator.url + "/api/v1/task/x") as response:
        assert (response.url.host, len(response.history)) == ("127.0.0.1", 2)
    assert [record.host.partition(":")[0] for record in api.emulator.requests] == [
        "127.0.0.1",
        "localhost",
        "127.0.0.1",
    ]


@pytest.mark.parametrize(
    ("answer", "status", "body"), [("404", 404, b"404"), ("html", 200, b"<!"), ("empty", 200, b"")]
)
async def test_a_link_may_be_too_old(api: Api, answer: str, status: int, body: bytes) -> None:
    """8.12: 404, an HTML page or nothing; a second later the picture may be there."""
    link = await result_link(api)
    api.emulator.faults.next("result", "expired", answer=answer)
    reply = await api.send("GET", link)
    assert (reply.status, api.emulator.requests[-1].status) == (status, status)
    assert reply.body.startswith(body)
    assert not reply.body.startswith(b"\x89PNG")


async def test_the_server_may_live_at_another_time(api: Api) -> None:
    """The Date header and the times of a task are ahead, or behind; what has no time yet has none."""
    task_id = (await api.create())["task_id"]
    api.clock.seconds = 5.0
    right = (await api.get(task_id))["meta"]
    api.emulator.faults.next("get", "clock-skew", seconds=-86400.0)
    reply = await api.send("GET", f"/api/v1/task/{task_id}")
    meta = reply.json["data"]["meta"]
    assert meta["created_at"] == right["created_at"].replace("-25T", "-24T")
    assert meta["started_at"] == right["started_at"].replace("-25T", "-24T")
    assert meta["ended_at"] == right["ended_at"] == "0001-01-01T00:00:00Z"
    assert email.utils.parsedate_to_datetime(reply.headers["Date"]).timestamp() == api.clock.now() - 86400


async def test_a_picture_has_no_times_but_comes_with_a_date(api: Api) -> None:
    """Clock skew leaves the bytes of a picture alone."""
    link = await result_link(api)
    api.emulator.faults.next("result", "clock-skew")
    reply = await api.send("GET", link)
    assert reply.body == (await api.send("GET", link)).body
    assert email.utils.parsedate_to_datetime(reply.headers["Date"]).timestamp() == api.clock.now() + 3600


async def test_a_picture_may_be_too_large(api: Api) -> None:
    """It goes on behind its end, up to the size that was asked for."""
    link = await result_link(api)
    api.emulator.faults.next("result", "oversized", size=200_001)
    reply = await api.send("GET", link)
    assert reply.body.startswith(b"\x89PNG")
    assert len(reply.body) == int(reply.headers["Content-Length"]) == 200_001


async def test_a_file_may_be_gone(api: Api) -> None:
    """404 on a result is the plain one."""
    api.emulator.faults.next("result", "404")
    reply = await api.send("GET", await result_link(api))
    assert (reply.status, reply.body) == (404, b"404 page not found\n")
