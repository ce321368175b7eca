"""What the typed requests accept, the emulator accepts; what they refuse, it refuses.

Both are written from the documentation, neither from the other. The body that is sent stands here a third time: what
a user means, in the service's words, made without the requests.
"""

import json
import math
import os
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from piapi_async import ControlNet, LoRA, flux
from piapi_async.emulator._service.validation import Refusal, read_submission
from piapi_async.flux import DEV, DEV_ADVANCED, SCHNELL

URL = "https://example.com/a.jpg"
EXAMPLES = int(os.environ.get("AGREEMENT_EXAMPLES", "1000"))
ODD: st.SearchStrategy[Any] = st.sampled_from(["7", "", True, [], {}, 1e308, math.inf, math.nan, 10**400])


def numbers(*bounds: float, odd: bool = True) -> st.SearchStrategy[Any]:
    """Numbers close to the bounds, on them, far from them, and what is no number."""
    near = [bound + step for bound in bounds for step in (-1, -0.5, 0, 0.5, 1)]
    whole = [int(number) for number in near if float(number).is_integer()]
    return st.sampled_from(near + whole * 3) | (ODD if odd else st.nothing())


WHOLE = st.sampled_from([0, 1, 2, 28, 40, 41, 512, 1024, 1025, 2048, -3, 2.5]) | ODD
MARGINS = st.sampled_from([0, 1, 64, 500, 1022, 1023, 1024, 1048574, 1048575, 1048576, -1, 1.5])
LORAS = st.fixed_dictionaries({"lora_type": st.sampled_from(["mjv6", "anime"])}, optional={"strength": numbers(0.5)})
NETS = st.fixed_dictionaries(
    {"control_type": st.sampled_from(["depth", "canny"])},
    optional={"strength": numbers(0.5), "return_preprocessed_image": st.booleans()},
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "negative_prompt": st.sampled_from(["", "blur", 5]),
    "denoise": numbers(0, 1) | st.floats(),
    "guidance_scale": numbers(1.5, 5) | st.floats(),
    "batch_size": numbers(1, 4),
    "width": WHOLE,
    "height": WHOLE,
    "steps": WHOLE,
    "seed": WHOLE | st.integers(),
    "lora": LORAS,
    "control_net": NETS,
    "left": MARGINS,
    "right": MARGINS,
    "top": MARGINS,
    "bottom": MARGINS,
}
GUIDED = {"negative_prompt", "denoise", "guidance_scale"}
KINDS: dict[type[Any], tuple[set[str], set[str]]] = {
    flux.Img2Img: ({"image"}, GUIDED | {"batch_size"}),
    flux.Img2ImgLora: ({"image", "lora"}, GUIDED | {"steps"}),
    flux.ControlNetLora: ({"control_net"}, GUIDED | {"image", "lora", "steps"}),
    flux.Txt2Img: (set(), GUIDED | {"batch_size", "width", "height"}),
    flux.Txt2ImgLora: ({"lora"}, GUIDED | {"width", "height", "steps"}),
    flux.FillInpaint: ({"image"}, set()),
    flux.FillOutpaint: ({"image"}, {"left", "right", "top", "bottom"}),
    flux.ReduxVariation: ({"image"}, set()),
    flux.Kontext: ({"image"}, {"width", "height", "seed", "steps"}),
}
"""Each class with the fields that it needs and those that it may have."""


@st.composite
def asked(draw: st.DrawFn) -> tuple[type[Any], dict[str, Any]]:
    """A kind of request, and fields as a user may give them."""
    kind = draw(st.sampled_from(list(KINDS)))
    needed, possible = KINDS[kind]
    some = draw(st.sets(st.sampled_from(sorted(possible)), max_size=4)) if possible else set()
    fields = {name: URL if name == "image" else draw(FIELDS[name]) for name in sorted(needed | some)}
    # Mostly a usual model, or nearly all would be refused for it.
    model = draw(st.sampled_from([DEV_ADVANCED] * 6 + [SCHNELL, SCHNELL, DEV, "Qubico/flux1-pro"]))
    return kind, {"prompt": draw(st.sampled_from(["a bear"] * 9 + [5])), "model": model, **fields}


def body(kind: type[Any], fields: dict[str, Any]) -> bytes:
    """What the user means, in the service's words."""
    task_input = {k: v for k, v in fields.items() if k not in ("model", "lora", "control_net", *SIDES)}
    if "lora" in fields:
        lora = fields["lora"]
        task_input["lora_settings"] = [
            {"lora_type": lora["lora_type"]} | ({"lora_strength": lora["strength"]} if "strength" in lora else {})
        ]
    if "control_net" in fields:
        net = dict(fields["control_net"])
        strength = {"control_strength": net.pop("strength")} if "strength" in net else {}
        task_input["control_net_settings"] = [{"control_image": URL, **net, **strength}]
    if kind is flux.FillOutpaint:
        sides = {f"outpaint_{side}": fields.get(side, 0) for side in SIDES}
        task_input["custom_settings"] = [{"setting_type": "outpaint", **sides}]
    return json.dumps({"model": fields["model"], "task_type": kind.task_type, "input": task_input}).encode()


SIDES = ("left", "right", "top", "bottom")


def client_accepts(kind: type[Any], fields: dict[str, Any]) -> bool:
    """Whether the request can be made."""
    given = dict(fields)
    try:
        if "lora" in given:
            given["lora"] = LoRA(**given["lora"])
        if "control_net" in given:
            given["control_net"] = ControlNet(**given["control_net"], image=URL)
        kind(**given)
    except (TypeError, ValueError):
        return False
    return True


def emulator_accepts(sent: bytes) -> bool:
    """Whether the emulator takes the body."""
    try:
        read_submission(sent)
    except Refusal:
        return False
    return True


def is_open(kind: type[Any], fields: dict[str, Any]) -> bool:
    """Where the two may differ: the documentation leaves it open, and the client is the stricter.

    - A whole number as `2.0`: JSON does not tell it from 2, Python does.
    - Outpainting by nothing, which would pay for the same picture.
    - Zero for a size or for steps, which is how a Go server spells "not given".
    """
    whole = {"width", "height", "steps", "seed", "batch_size", *SIDES}
    as_float = any(isinstance(value, float) and value.is_integer() for name, value in fields.items() if name in whole)
    nothing = kind is flux.FillOutpaint and not any(fields.get(side) for side in SIDES)
    not_given = any(fields.get(name) == 0 for name in ("width", "height", "steps"))
    return as_float or nothing or not_given


@pytest.mark.filterwarnings("ignore:lora_type|control_type")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked())
def test_the_client_and_the_emulator_agree(request: tuple[type[Any], dict[str, Any]]) -> None:
    """`AGREEMENT_EXAMPLES=10000 pytest tests/test_agreement.py` asks ten thousand times."""
    kind, fields = request
    client, emulator = client_accepts(kind, fields), emulator_accepts(body(kind, fields))
    assert client == emulator or (emulator and is_open(kind, fields)), (client, emulator)


def test_the_random_requests_are_of_both_sorts() -> None:
    """Of what is asked, at least a quarter is accepted and a quarter refused, so that agreeing means something."""
    outcomes: list[bool] = []

    @settings(max_examples=400, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(asked())
    def collect(request: tuple[type[Any], dict[str, Any]]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcomes.append(client_accepts(*request))

    collect()
    assert 0.25 < sum(outcomes) / len(outcomes) < 0.75
