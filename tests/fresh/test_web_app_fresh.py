"""Web apps that restyle uploads, each in a process of its own: the README's, and one with FastAPI."""

import io
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from support.fresh import PATIENCE, ROUNDS

HERE = Path(__file__).parent
APPS = {
    "web_app": "import sys; from aiohttp import web; from web_app import app; web.run_app(app, port=int(sys.argv[1]))",
    "fastapi_app": "import sys, uvicorn; from fastapi_app import app; uvicorn.run(app, port=int(sys.argv[1]))",
}
UPLOADS = 20


@contextmanager
def served(app: str, env: Mapping[str, str]) -> Iterator[str]:
    """An app in a process of its own, which has answered nothing yet; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", APPS[app], str(port)], cwd=HERE, env={**os.environ, **env}) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not listens(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def photographs() -> Iterator[bytes]:
    """Photographs of several formats, half of the JPEGs on their side."""
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    for number in range(UPLOADS):
        file = io.BytesIO()
        picture = Image.effect_noise((160, 120), 40 + number).convert("RGB")
        kind = ("PNG", "JPEG", "WEBP", "BMP")[number % 4]
        picture.save(file, kind, **({"exif": on_its_side} if number % 8 == 1 else {}))
        yield file.getvalue()


def posted(url: str, data: bytes, query: str = "?artist=Hokusai") -> tuple[int, bytes]:
    """The status and the body of the answer to an upload."""
    request = urllib.request.Request(f"{url}/restyle{query}", data=data, method="POST")
    request.add_header("Content-Type", "application/octet-stream")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def statuses(answers: Sequence[tuple[int, bytes]]) -> list[str]:
    """Each answer in a few words."""
    return [f"{status} {body[:4]!r}" if status == 200 else f"{status} {body[:300]!r}" for status, body in answers]


@pytest.mark.parametrize("_round", range(ROUNDS))
@pytest.mark.parametrize("app", APPS)
def test_uploads_at_once_are_all_answered(emulator: dict[str, str], app: str, _round: int) -> None:
    """Twenty uploads that meet an app which has just begun are all answered with a picture; one of garbage with 400."""
    with served(app, emulator) as url, ThreadPoolExecutor(UPLOADS + 1) as pool:
        answers = list(pool.map(lambda data: posted(url, data), [*photographs(), b"no picture at all"]))
        assert statuses(answers)[:-1] == [f"200 {PNG!r}" for PNG in [b"\x89PNG"] * UPLOADS]
        assert answers[-1][0] == 400
        for _, body in answers[:-1]:
            with Image.open(io.BytesIO(body)) as picture:
                picture.load()


SPOKEN = re.compile(rb'(\{"detail":")?(Please|The|This) [a-zA-Z0-9 ,:/?=]+\.("\})?')


@pytest.mark.parametrize("app", APPS)
def test_visitors_are_answered_in_plain_words(emulator: dict[str, str], app: str) -> None:
    """A bad upload, one that is too large, no artist, a key that is refused: a status and a sentence for visitors."""
    photograph = next(photographs())
    with served(app, emulator) as url:
        answers = [
            posted(url, photograph[:-40]),
            posted(url, b""),
            posted(url, photograph, query=""),
            posted(url, photograph, query="?artist=%20"),
            posted(url, bytes(11 * 2**20)),
        ]
    with served(app, {**emulator, "PIAPI_API_KEY": "wrong"}) as url:
        answers.append(posted(url, photograph))
    assert [status for status, _ in answers] == [400, 400, 400, 400, 413, 502]
    for _, words in answers:
        assert SPOKEN.fullmatch(words), words
