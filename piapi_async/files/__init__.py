"""Finished pictures out: fetched under a hidden name, examined, and renamed, so that a final name is always whole."""

import asyncio
import hashlib
import io
import mmap
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

import attrs

from piapi_async import _atomic, _media, _validators, errors, events
from piapi_async._asyncio import Clock, PerLoop
from piapi_async._client.transport import Transport
from piapi_async._images import integrity, pillow
from piapi_async.files import _sidecar
from piapi_async.files._download import Arrival, NotThereYetError, shown
from piapi_async.files._naming import Naming, safe_name
from piapi_async.picture import Picture
from piapi_async.task import Image, Submittable, TaskInfo

OUTPUT_MAX = 100 * 2**20
"""The largest finished picture that is taken, in bytes."""

PIXELS_MAX_OUT = 178_956_970
"""The most pixels that a finished picture may have: where Pillow, too, speaks of a decompression bomb."""

DECODED_MAX_OUT = 256 * 2**20
"""The most memory that checking one picture by decoding it may take, in bytes: a PNG or JPEG of 67 megapixels, a WebP
of 16. Flux makes one or two megapixels. Larger ones are checked without being decoded."""

EXAMINERS = 2
"""Pictures that are decoded at once, to be checked."""

RETRY_DOWNLOAD = (errors.TransportError, NotThereYetError)
"""After these a picture is asked for again."""

UNDER_WAY = 64
"""Pictures on their way to disk at once, also while they wait to be tried again: each has a file open."""


_clock = Clock()


@attrs.frozen(kw_only=True)
class Findings:
    """What the examination of a picture showed."""

    media_type: str
    size: int
    sha256: str
    width: int | None
    height: int | None


@attrs.frozen(kw_only=True)
class Kept:
    """A picture on disk."""

    image: Image
    path: Path
    findings: Findings


def is_directory(to: str | Path) -> bool:
    """Whether a user means a directory: one that exists, or a text that ends in a slash."""
    return Path(to).is_dir() or str(to).endswith(("/", os.sep))


def image_of(value: object, *, name: str) -> Image:
    """The picture that a user names: an `Image`, or its URL.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, str):
        return Image(value)
    if not isinstance(value, Image):
        allowed = "an Image or its URL, such as info.images[0]; session.save(info, directory) brings all of a task's"
        raise _validators.refuse(TypeError, name=name, allowed=allowed, value=value)
    return value


def name_of(image: Image) -> str:
    """A name for an image that has none, from its URL, without an ending."""
    if image.is_inline or not _validators.is_http_url(image.url):
        return safe_name(image.url)
    return safe_name(Path(unquote(urlsplit(image.url).path)).stem)


class Repeat(Protocol):
    """`Api.repeat`, for pictures."""

    def __call__(
        self, act: Callable[[], Coroutine[Any, Any, Findings]], /, *, excluded_time: Callable[[], float]
    ) -> Awaitable[Findings]:
        """Make attempts until one succeeds, or no more are to be made."""
        ...


class Downloads:
    """The way of finished pictures, from the result host to where they are wanted.

    Args:
        transport: The way to the result host.

        repeat: Makes attempts until one succeeds, or no more are to be made; `Api.repeat`, for `RETRY_DOWNLOAD`.

        announce: Takes an event for every picture on disk.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        repeat: Repeat,
        announce: events.Announcer,
    ) -> None:
        self._transport = transport
        self._repeat = repeat
        self._announce = announce
        self._examiners = PerLoop(lambda: asyncio.Semaphore(EXAMINERS))
        self._under_way = PerLoop(lambda: asyncio.Semaphore(UNDER_WAY))
        self._swept: set[Path] = set()

    async def to_memory(self, image: Image) -> Picture:
        """A picture's bytes, whole. The errors are those of `to_file`, but for the disk's."""
        file = io.BytesIO()
        findings = await self._arrive(image, file)
        return Picture(file.getvalue(), media_type=findings.media_type, url=image.url)

    async def to_file(self, image: Image, path: Path, *, overwrite: bool, suffix: bool) -> Kept:
        """Bring a finished picture to disk, whole or not at all.

        Args:
            image: What to fetch.

            path: Where to; its directory is made if missing.

            overwrite: Whether an existing file may be replaced.

            suffix: Whether to add the ending that the picture's content calls for.

        Raises:
            FileExistsError: The file exists and may not be replaced.
            OSError: The disk refuses.
            OutputError: What came is no picture, broken, too large, or gone.
            TransportError: The way to the result host broke.
        """
        await asyncio.to_thread(self._make, {path.parent}, _clock.now())
        if not (suffix or overwrite):
            _atomic.refuse_existing(path)
        return await self._keep(image, path, overwrite=overwrite, suffix=suffix)

    async def _keep(self, image: Image, path: Path, *, overwrite: bool, suffix: bool) -> Kept:
        async with self._under_way.get():
            with _atomic.naming(path), _atomic.temporary(path.parent) as (part, file):
                findings = await self._arrive(image, file)
                file.close()
                if suffix:
                    path = path.with_name(path.name + _media.MEDIA_TYPES[findings.media_type])
                await asyncio.to_thread(_atomic.publish, part, path, overwrite=overwrite)
        self._announce(events.Saved(image=image, path=str(path)))
        return Kept(image=image, path=path, findings=findings)

    async def of_task(
        self, info: TaskInfo, directory: Path, *, naming: Naming, sidecar: bool, request: Submittable | None
    ) -> tuple[Path, ...]:
        """Bring all pictures of a task to disk, all at once; the arguments and errors are those of `Session.save`."""
        asked = await asyncio.to_thread(_sidecar.asked, request) if sidecar and request is not None else None
        paths = [directory / path for path in naming.paths(info, count=len(info.images))]
        await asyncio.to_thread(self._make, {path.parent for path in paths}, _clock.now())
        may = {"overwrite": naming.tells_tasks_apart, "suffix": True}
        doing = [self._keep(image, path, **may) for image, path in zip(info.images, paths, strict=True)]
        ends = await asyncio.gather(*doing, return_exceptions=True)
        kept = [end for end in ends if isinstance(end, Kept)]
        for failure in ends:
            if isinstance(failure, BaseException):
                raise _with_saved(failure, kept, info=info)
        if sidecar:
            path = directory / naming.sidecar(info)
            try:
                await asyncio.to_thread(_write_sidecar, path, info, kept, asked)
            except OSError as error:
                _with_saved(error, kept, info=info)
                raise
        return tuple(one.path for one in kept)

    def _make(self, directories: AbstractSet[Path], now: float) -> None:
        for directory in directories:
            _atomic.make_directory(directory)
        for directory in directories - self._swept:  # once a session: a directory may hold a hundred thousand pictures
            self._swept.add(directory)
            _atomic.sweep(directory, now=now)

    async def _arrive(self, image: Image, file: BinaryIO) -> Findings:
        arrival = Arrival(image.url, file, OUTPUT_MAX, image.ended_at)
        if image.is_inline:
            await arrival.add(await asyncio.to_thread(_decoded, image.url))
            return await self._examine(arrival)
        if not _validators.is_http_url(image.url):
            raise errors.OutputError(f"the result's URL {shown(image.url)} is no http(s) URL", url=image.url)

        async def attempt() -> Findings:
            await arrival.receive(self._transport)
            try:
                return await self._examine(arrival)
            except errors.OutputError as error:
                if not arrival.is_pieced:
                    raise
                await arrival.clear()
                raise errors.TransportError(f"{error}; it came in pieces that do not fit") from error

        try:
            # While something comes there is no end: what counts as time is what passes in vain.
            return await self._repeat(attempt, excluded_time=lambda: arrival.seconds_moving)
        except NotThereYetError as error:
            raise errors.OutputError(str(error), url=image.url) from error

    async def _examine(self, arrival: Arrival) -> Findings:
        media_type = arrival.media_type()
        async with self._examiners.get():
            try:
                return await asyncio.to_thread(_findings, arrival.file, media_type)
            except ValueError as error:
                raise errors.OutputError(
                    f"{shown(arrival.url)} gave {arrival.size} bytes of a broken {media_type}: {error}", url=arrival.url
                ) from error.with_traceback(None)  # whose frames would keep the whole file alive


def _decoded(url: str) -> bytes:
    try:
        return _media.decode_data_uri(url)
    except ValueError as error:
        raise errors.OutputError(f"the picture inside the answer is broken: {error}", url=url) from error


def _findings(file: BinaryIO, media_type: str) -> Findings:
    data = _view(file)
    fault, size = integrity.fault(data, media_type=media_type), integrity.dimensions(data)
    if fault is not None:
        raise ValueError(fault)
    if size is None and media_type in integrity.MEASURED:
        raise ValueError("its header is broken")
    if size is not None and size[0] * size[1] > PIXELS_MAX_OUT:
        raise ValueError(f"it has {size[0]} x {size[1]} pixels, more than {PIXELS_MAX_OUT}")
    if media_type != "image/png":  # whose checksums say more than a decoder can
        pillow.verify(file, media_type=media_type, at_most=DECODED_MAX_OUT)
    width, height = size or (None, None)
    digest = hashlib.sha256(data).hexdigest()
    return Findings(media_type=media_type, size=len(data), sha256=digest, width=width, height=height)


def _view(file: BinaryIO) -> memoryview:
    """The bytes of a file, without a copy of them."""
    file.flush()
    if isinstance(file, io.BytesIO):
        return memoryview(file.getvalue())
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _with_saved(failure: BaseException, kept: Sequence[Kept], *, info: TaskInfo) -> BaseException:
    """A failure that tells what was saved all the same."""
    saved = tuple(one.path for one in kept)
    if isinstance(failure, errors.PiAPIError):
        failure.saved, failure.task_id = saved, info.task_id
    if saved:
        failure.add_note(f"saved all the same: {', '.join(map(str, saved))}")
    return failure


def _write_sidecar(path: Path, info: TaskInfo, kept: Sequence[Kept], asked: Mapping[str, Any] | None) -> None:
    content = _sidecar.record(info, entries=_entries(kept, beside=path), request=asked)
    _atomic.write(path, content, overwrite=True)


def _entries(kept: Sequence[Kept], *, beside: Path) -> list[_sidecar.Entry]:
    return [
        _sidecar.Entry(
            file=Path(os.path.relpath(one.path, beside.parent)).as_posix(),
            url=one.image.url,
            **attrs.asdict(one.findings),
        )
        for one in kept
    ]
