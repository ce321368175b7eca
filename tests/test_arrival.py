"""Downloads that break off: the rest is fetched where the host can do that, and two files are never mixed."""

import asyncio
import io
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image as PillowImage
from raw_server import PNG, RawServer, Received, answer

from piapi_async import RetryPolicy, Session, events, files
from piapi_async.errors import ConnectionLostError, OutputError, TransportError
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
