"""Local files as links: uploaded once a day, whoever of a session needs them."""

import asyncio
import hashlib
from collections import OrderedDict
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakValueDictionary

from piapi_async import _media, _validators
from piapi_async._asyncio import PerLoop
from piapi_async._client.api import Api
from piapi_async._images import sources

FILE_MAX = 10 * 2**20
"""The largest file that the upload takes, in bytes (https://piapi.ai/docs/tools/file-upload)."""

NAME_MAX = 128
"""The most characters of its name."""

LINK_LIFE = 23 * 3600.0
"""Seconds for which a link is used again; it lives 24 h, and the last task that gets it may have to queue."""

LINKS_MAX = 1024
"""How many links are remembered; the one that was not used for the longest time goes first."""

_PICTURES = ("jpg", "jpeg", "png", "webp")
_OTHERS = ("mp4", "wav", "mp3")
_NAMES = f"a name of at most {NAME_MAX} characters that ends in {', '.join(_PICTURES + _OTHERS)}"


class Uploads:
    """The uploads of one session, and the links they gave.

    Args:
        api: The way to the service.

        rules: What holds for local pictures.
    """

    def __init__(self, api: Api, *, rules: sources.Rules) -> None:
        self._api = api
        self._rules = rules
        self._links: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._locks = PerLoop(WeakValueDictionary[str, asyncio.Lock])

    async def put(self, source: Any, *, filename: str | None) -> str:
        """Upload a file, and give its link; the arguments and errors are those of `Session.upload`."""
        with sources.Forgetting():
            read = partial(self._file, source, filename=filename)
            try:
                return await self.link(await sources.off_loop(read), name=filename)
            finally:
                del source, read

    async def link(self, data: bytes, *, name: str | None = None) -> str:
        """The link to a file of this content, which is uploaded unless that was done lately.

        Raises:
            PiAPIError: The upload failed.
            ValueError: The file is too large.
        """
        if len(data) > FILE_MAX:
            raise ValueError(f"the upload takes files of at most {FILE_MAX} bytes, got {len(data)}")
        name = name or f"picture{_media.MEDIA_TYPES[_media.sniff(data) or '']}"
        digest = await sources.off_loop(lambda: hashlib.sha256(data))
        key = f"{digest.hexdigest()}.{_ending(name)}"
        # One at a time for each content: whoever comes second finds the link, or tries for itself.
        async with self._locks.get().setdefault(key, asyncio.Lock()):
            return self._known(key) or self._remember(key, await self._api.upload(data, name=name))

    def _known(self, key: str) -> str | None:
        url, until = self._links.get(key, ("", 0.0))
        if until <= self._api.clock.now():
            return None
        self._links.move_to_end(key)
        return url

    def _remember(self, key: str, url: str) -> str:
        self._links[key] = url, self._api.clock.now() + LINK_LIFE
        self._links.move_to_end(key)
        while len(self._links) > LINKS_MAX:
            self._links.popitem(last=False)
        return url

    def _file(self, source: Any, *, filename: str | None) -> bytes:
        """The bytes to upload: a picture, or as it is what the name says is another file."""
        if filename is not None:
            _check_name(filename)
        source = _media.as_kept(source)
        if isinstance(source, Path | bytes) and _ending(filename or "") in _OTHERS:
            return sources.read(source, field="source") if isinstance(source, Path) else source
        if _ending(filename or "") in _OTHERS:
            allowed = f"a Path or bytes where filename ends in {', '.join(_OTHERS)}"
            raise _validators.refuse(TypeError, name="source", allowed=allowed, value=source)
        _validators.picture(source, name="source")
        if isinstance(source, str) and not _media.is_data_uri(source):
            raise _validators.refuse(
                ValueError, name="source", allowed="a local file, a link needs no upload", value=source
            )
        return sources.picture(source, field="source", rules=self._rules)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise _validators.refuse(TypeError, name="filename", allowed=_NAMES, value=name)
    if len(name) > NAME_MAX or _ending(name) not in _PICTURES + _OTHERS:
        raise _validators.refuse(ValueError, name="filename", allowed=_NAMES, value=name)


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.removeprefix(".").lower()
