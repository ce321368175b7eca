"""The typed Flux requests: what they send, what they refuse, and how they show themselves."""

import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from support import family
from support.strategies import IMG2IMG

from piapi_async import (
    ControlNet,
    ControlNetLora,
    Img2Img,
    Img2ImgLora,
    LoRA,
    Txt2ImgLora,
    WebhookConfig,
    _media,
    flux,
)
from piapi_async._client.requests import encode_body
from piapi_async.flux import _base

URL = "https://i.ibb.co/J7ZNgSG/01.jpg"
PNG = b"\x89PNG\r\n\x1a\n"
SCHNELL, DEV, ADVANCED = "Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced"

REQUIRED: dict[type[Any], dict[str, Any]] = {
    Img2Img: {"prompt": "a bear", "image": URL},
    Img2ImgLora: {"prompt": "a bear", "image": URL, "lora": LoRA("mjv6")},
    ControlNetLora: {"prompt": "a bear", "control_net": ControlNet("depth", image=URL)},
}
"""What each image-to-image request cannot do without; `test_family.py` and `test_agreement.py` are about all nine."""

RUNS = {
    "img2img": {SCHNELL, DEV, ADVANCED},
    "img2img-lora": {ADVANCED},
    "controlnet-lora": {ADVANCED},
    "txt2img": {SCHNELL, DEV, ADVANCED},
    "txt2img-lora": {ADVANCED},
    "fill-inpaint": {ADVANCED},
    "fill-outpaint": {ADVANCED},
    "redux-variation": {ADVANCED},
    "kontext": {ADVANCED},
}
"""Table 2.2 of the facts: which models run which task type."""

SOURCES = (
    "an http(s) URL, a picture's data URI, a pathlib.Path, bytes, a binary file, a Pillow image or an array of uint8"
)


def make(kind: type[Any], **fields: Any) -> Any:
    """A request of that kind, with its required fields and these."""
    return kind(**{**REQUIRED[kind], **fields})


def sent(request: Any, *, webhook: WebhookConfig | None = None) -> Any:
    """The JSON that the service receives for a request."""
    return json.loads(b"".join(encode_body(request, task_input=request.input, webhook=webhook).pieces()))


def refusal(kind: type[Any], **fields: Any) -> str:
    """The type and words with which a request of that kind refuses a field."""
    with pytest.raises((TypeError, ValueError)) as caught:
        make(kind, **fields)
    return f"{caught.type.__name__}: {caught.value}"


def test_the_documented_example_is_sent_as_documented() -> None:
    """The request of PiAPI's Image-to-Image page comes out exactly as that page writes it, keys in its order."""
    request = Img2Img(prompt="a bear", image=URL)
    body = encode_body(request, task_input=request.input, webhook=WebhookConfig("https://webhook.site/xxxx"))
    page = (
        '{"model":"Qubico/flux1-schnell","task_type":"img2img",'
        '"input":{"prompt":"a bear","image":"https://i.ibb.co/J7ZNgSG/01.jpg"},'
        '"config":{"webhook_config":{"endpoint":"https://webhook.site/xxxx","secret":""}}}'
    )
    assert json.dumps(json.loads(b"".join(body.pieces())), separators=(",", ":")) == page


def test_the_documented_controlnet_example_is_sent_as_documented() -> None:
    """The ControlNet example of PiAPI's page, without the undocumented `steps`, comes out as that page writes it."""
    request = ControlNetLora(
        prompt="a girl",
        negative_prompt="low quality, ugly, distorted, artefacts",
        guidance_scale=2.5,
        control_net=ControlNet(
            "depth", image="https://i.ibb.co/yX07dwV/c.webp", strength=0.45, return_preprocessed_image=True
        ),
        lora=LoRA("geometric-woman", strength=1),
    )
    assert sent(request) == {
        "model": "Qubico/flux1-dev-advanced",
        "task_type": "controlnet-lora",
        "input": {
            "prompt": "a girl",
            "negative_prompt": "low quality, ugly, distorted, artefacts",
            "guidance_scale": 2.5,
            "control_net_settings": [
                {
                    "control_type": "depth",
                    "control_image": "https://i.ibb.co/yX07dwV/c.webp",
                    "control_strength": 0.45,
                    "return_preprocessed_image": True,
                }
            ],
            "lora_settings": [{"lora_type": "geometric-woman", "lora_strength": 1}],
        },
    }


@pytest.mark.parametrize(
    ("kind", "fields", "task_input"),
    [
        (Img2Img, {}, {"image": URL}),
        (
            Img2Img,
            {"denoise": 0.7, "guidance_scale": 5, "batch_size": 4, "negative_prompt": ""},
            {"image": URL, "denoise": 0.7, "guidance_scale": 5, "batch_size": 4, "negative_prompt": ""},
        ),
        (Img2ImgLora, {}, {"image": URL, "lora_settings": [{"lora_type": "mjv6"}]}),
        (
            Img2ImgLora,
            {"lora": LoRA("anime", strength=0.5, image=URL), "denoise": 1},
            {
                "image": URL,
                "denoise": 1,
                "lora_settings": [{"lora_type": "anime", "lora_image": URL, "lora_strength": 0.5}],
            },
        ),
        (ControlNetLora, {}, {"control_net_settings": [{"control_type": "depth", "control_image": URL}]}),
        (
            ControlNetLora,
            {"image": URL, "control_net": ControlNet("hed", image=URL, return_preprocessed_image=False)},
            {
                "image": URL,
                "control_net_settings": [
                    {"control_type": "hed", "control_image": URL, "return_preprocessed_image": False}
                ],
            },
        ),
    ],
)
def test_only_what_is_set_is_sent(kind: type[Any], fields: dict[str, Any], task_input: dict[str, Any]) -> None:
    """The input holds the fields that were set, under the service's names, and no default of ours."""
    request = make(kind, **fields)
    assert sent(request) == {
        "model": request.model,
        "task_type": kind.task_type,
        "input": {"prompt": "a bear", **task_input},
    }


@given(IMG2IMG)
def test_every_request_is_sent_with_its_own_values(request: Img2Img) -> None:
    """Each field of any valid request arrives as given, numbers as numbers, and `service_mode` in `config` alone."""
    body = sent(request)
    given_fields = attrs.asdict(request, filter=lambda _, value: value is not None)
    mode = given_fields.pop("service_mode", None)
    assert body.pop("config", {}) == ({} if mode is None else {"service_mode": mode})
    assert body == {"model": given_fields.pop("model"), "task_type": "img2img", "input": given_fields}


def test_service_mode_and_webhook_share_the_config() -> None:
    """`config` holds the service mode and the webhook when both are given."""
    body = sent(make(Img2Img, service_mode="public"), webhook=WebhookConfig("https://e.com", secret="hush"))
    assert body["config"] == {
        "service_mode": "public",
        "webhook_config": {"endpoint": "https://e.com", "secret": "hush"},
    }


@pytest.mark.parametrize("kind", REQUIRED)
@pytest.mark.parametrize("model", [SCHNELL, DEV, ADVANCED])
def test_which_model_runs_which_task_type(kind: type[Any], model: str) -> None:
    """Exactly the documented pairs of model and task type can be made; the others are refused by name."""
    allowed = RUNS[kind.task_type]
    assert set(flux.MODELS[kind.task_type]) == allowed
    if model in allowed:
        assert make(kind, model=model).model == model
    else:
        assert refusal(kind, model=model) == (
            f"ValueError: model must be '{ADVANCED}' for task type '{kind.task_type}', got '{model}'"
        )


def test_the_default_models() -> None:
    """Plain img2img runs on the cheapest model, the others on the only one that takes them."""
    assert [make(kind).model for kind in REQUIRED] == [SCHNELL, ADVANCED, ADVANCED]


@pytest.mark.parametrize("kind", REQUIRED)
@pytest.mark.parametrize(
    ("field", "allowed", "good", "bad"),
    [
        ("denoise", "a finite number > 0 and <= 1", [5e-324, 0.7, 1, 1.0], [0, 0.0, -0.1, 1.0000001, 2, 10**400]),
        (
            "guidance_scale",
            "a finite number >= 1.5 and <= 5",
            [1.5, 3, 5, 5.0],
            [1.4999999, 5.0000001, 0, -3, 7.5, math.nan, math.inf],
        ),
    ],
)
def test_ranges_at_their_ends(kind: type[Any], field: str, allowed: str, good: list[float], bad: list[float]) -> None:
    """`denoise` is above 0 up to 1, `guidance_scale` 1.5 to 5, both ends as documented."""
    assert [getattr(make(kind, **{field: value}), field) for value in good] == good
    for value in bad:
        assert refusal(kind, **{field: value}).startswith(f"ValueError: {field} must be {allowed}, got ")
    for wrong in ("1", True, [1]):
        assert refusal(kind, **{field: wrong}) == f"TypeError: {field} must be {allowed}, got {wrong!r}"


def test_a_batch_is_one_to_four_on_schnell_and_one_elsewhere() -> None:
    """Several pictures at once are for schnell only; 1, or nothing, is right everywhere."""
    assert [make(Img2Img, batch_size=size).batch_size for size in (None, 1, 2, 3, 4)] == [None, 1, 2, 3, 4]
    for size in (0, 5, -1):
        assert refusal(Img2Img, batch_size=size) == (
            f"ValueError: batch_size must be a whole number >= 1 and <= 4, got {size}"
        )
    for wrong in (2.0, "2", True):
        assert refusal(Img2Img, batch_size=wrong).startswith("TypeError: batch_size must be a whole number >= 1")
    for model in (DEV, ADVANCED):
        assert make(Img2Img, model=model, batch_size=1).batch_size == 1
        assert refusal(Img2Img, model=model, batch_size=2) == (
            f"ValueError: batch_size must be 1 or not set for model '{model}', got 2; '{SCHNELL}' takes 1 to 4"
        )


@pytest.mark.parametrize("kind", REQUIRED)
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prompt", "", "ValueError: prompt must be a text that is not blank, got ''"),
        ("prompt", "\n ", "ValueError: prompt must be a text that is not blank, got '\\n '"),
        ("prompt", None, "TypeError: prompt must be a string, got None"),
        ("negative_prompt", 5, "TypeError: negative_prompt must be a string, got 5"),
        ("service_mode", "ppu", "ValueError: service_mode must be one of 'public', 'private', got 'ppu'"),
        (
            "image",
            5,
            f"TypeError: image must be {SOURCES}, got 5",
        ),
        (
            "image",
            "photo.jpg",
            (f"ValueError: image must be {SOURCES}; a local file is Path(...), got 'photo.jpg'"),
        ),
        (
            "image",
            b"GIF8",
            f"ValueError: image must be the bytes of a picture ({_media.KNOWN_FORMATS}), got b'GIF8'",
        ),
    ],
)
def test_fields_that_all_share(kind: type[Any], field: str, value: object, words: str) -> None:
    """Each refusal names the field, the value and what is allowed."""
    assert refusal(kind, **{field: value}) == words


@pytest.mark.parametrize("kind", REQUIRED)
def test_what_is_required(kind: type[Any]) -> None:
    """Leaving out any required field is a `TypeError` that names it, and all fields are keyword-only."""
    for field in REQUIRED[kind]:
        with pytest.raises(TypeError, match=field):
            kind(**{name: value for name, value in REQUIRED[kind].items() if name != field})
    with pytest.raises(TypeError, match="positional"):
        kind("a bear")


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Img2ImgLora, {"lora": "mjv6"}, "TypeError: lora must be a LoRA, as in LoRA('mjv6'), got 'mjv6'"),
        (Img2ImgLora, {"lora": None}, "TypeError: lora must be a LoRA, as in LoRA('anime'), got None"),
        (
            Img2ImgLora,
            {"image": None},
            f"TypeError: image must be {SOURCES}, got",
        ),
        (ControlNetLora, {"lora": "mjv6"}, "TypeError: lora must be a LoRA, as in LoRA('mjv6'), got 'mjv6'"),
        (
            ControlNetLora,
            {"control_net": "depth"},
            "TypeError: control_net must be a ControlNet, as in ControlNet('canny', image=...), got 'depth'",
        ),
        (
            ControlNetLora,
            {"control_net": None},
            "TypeError: control_net must be a ControlNet, as in ControlNet('canny', image=...), got None",
        ),
    ],
)
def test_settings_are_values_of_their_own(kind: type[Any], fields: dict[str, Any], words: str) -> None:
    """A LoRA and a ControlNet are given as such, not by name."""
    assert refusal(kind, **fields).startswith(words)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400])
def test_a_strength_is_a_finite_number(value: float) -> None:
    """Strengths have no documented range, but have to be numbers that JSON has."""
    with pytest.raises(ValueError, match=r"^strength must be a finite number, got"):
        LoRA("mjv6", strength=value)
    with pytest.raises(ValueError, match=r"^strength must be a finite number, got"):
        ControlNet("depth", image=URL, strength=value)


@pytest.mark.parametrize("value", ["1", True])
def test_a_strength_is_no_text_and_no_bool(value: Any) -> None:
    """The service refuses numbers in strings, so they are refused here first."""
    with pytest.raises(TypeError, match=r"^strength must be a finite number, got"):
        LoRA("mjv6", strength=value)
    with pytest.raises(TypeError, match=r"^strength must be a finite number, got"):
        ControlNet("depth", image=URL, strength=value)


def test_other_fields_of_the_settings() -> None:
    """Images of settings are image sources, and `return_preprocessed_image` is a bool."""
    with pytest.raises(ValueError, match=r"^image must be an http"):
        LoRA("mjv6", image="a.png")
    with pytest.raises(ValueError, match=r"^image must be an http"):
        ControlNet("depth", image="a.png")
    flag: Any = 1
    with pytest.raises(TypeError, match=r"^return_preprocessed_image must be True or False, got 1$"):
        ControlNet("depth", image=URL, return_preprocessed_image=flag)


def test_known_names_do_not_warn() -> None:
    """Every name that PiAPI's pages use is taken in silence; there are no duplicates, and lists are in some order."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in flux.LORA_TYPES:
            LoRA(name)
        for name in flux.CONTROL_TYPES:
            ControlNet(name, image=URL)
    assert list(flux.LORA_TYPES) == sorted(set(flux.LORA_TYPES))
    assert len(flux.LORA_TYPES) == 23
    assert set(flux.CONTROL_TYPES) == {"depth", "soft_edge", "canny", "openpose", "hed"}


def test_unknown_names_warn_at_the_caller_and_are_sent() -> None:
    """A name from tomorrow's list warns where the user wrote it, says where the known ones are, and is sent."""
    with pytest.warns(UserWarning, match=r"^lora_type 'new' is not among .* piapi_async\.flux\.LORA_TYPES") as lora:
        request = make(Img2ImgLora, lora=LoRA("new"))
    with pytest.warns(
        UserWarning, match=r"^control_type 'new' is not among .* piapi_async\.flux\.CONTROL_TYPES"
    ) as net:
        control = ControlNet("new", image=URL)
    assert [record.filename for record in (*lora, *net)] == [__file__, __file__]
    assert sent(request)["input"]["lora_settings"] == [{"lora_type": "new"}]
    assert control.settings["control_type"] == "new"


@pytest.mark.parametrize(("value", "kind"), [("", ValueError), (" ", ValueError), (None, TypeError), (5, TypeError)])
def test_a_name_is_a_text(value: Any, kind: type[Exception]) -> None:
    """An open set of names is still a set of names."""
    with pytest.raises(kind, match=r"^lora_type must be a "):
        LoRA(value)
    with pytest.raises(kind, match=r"^control_type must be a "):
        ControlNet(value, image=URL)


LARGE = PNG + b"x" * 5_000_000


@pytest.mark.parametrize(
    "request_",
    [
        make(Img2Img, image=LARGE, prompt="a" * 10_000, negative_prompt="b" * 10_000),
        make(Img2Img, image=Path("/a" * 2000), denoise=0.1234567890123456, guidance_scale=1.2345678901234567 + 1),
        make(
            Img2Img, image="data:image/png;base64,iVBORw0KGgoA" + "A" * 5_000_000, batch_size=4, service_mode="private"
        ),
        make(Img2ImgLora, image=LARGE, lora=LoRA("mjv6", image=LARGE)),
        make(
            ControlNetLora,
            prompt="line\nline\n" * 99,
            image=LARGE,
            control_net=ControlNet("depth", image=LARGE, strength=0.5),
            lora=LoRA("paper-quilling-and-layering-style", strength=0.5, image=LARGE),
            negative_prompt="b" * 500,
            denoise=0.5,
        ),
    ],
    ids=range(5),
)
def test_a_request_shows_itself_in_a_line(request_: Any) -> None:
    """The `repr` of a request is one line of at most 450 characters, however much it carries."""
    shown = repr(request_)
    assert len(shown) <= 450
    assert len(shown.splitlines()) == 1


def test_what_a_request_shows() -> None:
    """A short request shows just what was set, as it would be written."""
    assert repr(make(Img2Img, denoise=0.5)) == (
        f"Img2Img(prompt='a bear', denoise=0.5, image='{URL[:12]}...{URL[-13:]}', model='Qubico/flux1-schnell')"
    )


@pytest.mark.parametrize("kind", REQUIRED)
def test_requests_are_values(kind: type[Any]) -> None:
    """Requests are frozen, equal when they ask for the same, and fit for sets, pictures in bytes included."""
    request = make(kind, image=PNG)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.prompt = "other"
    assert {request, make(kind, image=PNG), make(kind, image=PNG, denoise=0.5)} == {
        attrs.evolve(request, denoise=0.5),
        request,
    }


def test_requests_of_different_kinds_differ() -> None:
    """Two kinds of request are never equal."""
    assert make(Img2Img, model=ADVANCED) != make(Img2ImgLora)


def test_a_kind_of_request_has_to_say_what_it_sends() -> None:
    """A kind that does not name its own fields cannot be sent by mistake as if it had none."""
    with pytest.raises(NotImplementedError):
        _ = _base.FluxRequest(prompt="a bear").input


def test_the_documented_outpaint_settings_are_sent_as_documented() -> None:
    """The example of PiAPI's fill page: one item of `custom_settings` with all four sides."""
    request = flux.FillOutpaint(prompt="a beach", image=URL, left=500, right=500)
    settings = {"outpaint_left": 500, "outpaint_right": 500, "outpaint_top": 0, "outpaint_bottom": 0}
    assert sent(request)["input"] == {
        "prompt": "a beach",
        "image": URL,
        "custom_settings": [{"setting_type": "outpaint", **settings}],
    }


def test_the_documented_text_to_image_example_is_sent_as_documented() -> None:
    """The request of PiAPI's text-to-image page."""
    request = flux.Txt2Img(prompt="a little cat", model=DEV, width=1024, height=1024)
    assert sent(request) == {
        "model": "Qubico/flux1-dev",
        "task_type": "txt2img",
        "input": {"prompt": "a little cat", "width": 1024, "height": 1024},
    }


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (flux.Txt2Img, {"width": 1025, "height": 1024}, "width and height must give at most 1048576 pixels"),
        (flux.Txt2Img, {"width": 0}, "width must be a whole number >= 1, got 0"),
        (flux.Kontext, {"steps": 41}, "steps must be a whole number >= 1 and <= 40, got 41"),
        (flux.Kontext, {"seed": 1.5}, "seed must be a whole number, got 1.5"),
        (flux.FillOutpaint, {"left": 0}, "one of left, right, top and bottom must be above 0"),
        (flux.FillOutpaint, {"left": 1023, "top": 1024}, "must add fewer than 1048576 pixels"),
        (flux.FillOutpaint, {"left": 1048576}, "must add fewer than 1048576 pixels"),
        (flux.FillOutpaint, {"bottom": -1}, "bottom must be a whole number >= 0, got -1"),
    ],
)
def test_what_is_out_of_range_is_said_in_one_sentence(kind: type[Any], fields: dict[str, Any], words: str) -> None:
    """Field, value and what is allowed, before anything is sent."""
    with pytest.raises((TypeError, ValueError)) as caught:
        family.example(kind, **fields)
    said = str(caught.value)
    assert words in said
    assert "\n" not in said


KINDS = [getattr(flux, name) for name in flux.__all__ if attrs.has(getattr(flux, name))]
NEEDED: dict[str, Any] = {
    "prompt": "p",
    "image": "https://example.com/a.jpg",
    "lora": LoRA("anime"),
    "control_net": ControlNet("canny", image="https://example.com/a.jpg"),
    "control_type": "canny",
    "lora_type": "anime",
    "left": 5,
}
WRONG = [b"x", [], {}, object(), LoRA, {1}, 1j, np.zeros(3), io.StringIO("x")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_wrong_type_is_a_type_error_in_every_field(kind: Any) -> None:
    """Whatever the class and the field, what has the wrong type raises `TypeError` and names the field."""
    fields = {field.name: field for field in attrs.fields(kind)}
    needed = {name: value for name, value in NEEDED.items() if name in fields}
    kind(**needed)
    for name in fields:
        for value in WRONG:
            if name == "image" and isinstance(value, bytes):
                continue  # of the right type, and no picture
            with pytest.raises(TypeError, match=f"^{name} must be .*, got "):
                kind(**{**needed, name: value})


def test_a_name_is_shown_as_the_lora_that_it_stands_for() -> None:
    """A LoRA or a ControlNet that is given by its name alone is refused with what to write instead."""
    for asked in ({"lora": "mjv6"}, {"lora": "mjv6", "image": "https://example.com/a.jpg"}):
        with pytest.raises(TypeError, match=r"as in LoRA\('mjv6'\), got 'mjv6'$"):
            (Img2ImgLora if "image" in asked else Txt2ImgLora)(prompt="p", **asked)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"as in ControlNet\('canny', image=...\), got 'canny'$"):
        ControlNetLora(prompt="p", control_net="canny")  # type: ignore[arg-type]
