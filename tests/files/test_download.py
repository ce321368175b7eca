"""Downloads that break off: the rest is fetched where the host can do that, and two files are never mixed."""

import asyncio
import io
import random
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.abc
import attrs
import pytest
from PIL import Image as PillowImage
from support.raw_server import PNG, RawServer, Received, answer, stall

from piapi_async import Image, Img2Img, Picture, RetryPolicy, Session, events, files
from piapi_async._asyncio import Clock
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import ConnectionLostError, OutputError, RequestTimeoutError, TransportError
from piapi_async.testing import EventLog


def noise(kind: str = "PNG", *, seed: int = 0, side: int = 300) -> bytes:
    """A picture that cannot be compressed."""
    buffer = io.BytesIO()
    pixels = random.Random(seed).randbytes(side * side * 3)
    PillowImage.frombytes("RGB", (side, side), pixels).save(buffer, kind)
    return buffer.getvalue()


NOISE = noise()
STRONG = {"ETag": '"v1"'}
DATED = {"Last-Modified": "Tue, 24 Nov 2026 14:25:30 GMT"}


@attrs.define
class Host:
    """A host that cuts its answers after so many bytes, the last number staying, and counts what it sent.

    Attributes:
        data: The file.

        cuts: After how many bytes each answer ends; `None` for no cut.

        headers: What it says of the file.

        ranged: What it puts in a 206, by name, in place of what is right; `None` leaves a header out.

        sent: How many bytes of body each answer had.
    """

    data: bytes
    cuts: list[int | None]
    headers: Mapping[str, str] = STRONG
    ranged: Mapping[str, str | None] = attrs.Factory(dict)
    serves_ranges: bool = True
    status: int = 206
    rest: bytes | None = None
    sent: list[int] = attrs.Factory(list)
    _answered: asyncio.Condition = attrs.Factory(asyncio.Condition)

    async def reached(self, number: int) -> None:
        """Wait until so many answers were sent."""
        async with self._answered:
            await self._answered.wait_for(lambda: len(self.sent) >= number)

    async def __call__(self, received: Received, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        asked = dict(received.headers)
        start = int(asked.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        is_same = asked.get("If-Range") in self.headers.values()
        body = self.data
        fields: dict[str, str | None] = {**self.headers, "Connection": "close"}
        status = 200
        if start and is_same and self.serves_ranges:
            status, body = self.status, self.data[start:] if self.rest is None else self.rest
            fields["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
            fields |= self.ranged
        cut = self.cuts.pop(0) if len(self.cuts) > 1 else self.cuts[0]
        given = {name: value for name, value in fields.items() if value is not None}
        whole = answer(body, status=status, headers=given)
        self.sent.append(len(body) if cut is None else cut)
        writer.write(whole if cut is None else whole[: len(whole) - len(body) + cut])
        await writer.drain()
        async with self._answered:
            self._answered.notify_all()
        await asyncio.sleep(1)  # what was sent is read before the cut is noticed
        writer.close()


async def fetched(host: Any, directory: Path, **options: Any) -> tuple[bytes, list[Received]]:
    """What is on disk after a download, and what the host was asked."""
    async with RawServer(host) as server, Session("k", base_url=server.url, **options) as session:
        path = await session.download(f"{server.url}/a", directory)
        assert list(directory.iterdir()) == [path]
        return path.read_bytes(), server.received


def ranges(received: list[Received]) -> list[str | None]:
    """The ranges that were asked for."""
    return [dict(one.headers).get("Range") for one in received]


@pytest.mark.parametrize("headers", [STRONG, DATED, STRONG | DATED])
async def test_only_the_rest_is_fetched(tmp_path: Path, headers: dict[str, str]) -> None:
    """A download that broke off twice is continued twice: in all the host sends the file once, and not a byte more."""
    host = Host(NOISE, [100_000, 50_000, None], headers)
    data, received = await fetched(host, tmp_path)
    assert data == NOISE
    assert host.sent == [100_000, 50_000, len(NOISE) - 150_000]
    assert ranges(received) == [None, "bytes=100000-", "bytes=150000-"]
    assert {dict(one.headers).get("If-Range") for one in received[1:]} == {headers.get("ETag", DATED["Last-Modified"])}
    assert {dict(one.headers)["Accept-Encoding"] for one in received} == {"identity"}


async def test_rest_is_fetched_into_memory_too() -> None:
    """`fetch` continues as `download` does, and observers are told of the attempts."""
    host, log = Host(NOISE, [100_000, None]), EventLog()
    async with RawServer(host) as server, Session("k", base_url=server.url, observers=[log]) as session:
        picture = await session.fetch(f"{server.url}/a")
    assert picture.data == NOISE
    assert sum(host.sent) == len(NOISE)
    assert [event.action for event in log.of(events.Retrying)] == ["download"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": 'W/"v1"'},
        {"ETag": "v1"},
        {"ETag": '"' + "x" * 300 + '"'},
        {"Last-Modified": "yesterday"},
        STRONG | {"Content-Encoding": "identity"},
    ],
)
async def test_without_a_version_it_begins_anew(tmp_path: Path, headers: dict[str, str]) -> None:
    """What cannot be named well enough is not continued: the next attempt asks for the whole."""
    host = Host(NOISE, [100_000, None], headers)
    data, received = await fetched(host, tmp_path)
    assert data == NOISE
    assert ranges(received) == [None, None]


async def test_host_without_ranges_begins_anew(tmp_path: Path) -> None:
    """A 200 to the request for the rest, as of a file that changed meanwhile, is taken for the whole that it is."""
    host = Host(NOISE, [100_000, None], serves_ranges=False)
    data, received = await fetched(host, tmp_path)
    assert data == NOISE
    assert ranges(received) == [None, "bytes=100000-"]
    assert host.sent == [100_000, len(NOISE)]


@pytest.mark.parametrize(
    ("status", "ranged"),
    [
        (416, {}),
        (206, {"Content-Range": None}),
        (206, {"Content-Range": "bytes 0-99/100"}),
        (206, {"Content-Range": f"bytes 100001-{len(NOISE) - 1}/{len(NOISE)}"}),
        (206, {"Content-Range": f"bytes 100000-{len(NOISE)}/{len(NOISE) + 1}"}),
        (206, {"Content-Range": "seconds 100000-2/3"}),
        (206, {"ETag": '"v2"'}),
        (206, {"Content-Encoding": "identity"}),
    ],
)
async def test_rest_that_does_not_fit_begins_anew(tmp_path: Path, status: int, ranged: dict[str, str | None]) -> None:
    """A 416, another range, another length or another version: the whole is asked for at once, without a range."""
    host = Host(NOISE, [100_000, None], ranged=ranged, status=status)
    data, received = await fetched(host, tmp_path)
    assert data == NOISE
    assert ranges(received) == [None, "bytes=100000-", None]


async def test_rest_without_a_length_is_taken(tmp_path: Path) -> None:
    """A 206 that does not tell the length of the whole fits, if the range and the length then do."""
    host = Host(NOISE, [100_000, None], ranged={"Content-Range": f"bytes 100000-{len(NOISE) - 1}/*"})
    assert (await fetched(host, tmp_path))[0] == NOISE
    assert sum(host.sent) == len(NOISE)


async def test_length_told_with_the_rest_is_kept_to(tmp_path: Path) -> None:
    """A host that told no length at first, and then gives less than the rest it names, is asked for what is missing."""
    rest = Host(NOISE, [None], rest=NOISE[100_000:150_000])

    async def chunked(_received: Received, writer: asyncio.StreamWriter) -> None:
        head = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nTransfer-Encoding: chunked\r\n\r\n'
        writer.write(head + b"%x\r\n" % len(NOISE) + NOISE[:100_000])
        await writer.drain()
        await asyncio.sleep(1)
        writer.close()

    async with RawServer(chunked, rest, Host(NOISE, [None])) as server, Session("k", base_url=server.url) as session:
        path = await session.download(f"{server.url}/a", tmp_path)
    assert path.read_bytes() == NOISE
    assert ranges(server.received) == [None, "bytes=100000-", "bytes=150000-"]


async def test_smaller_file_leaves_nothing_of_the_larger(tmp_path: Path) -> None:
    """Where the file has become a smaller one amid a download, nothing of the larger one is left behind it."""
    async with RawServer(Host(NOISE, [100_000]), answer(PNG)) as server, Session("k", base_url=server.url) as session:
        path = await session.download(f"{server.url}/a", tmp_path)
        server.replies = [Host(NOISE, [100_000]), answer(PNG)]
        assert (await session.fetch(f"{server.url}/a")).data == PNG
    assert path.read_bytes() == PNG


async def test_short_rest_is_continued(tmp_path: Path) -> None:
    """A host that gives out less than the rest is asked for what then is missing."""
    host = Host(NOISE, [100_000, None], rest=NOISE[100_000:150_000])
    async with RawServer(host) as server, Session("k", base_url=server.url) as session:
        doing = asyncio.ensure_future(session.download(f"{server.url}/a", tmp_path))
        await host.reached(2)
        host.rest = None
        path = await doing
    assert path.read_bytes() == NOISE
    assert ranges(server.received) == [None, "bytes=100000-", "bytes=150000-"]


async def test_host_that_lies_about_ranges_gives_no_mixed_file(tmp_path: Path) -> None:
    """The rest of another picture, of the right length and under the right name, is found out and begun anew."""
    host = Host(NOISE, [100_000, None], rest=noise(seed=1)[100_000 - len(NOISE) :])
    data, received = await fetched(host, tmp_path)
    assert data == NOISE
    assert ranges(received) == [None, "bytes=100000-", None]


@pytest.mark.parametrize("length", [-1, 1])
async def test_rest_of_a_wrong_length_is_never_kept(tmp_path: Path, length: int) -> None:
    """However often a host sends too little or too much as the rest: an error, and nothing on disk."""
    host = Host(NOISE, [100_000, None], rest=(NOISE[100_000:] + b"x")[: len(NOISE) - 100_000 + length])
    with pytest.raises(ConnectionLostError, match=f"sent {len(NOISE) + length} of {len(NOISE)} bytes"):
        await fetched(host, tmp_path, retry=RetryPolicy(attempts=2))
    assert list(tmp_path.iterdir()) == []


async def test_pieces_that_never_fit_are_an_error(tmp_path: Path) -> None:
    """A mixture at the last attempt is no file but an error that says what is wrong."""
    host = Host(NOISE, [100_000, None], rest=bytes(len(NOISE) - 100_000))
    with pytest.raises(TransportError, match=r"broken image/png: .*; it came in pieces that do not fit"):
        await fetched(host, tmp_path, retry=RetryPolicy(attempts=2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 410, 503])
async def test_error_instead_of_the_rest_is_an_error(tmp_path: Path, status: int) -> None:
    """A link that dies amid a download is told as dead; a host that fails in passing is asked for the rest again."""
    host = Host(NOISE, [100_000, None], status=status)
    with pytest.raises(OutputError if status < 500 else TransportError, match=f"answered {status}"):
        await fetched(host, tmp_path, retry=RetryPolicy(attempts=2))
    assert list(tmp_path.iterdir()) == []


async def test_bound_counts_the_whole(tmp_path: Path) -> None:
    """A picture in pieces is held to the same size: a rest that leads beyond it is broken off."""
    megabyte = 2**20

    async def endless(received: Received, writer: asyncio.StreamWriter) -> None:
        start = re.search(rb"Range: bytes=(\d+)-", received.head)
        head = b'HTTP/1.1 200 OK\r\nETag: "v"\r\nConnection: close\r\n'
        if start:
            head = head.replace(b"200 OK", b"206 Partial") + b"Content-Range: bytes %s-9/*\r\n" % start[1]
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(70):
            piece = bytes(megabyte) if start or number else NOISE + bytes(megabyte - len(NOISE))
            writer.write(b"100000\r\n" + piece + b"\r\n")
            await writer.drain()
        await asyncio.sleep(1)
        writer.close()

    with pytest.raises(OutputError, match=f"is larger than {files.OUTPUT_MAX} bytes"):
        await fetched(endless, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_announced_size_is_enough_to_refuse(tmp_path: Path) -> None:
    """A length beyond the bound is refused before anything of it is fetched."""
    head = answer(headers={"Content-Length": str(files.OUTPUT_MAX + 1)})
    with pytest.raises(OutputError, match="is larger than"):
        await fetched(head, tmp_path)


async def test_long_page_is_not_read_to_its_end(tmp_path: Path) -> None:
    """What is seen to be no picture after 64 KiB is not read on."""
    page = answer(b"<html>" + bytes(90 * 2**20))
    with pytest.raises(OutputError, match=r"gave \d{5,6} bytes that are no picture \(a web page or XML\)"):
        await fetched(page, tmp_path)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "nothing"),
        (b" <!DOCTYPE html>", "a web page or XML"),
        (b"\xef\xbb\xbf<Error>", "a web page or XML"),
        (b'{"error": 1}', "JSON"),
        (b"[]", "JSON"),
        (b"gone", "beginning with b'gone'"),
    ],
)
async def test_what_came_instead_is_told(tmp_path: Path, body: bytes, what: str) -> None:
    """With status 200 and no picture the error says what it was, and that links die."""
    words = f"gave {len(body)} bytes that are no picture ({what}); a result link dies after 3 days"
    with pytest.raises(OutputError, match=re.escape(words)):
        await fetched(answer(body), tmp_path)


async def test_cancel_amid_the_rest_leaves_nothing(tmp_path: Path) -> None:
    """Cancelled in its second attempt, a download leaves no part behind."""
    host = Host(NOISE, [100_000, 50_000])
    async with RawServer(host) as server, Session("k", base_url=server.url) as session:
        doing = asyncio.ensure_future(session.download(f"{server.url}/a", tmp_path))
        await host.reached(2)
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        doing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doing
    assert list(tmp_path.iterdir()) == []


# Slow lines.


def dripping(data: bytes, *, pause: float, pieces: int = 24) -> Any:
    """These bytes in so many pieces, with a pause after each, from wherever a request for the rest begins."""

    async def step(received: Received, writer: asyncio.StreamWriter) -> None:
        start = int(dict(received.headers).get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        more = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        head = answer(
            status=206 if start else 200, headers={**STRONG, **more, "Content-Length": str(len(data) - start)}
        )
        writer.write(head)
        for place in range(start, len(data), len(data) // pieces):
            writer.write(data[place : place + len(data) // pieces])
            await writer.drain()
            await asyncio.sleep(pause)

    return step


@pytest.mark.parametrize(
    "timeout",
    [
        aiohttp.ClientTimeout(total=120, sock_connect=10, sock_read=45),
        aiohttp.ClientTimeout(total=45),
        aiohttp.ClientTimeout(total=None, sock_read=45),
    ],
)
async def test_slow_line_gets_its_picture(tmp_path: Path, timeout: aiohttp.ClientTimeout) -> None:
    """While something comes there is no end: twelve minutes of one download are no reason to break it off."""
    data, received = await fetched(dripping(NOISE, pause=30.0), tmp_path, timeout=timeout)
    assert data == NOISE
    assert len(received) == 1


@pytest.mark.parametrize("timeout", [aiohttp.ClientTimeout(total=120, sock_read=5), aiohttp.ClientTimeout(total=5)])
async def test_silence_ends_a_download(tmp_path: Path, timeout: aiohttp.ClientTimeout) -> None:
    """What is silent for longer than it may be is broken off, and asked for again from where it stopped."""
    host = dripping(NOISE, pause=10.0, pieces=3)
    data, received = await fetched(host, tmp_path, timeout=timeout)
    assert data == NOISE
    assert ranges(received) == [
        None,
        f"bytes={len(NOISE) // 3}-",
        f"bytes={len(NOISE) // 3 * 2}-",
        *ranges(received)[3:],
    ]


async def test_time_in_which_something_came_does_not_count(tmp_path: Path) -> None:
    """A download that breaks off after ten minutes is continued, although the retry policy allows for one."""

    async def first(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(headers={**STRONG, "Content-Length": str(len(NOISE))}))
        for place in range(0, 120_000, 6000):
            writer.write(NOISE[place : place + 6000])
            await writer.drain()
            await asyncio.sleep(30)
        writer.close()

    async with RawServer(first, Host(NOISE, [None])) as server, Session("k", base_url=server.url) as session:
        path = await session.download(f"{server.url}/a", tmp_path)
    assert path.read_bytes() == NOISE
    assert ranges(server.received) == [None, "bytes=120000-"]


async def test_host_that_says_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    """Attempts in which nothing comes do count: the retry policy ends them as before."""
    begun = asyncio.get_running_loop().time()
    with pytest.raises(RequestTimeoutError, match="in time"):
        await fetched(stall, tmp_path, timeout=aiohttp.ClientTimeout(total=40), retry=RetryPolicy(attempts=99))
    assert asyncio.get_running_loop().time() - begun < 130


# Links to the letter.

LETTERS = [
    "/a.png?X-Amz-Credential=AK%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature=ab%2Bcd%3D",
    "/temp%7Ex.png?Signature=qZ0%2B1%2Fa%3D",
    "/a%28b%29%27.png?k=%3A%40%21",
    "/a%2fb/../c.png?u=http%3a%2f%2fx%2Fy%3Fa%3D1&e=",
    "/a.png?a[]=1&b=~!$'()*,;:@/?+&c=%E2%82%AC",
]


@pytest.mark.parametrize("path", LETTERS)
async def test_valid_link_travels_to_the_letter(path: str) -> None:
    """A link may be signed over its exact spelling: nothing is quoted, unquoted or shortened in it."""
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        assert (await session.fetch(f"{server.url}{path}")).data == PNG
    assert [one.line for one in server.received] == [f"GET {path}"]


@pytest.mark.parametrize("path", LETTERS)
@pytest.mark.parametrize("is_absolute", [False, True])
async def test_target_of_a_redirect_travels_to_the_letter(path: str, *, is_absolute: bool) -> None:
    """So does where a result has moved to, on the same host or another."""
    async with RawServer(answer(PNG)) as other:
        to = f"{other.url}{path}" if is_absolute else path.replace("/..", "")
        moved = answer(status=302, headers={"Location": to})
        async with RawServer(moved, answer(PNG)) as server, Session("k", base_url=server.url) as session:
            assert (await session.fetch(f"{server.url}/a")).data == PNG
        asked = other.received if is_absolute else server.received[1:]
    assert [one.line for one in asked] == [f"GET {to.removeprefix(other.url)}"]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/b\u00e4r.png", "/b%C3%A4r.png"),
        ("/a.png?q=100%&r=%2", "/a.png?q=100%25&r=%252"),
        ('/a.png?q="x"|{y}', "/a.png?q=%22x%22%7C%7By%7D"),
        ('/a.png?sig=a%2fb%7e~+%20&k="', "/a.png?sig=a%2fb%7e~+%20&k=%22"),
    ],
)
async def test_what_is_not_a_valid_link_is_quoted(path: str, sent: str) -> None:
    """Only what no URL may hold is quoted; the rest of such a link, its signature perhaps, stays as it is."""
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        assert (await session.fetch(f"{server.url}{path}")).data == PNG
    assert [one.line for one in server.received] == [f"GET {sent}"]


async def test_five_redirects_are_followed() -> None:
    """A result may move five times, and not a sixth."""
    moved = answer(status=307, headers={"Location": "/next"})
    retry = RetryPolicy(attempts=1)
    async with (
        RawServer(*[moved] * 5, answer(PNG)) as server,
        Session("k", base_url=server.url, retry=retry) as session,
    ):
        assert (await session.fetch(f"{server.url}/a")).data == PNG
        assert len(server.received) == 6
        server.replies = [moved]
        with pytest.raises(TransportError, match="redirects more than 5 times"):
            await session.fetch(f"{server.url}/a")
        assert len(server.received) == 12
        server.replies = [answer(status=302)]
        with pytest.raises(OutputError, match="answered 302"):
            await session.fetch(f"{server.url}/a")


# Pictures that are seconds old.

ENDED = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def image_of(server: RawServer, *, ended_at: datetime | None = ENDED) -> Image:
    """A picture whose task ended then."""
    return Image(f"{server.url}/a.png", ended_at=ended_at)


def dated(status: int, *, after: float) -> bytes:
    """A refusal, so many seconds after the task ended by the host's clock."""
    return answer(
        b"<Error/>", status=status, headers={"Date": format_datetime(ENDED + timedelta(seconds=after), usegmt=True)}
    )


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("after", [-3, 0, 5, 29])
async def test_picture_that_is_seconds_old_is_waited_for(status: int, after: float) -> None:
    """A link that does not work yet, seconds after its task ended, is tried again, by the host's clock."""
    log = EventLog()
    async with RawServer(dated(status, after=after), answer(PNG)) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            assert (await session.fetch(image_of(server))).data == PNG
    assert len(server.received) == 2
    assert [event.action for event in log.of(events.Retrying)] == ["download"]


@pytest.mark.parametrize(
    ("reply", "ended_at"),
    [
        (dated(404, after=31), ENDED),
        (dated(403, after=3 * 24 * 3600), ENDED),
        (dated(404, after=-60), ENDED),
        (dated(410, after=1), ENDED),
        (dated(404, after=1), None),
        (answer(status=404), ENDED),
        (answer(status=404, headers={"Date": "yesterday"}), ENDED),
    ],
)
async def test_expired_link_fails_at_once(reply: bytes, ended_at: datetime | None) -> None:
    """A link that is older, or of which nobody knows how old it is, is asked for once."""
    async with RawServer(reply) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(OutputError, match=r"answered 4\d\d; a result link dies after 3 days"):
            await session.fetch(image_of(server, ended_at=ended_at))
        assert len(server.received) == 1


async def test_our_clock_tells_where_the_host_does_not() -> None:
    """A host that does not tell the time is measured by the clock here."""
    now = datetime.fromtimestamp(Clock().now(), tz=UTC)
    async with RawServer(answer(status=404), answer(PNG)) as server, Session("k", base_url=server.url) as session:
        assert (await session.fetch(image_of(server, ended_at=now))).data == PNG
        server.replies = [answer(status=404)]
        with pytest.raises(OutputError, match="a result link dies"):
            await session.fetch(image_of(server, ended_at=now - timedelta(seconds=40)))


async def test_picture_that_never_appears_is_an_output_error() -> None:
    """A link that goes on being refused is given up by the retry policy, with the error of any dead link."""
    async with RawServer(dated(404, after=1)) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(
            OutputError, match="answered 404, seconds after its task ended: fetch it again in a minute"
        ) as caught:
            await session.fetch(image_of(server))
        assert type(caught.value) is OutputError
        assert caught.value.url == f"{server.url}/a.png"
        assert len(server.received) == RetryPolicy().attempts


async def test_fresh_result_of_the_emulator_is_waited_for(tmp_path: Path) -> None:
    """What a task tells of its end goes with its pictures, so that `save` waits for them."""
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(0.0), max_pixels=100) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            info = await session.run(Img2Img(prompt="p", image="https://example.com/a.jpg"))
            assert info.images[0].ended_at == info.ended_at is not None
            server.faults.next("result", "expired", answer="404")
            (path,) = await session.save(info, tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")


class Resolver(aiohttp.abc.AbstractResolver):
    """A name server that does not know a name at first."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        """Where the name leads to, from the third time on."""
        self.asked += 1
        if self.asked < 3:
            raise OSError(socket.EAI_AGAIN, "Temporary failure in name resolution")
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        return [found]

    async def close(self) -> None:
        """Nothing to close."""


async def test_name_that_is_not_known_yet_is_asked_for_again() -> None:
    """The host of a result may appear in the name servers seconds after the result."""
    resolver = Resolver()
    async with RawServer(answer(PNG)) as server:
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector) as http, Session("k", http=http) as session:
            picture = await session.fetch(f"http://img.example.com:{server.url.rpartition(':')[2]}/a.png")
    assert picture.data == PNG
    assert resolver.asked == 3


# Pictures whose pixels are whole, and what is beside them is not.


def part(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "notes",
    [
        part(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)),
        part(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)),
        part(b"iCCP", b"odd\0\0no profile"),
        part(b"tEXt", b"a\0b")[:-1] + b"?",
        part(b"pHYs", b"short"),
    ],
)
async def test_notes_in_a_png_are_no_reason_to_lose_it(tmp_path: Path, notes: bytes) -> None:
    """A paid PNG is kept whatever its texts and profiles are, and can be shown with Pillow."""
    data = PNG[:33] + notes + PNG[33:]
    assert (await fetched(answer(data), tmp_path))[0] == data
    if notes[4:8] == b"zTXt":
        assert Picture(data).to_pil().size == (1, 1)


async def test_png_is_kept_as_the_service_made_it(tmp_path: Path) -> None:
    """A PNG that came to the byte is kept, also where a decoder would ask for more pixels than there are in it."""
    data = PNG[:33] + part(b"IDAT", zlib.compress(b"\0")) + PNG[-12:]
    assert (await fetched(answer(data), tmp_path))[0] == data


@pytest.fixture
def bomb() -> bytes:
    """A WebP of a few bytes and 178 megapixels, of one colour."""
    small = io.BytesIO()
    PillowImage.new("RGB", (1, 1)).save(small, "WEBP", lossless=True)
    head, _, rest = small.getvalue().partition(b"VP8L")
    bits = int.from_bytes(rest[5:9], "little") >> 28 << 28 | 10_899 << 14 | 16_382
    return head + b"VP8L" + rest[:5] + bits.to_bytes(4, "little") + rest[9:]


async def test_costly_picture_is_kept_without_being_decoded(tmp_path: Path, bomb: bytes) -> None:
    """What would take gigabytes to decode, and is whole, is not lost over that."""
    assert (await fetched(answer(bomb), tmp_path))[0] == bomb


def test_checking_a_picture_takes_little_memory(tmp_path: Path, bomb: bytes) -> None:
    """Examining it costs a fresh process next to nothing, where decoding it takes almost three gigabytes."""
    (tmp_path / "bomb").write_bytes(bomb)
    code = """
import resource, sys
from piapi_async import files
from piapi_async._images import pillow
pillow.load()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(files._findings(open(sys.argv[1], "rb"), "image/webp").width)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "bomb")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["16383", "True"]


@pytest.mark.parametrize("size", [(20_000, 20_000), (13_378, 13_378)])
async def test_picture_of_too_many_pixels_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """More pixels than a picture may have are refused by its header."""
    data = PNG[:16] + struct.pack(">II", *size) + PNG[24:29]
    data += struct.pack(">I", zlib.crc32(data[12:29])) + PNG[33:]
    with pytest.raises(OutputError, match=f"it has {size[0]} x {size[1]} pixels, more than {files.PIXELS_MAX_OUT}"):
        await fetched(answer(data), tmp_path)


async def test_picture_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    """A WebP that is as long as it says, and has no picture in it, is not kept."""
    with pytest.raises(OutputError, match="its header is broken"):
        await fetched(answer(b"RIFF\x1c\0\0\0WEBPVP8 " + bytes(24)), tmp_path)
