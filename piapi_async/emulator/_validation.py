"""What `POST /api/v1/task` accepts: the tables of the documentation, and one reader for them.

Sources: piapi.ai/docs/flux-api/image-to-image (fields and ranges), piapi.ai/docs/flux-with-lora-and-controlnet (which
model runs which task type, how many LoRAs and control nets). The server is written in Go: `null` counts as absent, an
unknown field is dropped, and a number sent as a string is refused in Go's words.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import attrs

_KINDS = {
    type(None): "null",
    bool: "bool",
    str: "string",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}
_ADVANCED = "Qubico/flux1-dev-advanced"
MODELS = ("Qubico/flux1-schnell", "Qubico/flux1-dev", _ADVANCED)


class Refusal(Exception):  # noqa: N818 - it is the service's answer, not a mistake of ours
    """The service says no: an HTTP status and its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@attrs.frozen(kw_only=True)
class Submission:
    """A create request that passed, in the form in which it is echoed."""

    model: str
    task_type: str
    input: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def images(self) -> int:
        """How many pictures were ordered."""
        return int(self.input.get("batch_size") or 1)


@attrs.frozen(kw_only=True)
class _TaskType:
    models: tuple[str, ...]
    needs_image: bool
    loras: range
    control_nets: range


_TASK_TYPES = {
    "img2img": _TaskType(models=MODELS, needs_image=True, loras=range(1), control_nets=range(1)),
    "img2img-lora": _TaskType(models=(_ADVANCED,), needs_image=True, loras=range(1, 2), control_nets=range(1)),
    "controlnet-lora": _TaskType(models=(_ADVANCED,), needs_image=False, loras=range(2), control_nets=range(1, 2)),
}

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


def _service_mode(value: Any, where: str) -> str:
    mode = _string(value, where)
    if mode not in ("", "public", "private"):
        raise Refusal(400, "service_mode must be public or private")
    return mode


def _ranged(read: _Reader, *, low: float, high: float, open_low: bool = False) -> _Reader:
    bounds = f"{'>' if open_low else '>='} {low} and <= {high}"

    def reader(value: Any, where: str) -> float:
        number: float = read(value, where)
        if not low <= number <= high or (open_low and number == low):
            raise Refusal(400, f"{where.rpartition('.')[2]} must be {bounds}")
        return number

    return reader


def _object(fields: Mapping[str, _Reader], *, required: tuple[str, ...] = ()) -> _Reader:
    def reader(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch(value, where=where, go_type="object")
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


_LORA = _object({"lora_type": _string, "lora_image": _string, "lora_strength": _number}, required=("lora_type",))
_CONTROL_NET = _object(
    {
        "control_type": _string,
        "control_image": _string,
        "control_strength": _number,
        "return_preprocessed_image": _boolean,
    },
    required=("control_type", "control_image"),
)
_INPUT = _object(
    {
        "prompt": _string,
        "negative_prompt": _string,
        "image": _string,
        "width": _integer,
        "height": _integer,
        "steps": _integer,
        "denoise": _ranged(_number, low=0, high=1, open_low=True),
        "guidance_scale": _ranged(_number, low=1.5, high=5),
        "batch_size": _ranged(_integer, low=1, high=4),
        "lora_settings": _array(_LORA),
        "control_net_settings": _array(_CONTROL_NET),
    },
    required=("prompt",),
)
_CONFIG = _object({"service_mode": _service_mode, "webhook_config": _object({"endpoint": _string, "secret": _string})})
_TASK = _object(
    {"model": _string, "task_type": _string, "input": _INPUT, "config": _CONFIG},
    required=("model", "task_type", "input"),
)


def read_submission(body: bytes) -> Submission:
    """Check a create request.

    Raises:
        Refusal: With status 400 and the reason.
    """
    task = _TASK(_parse(body), "Task")
    model, task_type, given = task["model"], task["task_type"], task["input"]
    _check_model(model, task_type)
    _check_input(given, model=model, kind=_TASK_TYPES[task_type], task_type=task_type)
    return Submission(model=model, task_type=task_type, input=_echo(given), config=_echo_config(task.get("config", {})))


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


def _check_input(given: Mapping[str, Any], *, model: str, kind: _TaskType, task_type: str) -> None:
    if kind.needs_image and not given.get("image"):
        raise Refusal(400, "image is required")
    if given.get("batch_size", 1) > 1 and model != MODELS[0]:
        raise Refusal(400, f"batch_size only works for {MODELS[0]}")
    _check_count(given, name="lora_settings", allowed=kind.loras, task_type=task_type)
    _check_count(given, name="control_net_settings", allowed=kind.control_nets, task_type=task_type)


def _check_count(given: Mapping[str, Any], *, name: str, allowed: range, task_type: str) -> None:
    count = len(given.get(name, ()))
    if count not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise Refusal(400, f"{name} has {count} items, {task_type} takes {wanted}")


def _echo(given: Mapping[str, Any]) -> dict[str, Any]:
    zeros = {"prompt": "", "negative_prompt": "", "image": "", "width": 0, "height": 0, "steps": 0}
    return {**zeros, **given}


def _echo_config(given: Mapping[str, Any]) -> dict[str, Any]:
    webhook = {"endpoint": "", "secret": "", **given.get("webhook_config", {})}
    return {"service_mode": given.get("service_mode", ""), "webhook_config": webhook}
