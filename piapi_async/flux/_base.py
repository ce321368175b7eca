"""What the Flux requests have in common: fields that several of them share, and how a request becomes an input."""

from collections.abc import Mapping
from typing import Any

import attrs

from piapi_async import _validators
from piapi_async.flux._parts import (
    DEV_ADVANCED,
    MODELS,
    SCHNELL,
    ImageSource,
    LoRA,
    brief,
    given,
    taken,
)
from piapi_async.prices import PRICES, PriceList
from piapi_async.task import SERVICE_MODES

PIXELS_MAX = 1024 * 1024
"""The most pixels of a `txt2img` picture; a `fill-outpaint` has to add fewer than that."""

SIDE = _validators.optional(_validators.number(at_least=1, integer=True))
MARGIN = _validators.number(at_least=0, integer=True)
STEPS = _validators.optional(_validators.number(at_least=1, integer=True))
OPTIONAL_TEXT = _validators.optional(_validators.instance_of(str, allowed="a string"))


def a_lora(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """A LoRA; its name alone is not one."""
    if not isinstance(value, LoRA):
        example = _validators.short(value) if isinstance(value, str) else "'anime'"
        raise _validators.refuse(TypeError, name=attribute.name, allowed=f"a LoRA, as in LoRA({example})", value=value)


def runs(instance: "FluxRequest", _attribute: "attrs.Attribute[str]", value: object) -> None:
    """A model that runs the task type."""
    allowed = MODELS[instance.task_type]
    if not (isinstance(value, str) and value in allowed):
        names = f"{' or '.join(map(repr, allowed))} for task type {instance.task_type!r}"
        raise _validators.refuse(
            ValueError if isinstance(value, str) else TypeError, name="model", allowed=names, value=value
        )


def _only_schnell_makes_several(instance: Any, _attribute: object, value: int | None) -> None:
    if value not in (None, 1) and instance.model != SCHNELL:
        raise ValueError(
            f"batch_size must be 1 or not set for model {instance.model!r}, got {value}; {SCHNELL!r} takes 1 to 4"
        )


BATCH_SIZE = [
    _validators.optional(_validators.number(at_least=1, at_most=4, integer=True)),
    _only_schnell_makes_several,
]


@attrs.frozen(kw_only=True, repr=False)
class FluxRequest:
    """A request for a Flux model: what all of them have."""

    # No annotation: a class variable, and for type checkers still what the protocol `Submittable` asks for.
    task_type = ""

    prompt: str = attrs.field(validator=_validators.text)
    service_mode: str | None = attrs.field(
        default=None, validator=_validators.optional(_validators.one_of(SERVICE_MODES))
    )

    @property
    def input(self) -> Mapping[str, Any]:
        """The fields of the task that were set, under the service's names."""
        return given(prompt=self.prompt, **self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        """The fields besides the prompt."""
        raise NotImplementedError

    def estimate(self, *, prices: PriceList = PRICES) -> float:
        """What the task is expected to cost, in US dollars; what it did cost is in `TaskInfo.usage`.

        Args:
            prices: The prices to go by.

        Raises:
            ConfigurationError: They have none for the model.
        """
        return prices.estimate(self)  # type: ignore[arg-type] # `model` is a field of every class below

    def __repr__(self) -> str:
        set_ones = attrs.asdict(self, recurse=False, filter=lambda _field, value: value is not None)
        fields = ", ".join(f"{name}={brief(value)}" for name, value in set_ones.items())
        return f"{type(self).__name__}({fields})"


@attrs.frozen(kw_only=True, repr=False)
class Guided(FluxRequest):
    """A request with a negative prompt, `denoise` and `guidance_scale`."""

    negative_prompt: str | None = attrs.field(default=None, validator=OPTIONAL_TEXT)
    denoise: float | None = attrs.field(
        default=None, validator=_validators.optional(_validators.number(above=0, at_most=1))
    )
    guidance_scale: float | None = attrs.field(
        default=None, validator=_validators.optional(_validators.number(at_least=1.5, at_most=5))
    )

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "negative_prompt": self.negative_prompt,
            "denoise": self.denoise,
            "guidance_scale": self.guidance_scale,
        }


@attrs.frozen(kw_only=True, repr=False)
class FromText(Guided):
    """A request without a source picture, whose size can be chosen."""

    width: int | None = attrs.field(default=None, validator=SIDE)
    height: int | None = attrs.field(default=None, validator=SIDE)

    def __attrs_post_init__(self) -> None:
        if (self.width or 1) * (self.height or 1) > PIXELS_MAX:
            raise ValueError(
                f"width and height must give at most {PIXELS_MAX} pixels, got {self.width} and {self.height}"
            )

    @property
    def _settings(self) -> dict[str, Any]:
        return {**super()._settings, "width": self.width, "height": self.height}


@attrs.frozen(kw_only=True, repr=False)
class Reworked(FluxRequest):
    """A request that works on one picture, and has no further field in common."""

    image: ImageSource = attrs.field(converter=taken, validator=_validators.image_source, eq=_validators.comparable)
    model: str = attrs.field(default=DEV_ADVANCED, validator=runs)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"image": self.image}
