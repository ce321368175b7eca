"""Files that are uploaded (section 1.3.5 of the facts)."""

import base64
import io
import json
from typing import Any

import pytest
from support.rig import Api, MakeApi, Reply, data_uri, img2img, picture

PATH = "/api/ephemeral_resource"
MIB = 2**20


async def upload(api: Api, raw: bytes = b"data", *, name: Any = "a.png", **more: Any) -> Reply:
    """One upload."""
    body = {"file_name": name, "file_data": base64.b64encode(raw).decode(), **more}
    return await api.send("POST", PATH, data=io.BytesIO(json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("extension", "content_type"),
    [
        ("jpg", "image/jpeg"),
        ("JPEG", "image/jpeg"),
        ("png", "image/png"),
        ("webp", "image/webp"),
        ("mp4", "video/mp4"),
        ("wav", "audio/wav"),
        ("mp3", "audio/mpeg"),
    ],
)
async def test_what_was_uploaded_is_served_to_everybody(api: Api, extension: str, content_type: str) -> None:
    """D UP: seven extensions; the link needs no key."""
    reply = await upload(api, b"some bytes", name=f"photo.{extension}")
    served = await api.send("GET", reply.json["data"]["url"], headers={})
    assert (served.status, served.body, served.headers["Content-Type"]) == (200, b"some bytes", content_type)


@pytest.mark.parametrize("name", ["a.gif", "a", ".png.exe", "png"])
async def test_other_extensions_are_refused(api: Api, name: str) -> None:
    """D UP: the list of extensions is closed."""
    reply = await upload(api, name=name)
    assert reply.status == 400
    assert reply.json["message"].startswith("file type not allowed")


async def test_names_have_128_characters_at_most(api: Api) -> None:
    """D UP: file_name <= 128 characters."""
    assert (await upload(api, name="a" * 124 + ".png")).status == 200
    reply = await upload(api, name="a" * 125 + ".png")
    assert (reply.status, reply.json["message"]) == (400, "file_name has 129 characters, 128 are allowed")


async def test_files_have_ten_megabytes_at_most(api: Api) -> None:
    """D UP: 10 MB."""
    assert (await upload(api, bytes(10 * MIB))).status == 200
    for size in (10 * MIB + 1, 20 * MIB):
        reply = await upload(api, bytes(size))
        assert (reply.status, reply.json["message"]) == (400, "file too large; 10 MB are allowed")


@pytest.mark.parametrize(("plan", "status"), [("pro", 200), ("creator", 200), ("free", 403)])
async def test_uploading_needs_a_plan(make_api: MakeApi, plan: str, status: int) -> None:
    """D UP: Creator or higher; 403 on the free plan (T, several)."""
    assert (await upload(await make_api(plan=plan))).status == status


async def test_uploading_needs_the_key(api: Api) -> None:
    """D UP: x-api-key."""
    assert (await api.send("POST", PATH, json={}, headers={})).status == 401


async def test_links_live_for_a_day(api: Api) -> None:
    """D UP: 24 h."""
    url = (await upload(api)).json["data"]["url"]
    api.clock.seconds = 24 * 3600 - 1
    assert (await api.send("GET", url)).status == 200
    api.clock.seconds += 1
    assert (await api.send("GET", url)).status == 404


@pytest.mark.parametrize(
    ("answer", "keys"), [("data-url", {"code", "data", "message"}), ("top-level-url", {"code", "url", "message"})]
)
async def test_the_place_of_the_link_can_be_chosen(make_api: MakeApi, answer: str, keys: set[str]) -> None:
    """7.18: `data.url` (T) and a top-level `url` (D CLI) contradict each other."""
    reply = await upload(await make_api(upload_answer=answer))
    assert reply.json.keys() == keys


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"file_name": "a.png"}', b'"text"', b'{"file_name": 1, "file_data": ""}']
)
async def test_a_request_without_a_file_is_refused(api: Api, body: bytes) -> None:
    """Both fields are needed, as strings."""
    assert (await api.send("POST", PATH, data=body)).status == 400


async def test_data_uris_are_taken_too_and_nonsense_is_not(api: Api) -> None:
    """9.19: raw base64 is documented; one client sends a data URI (T)."""
    url = (await upload(api, file_data=data_uri(b"raw"))).json["data"]["url"]
    assert (await api.send("GET", url)).body == b"raw"
    reply = await upload(api, file_data="***")
    assert (reply.status, reply.json["message"]) == (400, "file_data is not base64")


async def test_only_the_newest_files_are_kept(make_api: MakeApi) -> None:
    """Memory has a bound."""
    api = await make_api(keep_uploads=1)
    first, second = [(await upload(api)).json["data"]["url"] for _ in range(2)]
    assert (await api.send("GET", first)).status == 404
    assert (await api.send("GET", second)).status == 200


async def test_an_uploaded_picture_can_be_the_source_of_a_task(api: Api) -> None:
    """That is what uploading is for."""
    results = []
    for colour in ("red", "blue"):
        url = (await upload(api, picture(colour=colour))).json["data"]["url"]
        data = await api.finished(img2img(image=url, denoise=0.1))
        results.append((await api.send("GET", data["output"]["image_url"])).body)
    assert results[0] != results[1]
