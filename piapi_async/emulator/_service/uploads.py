"""Files that clients upload, kept for a day: `POST /api/ephemeral_resource`.

Source: piapi.ai/docs/tools/file-upload. Real uploads go to another host; here it is the same one.
"""

import base64
import binascii
import json
import random
import uuid
from collections import OrderedDict
from pathlib import PurePosixPath

import attrs

from piapi_async.emulator._service.settings import Settings
from piapi_async.emulator._service.validation import Refusal

MOST_BODY = 15 * 2**20
"""Bytes of a request that can hold an allowed file in base64."""

_MOST_BYTES = 10 * 2**20
_LONGEST_NAME = 128
_CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
}


@attrs.frozen
class File:
    """One uploaded file."""

    body: bytes = attrs.field(repr=False)
    content_type: str
    uploaded_at: float


class Uploads:
    """The files of one emulator; the newest `Options.keep_uploads` of them.

    Args:
        settings: Plan, seed, and how long files live.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files: OrderedDict[str, File] = OrderedDict()
        self._accepted = 0

    def store(self, body: bytes, *, now: float) -> str:
        """Keep what a request brings; returns the name under which it is served.

        Raises:
            Refusal: The plan does not allow it, or the request does not hold a file with a name that is allowed.
        """
        options = self._settings.current
        if options.plan == "free":
            raise Refusal(403, "file upload needs the creator plan or higher")
        extension, data = _read(body)
        rng = random.Random(f"{options.seed}/upload/{self._accepted}")  # noqa: S311 - seeded on purpose
        self._accepted += 1
        name = f"{uuid.UUID(int=rng.getrandbits(128), version=4)}.{extension}"
        self._files[name] = File(data, _CONTENT_TYPES[extension], now)
        while len(self._files) > options.keep_uploads:
            self._files.popitem(last=False)
        return name

    def file(self, name: str) -> File | None:
        """The file of that name, expired or not."""
        return self._files.get(name)

    def is_expired(self, file: File, *, now: float) -> bool:
        """Whether its day is over."""
        return now >= file.uploaded_at + self._settings.current.upload_life


def _read(body: bytes) -> tuple[str, bytes]:
    try:
        given = json.loads(body)
        name, data = given["file_name"], given["file_data"]
    except (ValueError, RecursionError, LookupError, TypeError):
        raise Refusal(400, "file_name and file_data are required") from None
    if not (isinstance(name, str) and isinstance(data, str)):
        raise Refusal(400, "file_name and file_data must be strings")
    return _extension(name), _decoded(data)


def _extension(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        raise Refusal(400, f"file_name has {len(name)} characters, {_LONGEST_NAME} are allowed")
    extension = PurePosixPath(name).suffix.removeprefix(".").lower()
    if extension not in _CONTENT_TYPES:
        raise Refusal(400, f"file type not allowed; there is {', '.join(_CONTENT_TYPES)}")
    return extension


def _decoded(data: str) -> bytes:
    # Raw base64 is documented; one client sends a data URI.
    head, comma, rest = data.partition(",")
    try:
        raw = base64.b64decode(rest if comma and head.startswith("data:") else data, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "file_data is not base64") from None
    if len(raw) > _MOST_BYTES:
        raise Refusal(400, "file too large; 10 MB are allowed")
    return raw
