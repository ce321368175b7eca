"""What `POST /api/v1/task` accepts: the tables of the documentation, and one reader for them.

Sources: piapi.ai/docs/flux-api/image-to-image, .../text-to-image and .../kontext (fields and ranges),
piapi.ai/docs/flux-with-lora-and-controlnet (which model runs which task type, how many LoRAs and control nets),
piapi.ai/docs/flux-redux-fill-variation-inpaint-outpaint. The server is written in Go: `null` counts as absent, an
unknown field is dropped, and a number sent as a string is refused in Go's words.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs

from piapi_async.emulator.options import Options

_USUAL = Options()
_KINDS = {
    type(None): "null",
    bool: "bool",
    str: "string",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}
ADVANCED = "Qubico/flux1-dev-advanced"
SIDES = ("left", "right", "top", "bottom")
MODELS = ("Qubico/flux1-schnell", "Qubico/flux1-dev", ADVANCED)


class Refusal(Exception):  # noqa: N818 - it is the service's answer, not a mistake of ours
    """The service says no: an HTTP status and its words.

    Args:
        status: 400 or more.

        message: The reason.

        transport: How it travels, whatever `Options.error_transport` says.

        headers: What goes with it.
    """

    def __init__(
        self, status: int, message: str, *, transport: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.transport = transport
        self.headers = headers or {}


@attrs.frozen(kw_only=True)
class Submission:
    """A create request that passed, in the form in which it is echoed."""

    model: str
    task_type: str
    input: Mapping[str, Any]
    config: Mapping[str, Any]
    images: int
    """How many pictures were ordered."""
    wants_guide: bool
    """Whether the preprocessed control image was asked for as well; it is not charged."""


@attrs.frozen(kw_only=True)
class _TaskType:
    models: tuple[str, ...] = (ADVANCED,)
    image: Literal["required", "optional", "none"] = "required"
    loras: range = range(1)
    control_nets: range = range(1)
    outpaints: range = range(1)


_TASK_TYPES = {
    "txt2img": _TaskType(models=MODELS, image="none"),
    "txt2img-lora": _TaskType(image="none", loras=range(1, 2)),
    "img2img": _TaskType(models=MODELS),
    "img2img-lora": _TaskType(loras=range(1, 2)),
    "controlnet-lora": _TaskType(image="optional", loras=range(2), control_nets=range(1, 2)),
    "fill-inpaint": _TaskType(),
    "fill-outpaint": _TaskType(outpaints=range(1, 2)),
    "redux-variation": _TaskType(),
    "kontext": _TaskType(),
}
_MOST_PIXELS = 1_048_576
_MOST_KONTEXT_STEPS = 40

_Reader = Callable[[Any, str], Any]


def _mismatch(value: object, *, where: str, go_type: str) -> Refusal:
    kind = _KINDS[type(value)]
    return Refusal(400, f"json: cannot unmarshal {kind} into Go struct field {where} of type {go_type}")


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(value, where=where, go_type="string")
    return value


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _mismatch(value, where=where, go_type="bool")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        raise _mismatch(value, where=where, go_type="float64")
    return value


def _integer(value: Any, where: str) -> int:
    number = _number(value, where)
    if not float(number).is_integer():
        raise _mismatch(value, where=where, go_type="int")
    return int(number)


def _ranged(read: _Reader, *, low: float, high: float, open_low: bool = False) -> _Reader:
    bounds = f"{'>' if open_low else '>='} {low} and <= {high}"

    def reader(value: Any, where: str) -> float:
        number: float = read(value, where)
        if not low <= number <= high or (open_low and number == low):
            raise Refusal(400, f"{where.rpartition('.')[2]} must be {bounds}")
        return number

    return reader


def _one_of(*words: str) -> _Reader:
    def reader(value: Any, where: str) -> str:
        word = _string(value, where)
        if word not in words:
            raise Refusal(400, f"{where.rpartition('.')[2]} must be {' or '.join(filter(None, words))}")
        return word

    return reader


def _object(fields: Mapping[str, _Reader], *, required: tuple[str, ...] = (), strict: bool = False) -> _Reader:
    def reader(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch(value, where=where, go_type="object")
        unknown = [name for name in value if name not in fields]
        if strict and unknown:
            raise Refusal(400, f"json: unknown field {unknown[0]}")
        read = {
            name: fields[name](item, f"{where}.{name}")
            for name, item in value.items()
            if name in fields and item is not None
        }
        for name in required:
            if not read.get(name):
                raise Refusal(400, f"{name} is required")
        return read

    return reader


def _array(of: _Reader) -> _Reader:
    def reader(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise _mismatch(value, where=where, go_type="[]object")
        return [of(item, where) for item in value]

    return reader


def _task(*, strict: bool) -> _Reader:
    config = {
        "service_mode": _one_of("", "public", "private"),
        "webhook_config": _object({"endpoint": _string, "secret": _string}, strict=strict),
    }
    fields = {
        "model": _string,
        "task_type": _string,
        "input": _input(strict=strict),
        "config": _object(config, strict=strict),
    }
    return _object(fields, required=("model", "task_type", "input"), strict=strict)


def _input(*, strict: bool) -> _Reader:
    fields = {
        "prompt": _string,
        "negative_prompt": _string,
        "image": _string,
        "width": _ranged(_integer, low=0, high=math.inf),
        "height": _ranged(_integer, low=0, high=math.inf),
        "steps": _ranged(_integer, low=0, high=math.inf),
        "seed": _integer,
        "denoise": _ranged(_number, low=0, high=1, open_low=True),
        "guidance_scale": _ranged(_number, low=1.5, high=5),
        "batch_size": _ranged(_integer, low=1, high=4),
        "lora_settings": _array(_lora(strict=strict)),
        "control_net_settings": _array(_control_net(strict=strict)),
        "custom_settings": _array(_outpaint(strict=strict)),
    }
    return _object(fields, required=("prompt",), strict=strict)


def _lora(*, strict: bool) -> _Reader:
    fields = {"lora_type": _string, "lora_image": _string, "lora_strength": _number}
    return _object(fields, required=("lora_type",), strict=strict)


def _control_net(*, strict: bool) -> _Reader:
    fields = {
        "control_type": _string,
        "control_image": _string,
        "control_strength": _number,
        "return_preprocessed_image": _boolean,
    }
    return _object(fields, required=("control_type", "control_image"), strict=strict)


def _outpaint(*, strict: bool) -> _Reader:
    margin = _ranged(_integer, low=0, high=_MOST_PIXELS)
    fields = {"setting_type": _one_of("outpaint"), **{f"outpaint_{side}": margin for side in SIDES}}
    return _object(fields, required=("setting_type",), strict=strict)


_TASK = {"dropped": _task(strict=False), "refused": _task(strict=True)}
"""The whole schema, by `Options.unknown_fields`."""


def read_submission(body: bytes, *, options: Options = _USUAL) -> Submission:
    """Check a create request.

    Raises:
        Refusal: With status 400 and the reason.
    """
    task = _TASK[options.unknown_fields](_parse(body), "Task")
    model, task_type, given = task["model"], task["task_type"], task["input"]
    _check_model(model, task_type)
    kind = _TASK_TYPES[task_type]
    _check_input(given, kind=kind, task_type=task_type)
    return Submission(
        model=model,
        task_type=task_type,
        input=_echo(given, kind=kind),
        config=_echo_config(task.get("config", {})),
        images=_images(given, model=model, others=options.other_batches),
        wants_guide=any(net.get("return_preprocessed_image") for net in given.get("control_net_settings", ())),
    )


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "request body is not valid JSON") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_model(model: str, task_type: str) -> None:
    if task_type not in _TASK_TYPES:
        raise Refusal(400, f"invalid task type {task_type}")
    if model not in _TASK_TYPES[task_type].models:
        raise Refusal(400, "invalid model")


def _check_input(given: Mapping[str, Any], *, kind: _TaskType, task_type: str) -> None:
    if kind.image == "required" and not given.get("image"):
        raise Refusal(400, "image is required")
    _check_count(given, name="lora_settings", allowed=kind.loras, task_type=task_type)
    _check_count(given, name="control_net_settings", allowed=kind.control_nets, task_type=task_type)
    _check_count(given, name="custom_settings", allowed=kind.outpaints, task_type=task_type)
    _check_size(given, kind=kind)
    if task_type == "kontext" and given.get("steps", 0) > _MOST_KONTEXT_STEPS:
        raise Refusal(400, f"steps must be <= {_MOST_KONTEXT_STEPS}")


def _check_size(given: Mapping[str, Any], *, kind: _TaskType) -> None:
    # The limit stands on the text-to-image page, and on no other.
    if kind.image == "none" and (given.get("width") or 1) * (given.get("height") or 1) > _MOST_PIXELS:
        raise Refusal(400, f"width * height must be <= {_MOST_PIXELS}")
    for margins in given.get("custom_settings", ()):
        left, right, top, bottom = (margins.get(f"outpaint_{side}", 0) for side in SIDES)
        # The sides of the image are not known yet: round a single pixel it is the least that they add.
        if (1 + left + right) * (1 + top + bottom) - 1 >= _MOST_PIXELS:
            raise Refusal(400, f"outpainted pixels must be < {_MOST_PIXELS}")


def _images(given: Mapping[str, Any], *, model: str, others: str) -> int:
    count = int(given.get("batch_size", 1))
    if count == 1 or model == MODELS[0] or others == "honoured":
        return count
    if others == "refused":
        raise Refusal(400, f"batch_size only works for {MODELS[0]}")
    return 1


def _check_count(given: Mapping[str, Any], *, name: str, allowed: range, task_type: str) -> None:
    count = len(given.get(name, ()))
    if count not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise Refusal(400, f"{name} has {count} items, {task_type} takes {wanted}")


def _echo(given: Mapping[str, Any], *, kind: _TaskType) -> dict[str, Any]:
    zeros = {"prompt": "", "negative_prompt": "", "image": "", "width": 0, "height": 0, "steps": 0}
    return {**zeros, **given, **({"image": ""} if kind.image == "none" else {})}


def _echo_config(given: Mapping[str, Any]) -> dict[str, Any]:
    webhook = {"endpoint": "", "secret": "", **given.get("webhook_config", {})}
    return {"service_mode": given.get("service_mode", ""), "webhook_config": webhook}
