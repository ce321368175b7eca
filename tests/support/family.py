"""The whole Flux family as a table: `python tests/support/family.py` prints the one in the README."""

from collections.abc import Iterator
from typing import Any

import attrs

from piapi_async import flux
from piapi_async.prices import PRICES

CLASSES: tuple[type[Any], ...] = (
    flux.Img2Img,
    flux.Img2ImgLora,
    flux.ControlNetLora,
    flux.Txt2Img,
    flux.Txt2ImgLora,
    flux.FillInpaint,
    flux.FillOutpaint,
    flux.ReduxVariation,
    flux.Kontext,
)

EXAMPLE: dict[str, Any] = {
    "prompt": "a bear",
    "image": "https://example.com/a.jpg",
    "lora": flux.LoRA("mjv6"),
    "control_net": flux.ControlNet("depth", image="https://example.com/a.jpg"),
    "left": 64,
}


def example(kind: type[Any], **more: Any) -> Any:
    """A request of a kind with no more than what it needs, and these fields."""
    needed = {field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING}
    needed |= {"left"} if kind is flux.FillOutpaint else set()
    return kind(**({name: EXAMPLE[name] for name in needed} | more))


def _fields(kind: type[Any]) -> str:
    fields = [field for field in attrs.fields(kind) if field.name not in ("prompt", "model", "service_mode")]
    required = [f"**`{field.name}`**" for field in fields if field.default is attrs.NOTHING]
    return ", ".join(required + [f"`{field.name}`" for field in fields if field.default is not attrs.NOTHING])


def _price(kind: type[Any]) -> str:
    prices = [f"{example(kind, model=model).estimate():.4f}".rstrip("0") for model in flux.MODELS[kind.task_type]]
    return " / ".join(prices)


def _models(kind: type[Any]) -> str:
    return " / ".join(model.removeprefix("Qubico/flux1-") for model in flux.MODELS[kind.task_type])


def rows() -> Iterator[str]:
    """The table, line by line."""
    yield "| task type | class | fields besides `prompt` (**needed**) | models `Qubico/flux1-…` | USD a picture |"
    yield "|---|---|---|---|---|"
    for kind in CLASSES:
        yield f"| `{kind.task_type}` | `{kind.__name__}` | {_fields(kind)} | {_models(kind)} | {_price(kind)} |"
    yield f"| any | `TaskRequest` | **`input`**, as PiAPI documents it | any | `PRICES` of {PRICES.as_of} knows Flux |"


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201 - that is what it is for
