"""Two emulators in one process: nothing in common but what their seeds make equal."""

from typing import Any

import attrs
from support.rig import Api, MakeApi, img2img

from piapi_async.emulator import Options

UPLOAD = {"file_name": "a.png", "file_data": ""}
HISTORIES = "/api/open/tasks/histories"


async def life(api: Api) -> list[Any]:
    """Everything that is left to chance: ids, durations, links, pictures, names of uploads."""
    seen: list[Any] = []
    for each in (img2img(batch_size=2), img2img("Qubico/flux1-dev"), img2img(prompt="a mosaic")):
        data = await api.finished(each)
        output = data["output"]
        links = output.get("image_urls") or [output["image_url"]]
        seen += [data["task_id"], data["meta"], [link.rpartition("/")[2] for link in links]]
        seen += [(await api.send("GET", link)).body for link in links]
    uploaded = await api.send("POST", "/api/ephemeral_resource", json=UPLOAD)
    return [*seen, uploaded.json["data"]["url"].rpartition("/")[2]]


async def test_the_same_seed_gives_the_same_life(make_api: MakeApi) -> None:
    """Ids, durations, pictures and uploads; another seed gives others."""
    usual = Options()
    lives = [
        await life(await make_api(seed, durations=usual.durations, queue_delay=usual.queue_delay)) for seed in (1, 1, 2)
    ]
    assert lives[0] == lives[1]
    assert not any(one == other for one, other in zip(lives[0], lives[2], strict=True))


async def test_two_emulators_share_nothing(make_api: MakeApi) -> None:
    """Tasks, points, options, uploads, history, records and deliveries of one are unknown to its twin."""
    one, other = await make_api(1), await make_api(1)
    before = attrs.asdict(other.emulator.options)
    config = {"webhook_config": {"endpoint": "https://webhook.site/xxxx"}}
    done = await one.finished({**img2img(), "config": config})
    uploaded = await one.send("POST", "/api/ephemeral_resource", json=UPLOAD)
    one.emulator.set(plan="free")
    assert (len(one.emulator.deliveries), len(one.emulator.charges)) == (1, 1)
    links = [done["output"]["image_url"], uploaded.json["data"]["url"]]
    for link in links:
        assert (await one.send("GET", link)).status == 200
        assert (await other.send("GET", link.replace(one.emulator.url, other.emulator.url))).status == 404
    assert (await other.send("GET", HISTORIES)).json["data"]["total"] == 0
    assert (other.emulator.tasks, other.emulator.deliveries, other.emulator.charges) == ({}, (), ())
    assert len(other.emulator.requests) == len(links) + 1
    assert attrs.asdict(other.emulator.options) == before
