"""What PiAPI's documentation says about asking: facts of grade D in sections 1 to 3, one test each.

Not emulated: the two other hosts (all is served here), Cloudflare's cut after 120 s (1.1; the fault `522` is its page),
the endpoints that are out of scope in 1.3, and what `service_mode` does (3.1).
"""

import uuid
from typing import Any

import pytest
from support.rig import Api, MakeApi, img2img

SCHNELL, DEV, ADVANCED = MODELS = ("Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced")
IMAGE = "https://i.ibb.co/J7ZNgSG/01.jpg"
LORA = {"lora_settings": [{"lora_type": "mjv6"}]}
CONTROL = {"control_net_settings": [{"control_type": "depth", "control_image": IMAGE}]}
OUTPAINT = {"custom_settings": [{"setting_type": "outpaint", "outpaint_left": 500, "outpaint_right": 500}]}

EVERY_MODEL = {"txt2img", "img2img"}
NEEDED: dict[str, dict[str, Any]] = {
    "txt2img": {},
    "img2img": {"image": IMAGE},
    "txt2img-lora": LORA,
    "img2img-lora": {"image": IMAGE, **LORA},
    "controlnet-lora": CONTROL,
    "fill-inpaint": {"image": IMAGE},
    "fill-outpaint": {"image": IMAGE, **OUTPAINT},
    "redux-variation": {"image": IMAGE},
    "kontext": {"image": IMAGE},
}
"""Each task type of table 2.2 with the least it needs beside a prompt."""


async def refused(api: Api, task: dict[str, Any]) -> str:
    """The reason a create is refused with 400; empty when it is not."""
    reply = await api.send("POST", "/api/v1/task", json=task)
    assert reply.status in (200, 400)
    return reply.json["message"] if reply.status == 400 else ""


def task(task_type: str, model: str = ADVANCED, **more: Any) -> dict[str, Any]:
    """The least request of a task type, and more input; `...` leaves a field out."""
    given = {"prompt": "a bear", **NEEDED[task_type], **more}
    return {
        "model": model,
        "task_type": task_type,
        "input": {name: value for name, value in given.items() if value is not ...},
    }


async def test_results_are_served_as_temp_uuid_png(api: Api) -> None:
    """1.1 (D KON): https://img.theapi.app/temp/<uuid>.png; here on the emulator's own host."""
    url = (await api.finished())["output"]["image_url"]
    folder, name = url.rsplit("/", 1)
    assert folder == api.emulator.url + "/temp"
    assert str(uuid.UUID(name.removesuffix(".png"))) + ".png" == name


@pytest.mark.parametrize("spelling", ["X-API-Key", "x-api-key", "X-API-KEY"])
async def test_the_key_goes_into_a_header_spelt_in_any_case(api: Api, spelling: str) -> None:
    """1.2 (D SEED, I2I): X-API-Key, in three spellings."""
    headers = {spelling: api.emulator.api_key}
    assert (await api.send("GET", "/account/info", headers=headers)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/task"),
        ("GET", "/api/v1/task/x"),
        ("DELETE", "/api/v1/task/x"),
        ("GET", "/account/info"),
        ("GET", "/account/active_tasks"),
        ("GET", "/api/open/tasks/histories"),
        ("POST", "/api/ephemeral_resource"),
    ],
)
async def test_every_endpoint_needs_the_key(api: Api, method: str, path: str) -> None:
    """1.2, 1.3 (D SEED, I2I, GET, CANC, ACC, TL, HIST, UP): required on every task call; none of them is a 404."""
    assert (await api.send(method, path, headers={})).status == 401


@pytest.mark.parametrize("path", ["/api/v1/tasks?created_before=1728570429&model=all", "/api/v1/task"])
async def test_there_is_no_way_to_cancel_many_flux_tasks(api: Api, path: str) -> None:
    """1.3.1 (D CANC): cancel-many is marked "Developing" and has no value for Flux."""
    assert (await api.send("DELETE", path)).status == 404


async def test_a_task_id_is_a_uuid(api: Api) -> None:
    """1.3 (D I2I): UUID v4 in every example."""
    assert uuid.UUID((await api.create())["task_id"]).version == 4


async def test_only_what_is_pending_can_be_cancelled(api: Api) -> None:
    """1.3.1 (D CANC): once processing it cannot."""
    first, second = (await api.create())["task_id"], (await api.create())["task_id"]
    assert (await api.send("DELETE", f"/api/v1/task/{first}")).status == 200
    api.clock.seconds = 5
    assert (await api.send("DELETE", f"/api/v1/task/{second}")).status == 400


async def test_the_balance_is_told_in_us_dollars(make_api: MakeApi) -> None:
    """1.3.2 (D ACC): `equivalent_in_usd` is the balance in US dollars."""
    api = await make_api(credits=25_000_000)
    assert (await api.send("GET", "/account/info")).json["data"]["equivalent_in_usd"] == 2.5


async def test_active_tasks_are_counted_by_provider(api: Api) -> None:
    """1.3.3 (D TL): staged, pending and processing."""
    await api.create()
    api.clock.seconds = 5
    await api.create()
    flux = (await api.send("GET", "/account/active_tasks")).json["data"]["flux"]
    assert (flux["staged_count"], flux["pending_count"], flux["processing_count"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("query", "status"), [("", 200), ("page=1&page_size=100", 200), ("page_size=101", 400), ("page=0", 400)]
)
async def test_the_history_has_pages(api: Api, query: str, status: int) -> None:
    """1.3.4 (D HIST): page from 1, page_size 10, at most 100, error above."""
    reply = await api.send("GET", f"/api/open/tasks/histories?{query}")
    assert reply.status == status
    assert status != 200 or (reply.json["data"]["page"], reply.json["data"]["size"]) in ((1, 10), (1, 100))


async def test_the_history_has_words_of_its_own(api: Api) -> None:
    """1.3.4 (D HIST): finished and failed."""
    await api.finished()
    api.emulator.faults.next("create", "task-fails")
    await api.finished()
    records = (await api.send("GET", "/api/open/tasks/histories?model=flux")).json["data"]["data"]
    assert [record["status"] for record in records] == ["failed", "finished"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task_type", NEEDED)
async def test_each_model_runs_its_task_types(api: Api, task_type: str, model: str) -> None:
    """2.1, 2.2 (D SEED, I2I, T2I, LORA, REDUX, KON, B-FLUX): the table; the words for a wrong pair are T KONNOTE's."""
    expected = "" if model == ADVANCED or task_type in EVERY_MODEL else "invalid model"
    assert await refused(api, task(task_type, model)) == expected


async def test_dev_advanced_is_not_on_the_free_plan(make_api: MakeApi) -> None:
    """2.1 (D PAGE): Creator plan or higher."""
    api = await make_api(plan="free")
    assert (await api.send("POST", "/api/v1/task", json=task("kontext"))).status == 403


@pytest.mark.parametrize("task_type", ["txt2img-lora", "img2img-lora", "controlnet-lora"])
async def test_more_than_one_lora_is_too_many(api: Api, task_type: str) -> None:
    """2.2 (D LORA): more than one is "contact us"; the same for control nets."""
    two = {"lora_settings": LORA["lora_settings"] * 2}
    assert await refused(api, task(task_type, **two))
    assert await refused(api, task("controlnet-lora", control_net_settings=CONTROL["control_net_settings"] * 2))


@pytest.mark.parametrize("field", ["model", "task_type", "input"])
async def test_three_fields_are_required_and_config_is_not(api: Api, field: str) -> None:
    """2.3 (D SEED)."""
    assert not await refused(api, img2img())
    assert await refused(api, {name: value for name, value in img2img().items() if name != field})


@pytest.mark.parametrize("field", ["prompt", "image"])
async def test_prompt_and_image_are_required(api: Api, field: str) -> None:
    """2.3 (D SEED)."""
    assert await refused(api, task("img2img", **{field: ...})) == f"{field} is required"


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("denoise", (0.01, 1), (0, 1.01)),
        ("guidance_scale", (1.5, 5), (1.4, 5.1)),
        ("batch_size", (1, 4), (0, 5)),
    ],
)
async def test_numbers_have_the_documented_ranges(
    api: Api, field: str, good: tuple[float, ...], bad: tuple[float, ...]
) -> None:
    """2.3 (D SEED): 0 < denoise <= 1, 1.5 <= guidance_scale <= 5, 1 <= batch_size <= 4."""
    for value in good:
        assert not await refused(api, img2img(**{field: value}))
    for value in bad:
        assert await refused(api, img2img(**{field: value}))


async def test_denoise_is_0_7_unless_given(api: Api) -> None:
    """2.3 (D SEED): default 0.7; the two pictures are the same file."""
    links = [(await api.finished(img2img(**more)))["output"]["image_url"] for more in ({}, {"denoise": 0.7})]
    first, second = [(await api.send("GET", link)).body for link in links]
    assert first == second


async def test_a_batch_is_for_schnell_and_costs_as_many_times(api: Api) -> None:
    """2.3 (D SEED): "only works for schnell at the moment. Price will be batch_size * (price for one generation)"."""
    data = await api.create(img2img(SCHNELL, batch_size=3))
    assert data["meta"]["usage"]["consume"] == 3 * 15_000
    assert await refused(api, img2img(DEV, batch_size=3))


async def test_control_net_settings_are_not_needed(api: Api) -> None:
    """2.3 (D SEED): marked required, and omitted by the page's own example."""
    assert not await refused(api, img2img())


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"lora_settings": [{"lora_strength": 1}]}, "lora_type"),
        ({"control_net_settings": [{"control_image": IMAGE}]}, "control_type"),
        ({"control_net_settings": [{"control_type": "depth"}]}, "control_image"),
    ],
)
async def test_settings_have_required_fields(api: Api, settings: dict[str, Any], missing: str) -> None:
    """2.4 (D I2I, T2I)."""
    assert await refused(api, task("controlnet-lora", **settings)) == f"{missing} is required"


async def test_settings_have_optional_fields(api: Api) -> None:
    """2.4 (D I2I, AVAIL): lora_image, lora_strength, control_strength, return_preprocessed_image."""
    lora = {"lora_type": "mjv6", "lora_image": IMAGE, "lora_strength": 1}
    control = {**CONTROL["control_net_settings"][0], "control_strength": 0.45, "return_preprocessed_image": True}
    data = await api.create(task("controlnet-lora", lora_settings=[lora], control_net_settings=[control]))
    assert (data["input"]["lora_settings"], data["input"]["control_net_settings"]) == ([lora], [control])


async def test_control_net_needs_no_image(api: Api) -> None:
    """2.4 (D AVAIL): the examples carry none."""
    assert not await refused(api, task("controlnet-lora"))


LORAS = [
    "anime",
    "art",
    "disney",
    "furry",
    "mjv6",
    "realism",
    "scenery",
    "collage-artstyle",
    "creepcute",
    "cyberpunk-anime-style",
    "deco-pulse",
    "deep-sea-particle-enhencer",
    "faetastic-details",
    "fractal-geometry",
    "galactixy-illustrations-style",
    "geometric-woman",
    "graphic-portrait",
    "mat-miller-art",
    "moebius-style",
    "ob3d-isometric-3d-room",
    "paper-quilling-and-layering-style",
]


@pytest.mark.parametrize("name", LORAS)
async def test_every_lora_of_the_table_is_accepted(api: Api, name: str) -> None:
    """2.5 (D AVAIL)."""
    assert not await refused(api, task("img2img-lora", lora_settings=[{"lora_type": name}]))


@pytest.mark.parametrize("name", ["depth", "soft_edge", "canny", "openpose"])
async def test_every_control_type_is_accepted(api: Api, name: str) -> None:
    """2.5 (D AVAIL; openpose from its example)."""
    assert not await refused(
        api, task("controlnet-lora", control_net_settings=[{"control_type": name, "control_image": IMAGE}])
    )


async def test_an_image_that_is_hard_to_download_may_show_retry(make_api: MakeApi) -> None:
    """2.6 (D GET): `retry` "usually happens if your image url is hard to download"."""
    api = await make_api(status_words="retry", unreachable_images="fail")
    task_id = (await api.create())["task_id"]
    api.clock.seconds = 5
    assert (await api.get(task_id))["status"] == "retry"
    api.clock.seconds = 60
    assert (await api.get(task_id))["status"] == "failed"


async def test_kontext_takes_base64(api: Api) -> None:
    """2.6 (D KON): "input image, url or base64 string"."""
    for image in ("iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgo="):
        assert (await api.finished(task("kontext", image=image)))["status"] == "completed"


@pytest.mark.parametrize(("width", "height", "fits"), [(1024, 1024, True), (2048, 512, True), (1025, 1024, False)])
async def test_text_pictures_have_at_most_1048576_pixels(api: Api, width: int, height: int, fits: bool) -> None:
    """2.7, 5 (D T2I): integers, width * height <= 1048576."""
    assert (not await refused(api, task("txt2img", DEV, width=width, height=height))) == fits
    assert await refused(api, task("txt2img", DEV, width=64.5))


async def test_text_needs_a_prompt_and_takes_the_usual_numbers(api: Api) -> None:
    """2.7 (D T2I): prompt; negative_prompt, guidance_scale, batch_size and denoise are listed too."""
    more = {"negative_prompt": "blur", "guidance_scale": 3, "batch_size": 2, "denoise": 0.5}
    assert not await refused(api, task("txt2img", SCHNELL, **more))
    assert await refused(api, task("txt2img", SCHNELL, prompt=...)) == "prompt is required"


@pytest.mark.parametrize("task_type", ["fill-inpaint", "fill-outpaint", "redux-variation", "kontext"])
async def test_image_tasks_need_an_image(api: Api, task_type: str) -> None:
    """2.7 (D REDUX, KON)."""
    assert await refused(api, task(task_type, image=...)) == "image is required"


@pytest.mark.parametrize(
    "settings",
    [
        ...,
        [],
        [{"outpaint_left": 1}],
        [{"setting_type": "inpaint"}],
        [{"setting_type": "outpaint", "outpaint_top": -1}],
        [{"setting_type": "outpaint", "outpaint_left": 1024, "outpaint_top": 1024}],
    ],
)
async def test_outpaint_needs_its_settings(api: Api, settings: Any) -> None:
    """2.7 (D REDUX): one outpaint setting; the pixels added are less than 1024 * 1024."""
    assert not await refused(api, task("fill-outpaint"))
    assert await refused(api, task("fill-outpaint", custom_settings=settings))


async def test_kontext_has_seed_size_and_up_to_40_steps(api: Api) -> None:
    """2.7 (D KON): width, height, seed -1 and steps 28, at most 40."""
    assert not await refused(api, task("kontext", width=800, height=600, seed=-1, steps=40))
    assert await refused(api, task("kontext", steps=41)) == "steps must be <= 40"


@pytest.mark.parametrize(("mode", "fits"), [("public", True), ("private", True), ("", True), ("byoa", False)])
async def test_service_mode_is_public_or_private(api: Api, mode: str, fits: bool) -> None:
    """3.1 (D T2I, UNI); echoed as it was sent."""
    request = {**img2img(), "config": {"service_mode": mode}}
    assert (not await refused(api, request)) == fits
    if fits:
        assert (await api.finished(request))["config"]["service_mode"] == mode


async def test_the_webhook_is_echoed_with_its_secret(api: Api) -> None:
    """3.1, 4.1 (D I2I): the secret too, which is why it must not be logged."""
    config = {"webhook_config": {"endpoint": "https://webhook.site/xxxx", "secret": "s3cret"}}
    data = await api.create({**img2img(), "config": config})
    assert data["config"] == config
