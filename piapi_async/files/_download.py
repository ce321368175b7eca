"""One picture on its way in: an attempt that broke off is continued by the next, where the host can do that.

The rest is asked for with `Range` and, so that two versions are never mixed, with `If-Range`. What answers is believed
only as far as it fits: the range that was asked for, of a file of the same length and version. Anything else begins
anew. A host that lies in all of this is found out afterwards, when the picture is examined.
"""

import asyncio
import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import BinaryIO

import aiohttp
import attrs

from piapi_async import _media, _validators, errors
from piapi_async._asyncio import Clock
from piapi_async._client.transport import Download, Transport

_HEAD = 64  # leading bytes that are kept, to see what came
_PATIENCE = 2**16  # bytes of something that is no picture
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)", re.ASCII)
_DEAD = "a result link dies after 3 days"

NEW_SECONDS = 30.0
"""For how long after its task's end a picture may be missing: links are seen to work a few seconds after that."""

_clock = Clock()


class NotThereYetError(errors.OutputError):
    """A picture that was made seconds ago is missing, and may appear."""


@attrs.define
class Arrival:
    """What has come of a picture so far.

    Attributes:
        url: Where it comes from.

        file: Where it goes to.

        at_most: How many bytes are taken.

        ended_at: When its task was over, by the service's clock, if that is known.

        size: How many bytes have come.

        head: The first of them.

        is_pieced: Whether they came in more than one answer.

        seconds_moving: How long the attempts took in which some of it came.
    """

    url: str
    file: BinaryIO
    at_most: int
    ended_at: datetime | None = None
    size: int = 0
    head: bytes = b""
    is_pieced: bool = False
    seconds_moving: float = 0.0
    _total: int | None = None
    _version: str = ""

    async def receive(self, transport: Transport) -> None:
        """Make one attempt to get all of it, or the rest.

        Raises:
            OSError: The disk refuses.
            OutputError: What comes is no picture, too large, or gone.
            TransportError: It broke off; what has come is kept for the next attempt.
        """
        begun, had = _clock.monotonic(), self.size
        try:
            while not await self._attempt(transport):
                await self.clear()
        finally:
            if self.size > had:
                self.seconds_moving += _clock.monotonic() - begun

    async def clear(self) -> None:
        """Forget what has come."""
        await asyncio.to_thread(_rewind, self.file)
        self.size, self.head, self.is_pieced, self._total, self._version = 0, b"", False, None, ""

    async def add(self, piece: bytes) -> None:
        """Take some bytes. The errors are those of `receive`."""
        self.size += len(piece)
        self.head += piece[: _HEAD - len(self.head)]
        self._check_size(self.size)
        if self.size > _PATIENCE:
            self.media_type()
        await asyncio.to_thread(self.file.write, piece)

    def media_type(self) -> str:
        """What kind of picture it is, by its first bytes.

        Raises:
            OutputError: It is none.
        """
        media_type = _media.sniff(self.head)
        if media_type is None:
            raise errors.OutputError(
                f"{shown(self.url)} gave {self.size} bytes that are no picture ({_kind(self.head)}); {_DEAD}",
                url=self.url,
            )
        return media_type

    async def _attempt(self, transport: Transport) -> bool:
        """Whether the attempt was one; if not, the host cannot continue what has come."""
        rest = {"Range": f"bytes={self.size}-", "If-Range": self._version} if self.size and self._version else {}
        # Pictures are compressed already, and ranges count the bytes that travel.
        async with transport.download(self.url, headers={"Accept-Encoding": "identity", **rest}) as download:
            status = download.response.status
            if rest and (status == 416 or (status == 206 and not self._continues(download.response))):  # noqa: PLR2004
                return False
            if rest and status == 206:  # noqa: PLR2004 - Partial Content
                self.is_pieced = True
            else:
                await self._begin(download)
            while piece := await download.read():
                await self.add(piece)
        self._check_length()
        return True

    async def _begin(self, download: Download) -> None:
        self._check_status(download.response)
        if self.size:
            await self.clear()
        headers = download.response.headers
        if "Content-Encoding" not in headers:
            self._total = download.response.content_length
            self._check_size(self._total or 0)
            self._version = _version(headers.get("ETag", ""), headers.get("Last-Modified", ""))

    def _continues(self, response: aiohttp.ClientResponse) -> bool:
        """Whether an answer is the rest of what has come; if so, the length of the whole is known."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or "Content-Encoding" in response.headers:
            return False
        start, _, length = found.groups()
        total = self._total if length == "*" else int(length)
        version = response.headers.get("ETag" if self._version.startswith('"') else "Last-Modified", self._version)
        if int(start) != self.size or version != self._version or self._total not in (None, total):
            return False
        self._total = total
        return True

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in (429, 408) or status >= 500:  # noqa: PLR2004 - statuses that pass
            raise errors.TransportError(f"the result host answered {status} for {shown(self.url)}")
        if status in (403, 404) and self._is_new(response):
            raise NotThereYetError(
                f"{shown(self.url)} answered {status}, seconds after its task ended: fetch it again in a minute, as the"
                " task is done and paid for",
                url=self.url,
            )
        if status in (403, 404) and self.ended_at is None:
            raise errors.OutputError(
                f"{shown(self.url)} answered {status}; {_DEAD}, and may not work in the first seconds: fetch it again,"
                " or fetch info.images[0] instead of its URL, which waits for that",
                url=self.url,
            )
        if status != 200:  # noqa: PLR2004 - OK
            raise errors.OutputError(f"{shown(self.url)} answered {status}; {_DEAD}", url=self.url)

    def _is_new(self, response: aiohttp.ClientResponse) -> bool:
        """Whether the picture was made seconds ago. The host's clock tells, or ours where it does not tell the time."""
        if self.ended_at is None:
            return False
        try:
            now = parsedate_to_datetime(response.headers["Date"]).timestamp()
        except (KeyError, ValueError):
            now = _clock.now()
        return abs(now - self.ended_at.timestamp()) < NEW_SECONDS

    def _check_size(self, size: int) -> None:
        if size > self.at_most:
            raise errors.OutputError(f"{shown(self.url)} is larger than {self.at_most} bytes", url=self.url)

    def _check_length(self) -> None:
        if self._total is not None and self.size != self._total:
            raise errors.ConnectionLostError(f"{shown(self.url)} sent {self.size} of {self._total} bytes")


def _rewind(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _version(tag: str, date: str) -> str:
    """What names the version of a file well enough to continue it; empty for nothing."""
    if _STRONG_ETAG.fullmatch(tag):
        return tag
    return date if _HTTP_DATE.fullmatch(date) else ""


def _kind(head: bytes) -> str:
    """What it is instead, in a few words."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        return "nothing"
    if text.startswith(b"<"):
        return "a web page or XML"
    if text.startswith((b"{", b"[")):
        return "JSON"
    return f"beginning with {head[:16]!r}"


def shown(url: str) -> str:
    """A URL for a sentence, on which it must not take too much room."""
    return _validators.short(url)
