"""What a create request may hold, by the documentation (grade D unless said otherwise)."""

import json
from typing import Any

import pytest

from piapi_async.emulator._service.validation import Refusal, Submission, read_submission

SCHNELL, DEV, ADVANCED = "Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced"
IMAGE = "https://example.com/a.jpg"
LORA = {"lora_type": "mjv6"}
CONTROL = {"control_type": "depth", "control_image": IMAGE}


def read(task_type: str = "img2img", *, model: str = ADVANCED, config: Any = None, **given: Any) -> Submission:
    """Read a task; an input value of `...` leaves the field out."""
    fields = {"prompt": "a bear", "image": IMAGE, **given}
    task = {
        "model": model,
        "task_type": task_type,
        "input": {name: value for name, value in fields.items() if value is not ...},
        "config": config,
    }
    return read_submission(json.dumps(task).encode())


def refusal(task_type: str = "img2img", **options: Any) -> str:
    """The words in which a task is refused, which must be with 400."""
    with pytest.raises(Refusal) as caught:
        read(task_type, **options)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize("model", [SCHNELL, DEV, ADVANCED])
def test_img2img_runs_on_every_model(model: str) -> None:
    """2.2: img2img is offered by schnell, dev and dev-advanced."""
    assert read(model=model).model == model


@pytest.mark.parametrize("model", [SCHNELL, DEV])
@pytest.mark.parametrize("task_type", ["img2img-lora", "controlnet-lora"])
def test_lora_and_control_net_run_on_advanced_only(task_type: str, model: str) -> None:
    """2.2: a LoRA or a ControlNet on schnell or dev is an "invalid model"."""
    more = {"lora_settings": [LORA]} if task_type == "img2img-lora" else {"control_net_settings": [CONTROL]}
    assert refusal(task_type, model=model, **more) == "invalid model"
    assert read(task_type, model=ADVANCED, **more).task_type == task_type


def test_an_unknown_model_is_an_invalid_model() -> None:
    """4.8 (T): a wrong model name is answered with "invalid model"."""
    assert refusal(model="Qubico/flux1-dev-fill") == "invalid model"


def test_an_unknown_task_type_is_refused() -> None:
    """2.2: the page has an enum; what this emulator does not run it refuses."""
    assert refusal("txt2audio") == "invalid task type txt2audio"


@pytest.mark.parametrize("field", ["prompt", "image"])
@pytest.mark.parametrize("value", [..., None, ""])
def test_prompt_and_image_are_required(field: str, value: Any) -> None:
    """2.3: both are marked required; Go cannot tell an empty string from none."""
    assert refusal(**{field: value}) == f"{field} is required"


@pytest.mark.parametrize("field", ["model", "task_type", "input"])
def test_the_three_top_fields_are_required(field: str) -> None:
    """2.3: model, task_type and input are required, config is not."""
    task = {"model": SCHNELL, "task_type": "img2img", "input": {"prompt": "p", "image": IMAGE}}
    read_submission(json.dumps(task).encode())
    del task[field]
    with pytest.raises(Refusal, match=f"^{field} is required$"):
        read_submission(json.dumps(task).encode())


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("denoise", (0.0001, 0.7, 1), (0, -0.1, 1.01)),
        ("guidance_scale", (1.5, 3, 5), (1.49, 5.01, 0)),
        ("batch_size", (1, 4, 2.0), (0, 5, -1)),
    ],
)
def test_numbers_have_ranges(field: str, good: tuple[float, ...], bad: tuple[float, ...]) -> None:
    """2.3: 0 < denoise <= 1, 1.5 <= guidance_scale <= 5, 1 <= batch_size <= 4."""
    for value in good:
        assert read(model=SCHNELL, **{field: value}).input[field] == value
    for value in bad:
        assert refusal(model=SCHNELL, **{field: value}).startswith(f"{field} must be >")


@pytest.mark.parametrize("model", [DEV, ADVANCED])
def test_batches_work_on_schnell_only(model: str) -> None:
    """2.3: batch_size "only works for schnell at the moment"; a batch of one is no batch."""
    assert "only works" in refusal(model=model, batch_size=2)
    assert read(model=model, batch_size=1).images == 1
    assert read(model=SCHNELL, batch_size=3).images == 3


@pytest.mark.parametrize("field", ["denoise", "guidance_scale", "batch_size", "steps", "width"])
@pytest.mark.parametrize(("value", "kind"), [("0.7", "string"), (True, "bool"), ([1], "array"), ({}, "object")])
def test_numbers_of_another_type_are_refused_as_go_does(field: str, value: Any, kind: str) -> None:
    """2.3 (T): "cannot unmarshal string into ... of type float64"."""
    where = f"Go struct field Task.input.{field}"
    assert f"cannot unmarshal {kind} into {where} of type float64" in refusal(model=SCHNELL, **{field: value})


def test_integers_have_no_fraction() -> None:
    """Steps 4.5 does not fit into Go's int."""
    assert refusal(steps=4.5).endswith("of type int")
    assert read(steps=4).input["steps"] == 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prompt": 5}, "number into Go struct field Task.input.prompt of type string"),
        ({"negative_prompt": []}, "array into Go struct field Task.input.negative_prompt of type string"),
        ({"lora_settings": {}}, "object into Go struct field Task.input.lora_settings of type []object"),
        ({"lora_settings": ["mjv6"]}, "string into Go struct field Task.input.lora_settings of type object"),
        ({"lora_settings": [None]}, "null into Go struct field Task.input.lora_settings of type object"),
        ({"lora_settings": [{**LORA, "lora_strength": "1"}]}, "lora_strength of type float64"),
        (
            {"control_net_settings": [{**CONTROL, "return_preprocessed_image": 1}]},
            "return_preprocessed_image of type bool",
        ),
        ({"config": []}, "array into Go struct field Task.config of type object"),
        ({"config": {"webhook_config": "x"}}, "webhook_config of type object"),
    ],
)
def test_other_fields_have_types_too(given: dict[str, Any], words: str) -> None:
    """2.3, 2.4: types of the schema."""
    assert words in refusal(**given)


@pytest.mark.parametrize(
    ("task_type", "loras", "controls", "fits"),
    [
        ("img2img", 0, 0, True),
        ("img2img", 1, 0, False),
        ("img2img", 0, 1, False),
        ("img2img-lora", 0, 0, False),
        ("img2img-lora", 1, 0, True),
        ("img2img-lora", 2, 0, False),
        ("img2img-lora", 1, 1, False),
        ("controlnet-lora", 0, 0, False),
        ("controlnet-lora", 0, 1, True),
        ("controlnet-lora", 1, 1, True),
        ("controlnet-lora", 2, 1, False),
        ("controlnet-lora", 0, 2, False),
    ],
)
def test_each_task_type_takes_its_number_of_loras_and_control_nets(
    task_type: str, loras: int, controls: int, fits: bool
) -> None:
    """2.2: the table; "more than one: contact us"."""
    more = {"lora_settings": [LORA] * loras, "control_net_settings": [CONTROL] * controls}
    if fits:
        assert read(task_type, **more).task_type == task_type
    else:
        assert f", {task_type} takes " in refusal(task_type, **more)


def test_all_settings_of_a_control_net_are_echoed() -> None:
    """2.4: strength and return_preprocessed_image stand in the documented examples."""
    settings = [{**CONTROL, "control_strength": 0.45, "return_preprocessed_image": True}]
    assert read("controlnet-lora", control_net_settings=settings).input["control_net_settings"] == settings


def test_control_net_needs_no_image() -> None:
    """2.4: the documented controlnet-lora examples carry no image."""
    assert read("controlnet-lora", image=..., control_net_settings=[CONTROL]).input["image"] == ""


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"lora_settings": [{"lora_strength": 1}]}, "lora_type"),
        ({"control_net_settings": [{"control_type": "depth"}]}, "control_image"),
        ({"control_net_settings": [{"control_image": IMAGE}]}, "control_type"),
    ],
)
def test_settings_have_required_fields(more: dict[str, Any], field: str) -> None:
    """2.4: lora_type, control_type and control_image are required."""
    assert refusal(**more) == f"{field} is required"


def test_names_of_loras_and_control_nets_are_open_sets() -> None:
    """2.5: new names come and go; an unknown one is accepted."""
    settings = {
        "lora_settings": [{"lora_type": "brand-new"}],
        "control_net_settings": [{**CONTROL, "control_type": "x"}],
    }
    assert read("controlnet-lora", **settings).input["lora_settings"] == [{"lora_type": "brand-new"}]


def test_null_counts_as_absent_and_unknown_fields_are_dropped() -> None:
    """Go's way with JSON: null leaves the zero value, a field the struct lacks is ignored."""
    submission = read(denoise=None, aspect_ratio="16:9", lora_settings=None)
    assert submission.input == {
        "prompt": "a bear",
        "negative_prompt": "",
        "image": IMAGE,
        "width": 0,
        "height": 0,
        "steps": 0,
    }


def test_service_mode_is_public_private_or_unset() -> None:
    """3.1: the enum of service_mode."""
    assert read(config={"service_mode": "private"}).config["service_mode"] == "private"
    assert refusal(config={"service_mode": "byoa"}) == "service_mode must be public or private"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"9" * 5000],
    ids=["empty", "cut", "not utf-8", "NaN", "deep", "long number"],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    """A body that is no JSON gives 400, whatever it is instead."""
    with pytest.raises(Refusal, match="not valid JSON") as caught:
        read_submission(body)
    assert caught.value.status == 400


@pytest.mark.parametrize("number", ["1e999", "9" * 400])
def test_numbers_beyond_a_float_are_refused(number: str) -> None:
    """A number that float64 cannot hold is a type mismatch, and never echoed as Infinity."""
    body = json.dumps({"model": SCHNELL, "task_type": "img2img", "input": {"denoise": 123}}).replace("123", number)
    with pytest.raises(Refusal, match="of type float64"):
        read_submission(body.encode())
