"""The Flux requests of PiAPI, each field with the range its documentation gives.

Sources: https://piapi.ai/docs/flux-api/image-to-image, https://piapi.ai/docs/flux-with-lora-and-controlnet and
https://piapi.ai/docs/available-lora-and-controlnet, read in November 2026.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from piapi_async import _checks
from piapi_async.task import SERVICE_MODES

ImageSource = str | Path | bytes
"""A picture to send: an http(s) URL, a data URI, a local file, or its bytes."""

SCHNELL = "Qubico/flux1-schnell"
DEV = "Qubico/flux1-dev"
DEV_ADVANCED = "Qubico/flux1-dev-advanced"

MODELS: Mapping[str, tuple[str, ...]] = {
    "img2img": (SCHNELL, DEV, DEV_ADVANCED),
    "img2img-lora": (DEV_ADVANCED,),
    "controlnet-lora": (DEV_ADVANCED,),
}
"""Which models run which task type."""

LORA_TYPES = (
    "anime",
    "art",
    "collage-artstyle",
    "creepcute",
    "cyberpunk-anime-style",
    "deco-pulse",
    "deep-sea-particle-enhencer",  # spelt so by the service
    "disney",
    "faetastic-details",
    "fractal-geometry",
    "furry",
    "galactixy-illustrations-style",
    "geometric-woman",
    "graphic-portrait",
    "mat-miller-art",
    "mjv6",
    "moebius-style",
    "mystic-realism",
    "ob3d-isometric-3d-room",
    "paper-quilling-and-layering-style",
    "realism",
    "remes-abstract-poster-style",
    "scenery",
)
"""LoRA names that PiAPI's pages use. An open set: others are sent, with a warning."""

CONTROL_TYPES = ("depth", "soft_edge", "canny", "openpose", "hed")
"""ControlNet names that PiAPI's pages and its MCP server use. An open set, like `LORA_TYPES`."""

_NUMBER = _checks.optional(_checks.number())
_IMAGE = _checks.image_source


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _brief(value: object) -> str:
    return _checks.short(value) if isinstance(value, str | bytes | Path) else repr(value)


@attrs.frozen
class LoRA:
    """A LoRA to apply.

    Args:
        lora_type: Its name, as a rule one of `LORA_TYPES`; another name warns and is sent.

        strength: How strongly; the service documents no range, third parties use 0.1 to 1.0 (default 1.0).

        image: A picture for the LoRA; the service does not document what it does with it.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field has a value that is not allowed.
    """

    lora_type: str = attrs.field(validator=_checks.open_name(LORA_TYPES, listed="piapi_async.flux.LORA_TYPES"))
    strength: float | None = attrs.field(default=None, kw_only=True, validator=_NUMBER)
    image: ImageSource | None = attrs.field(
        default=None, kw_only=True, validator=_checks.optional(_IMAGE), repr=_checks.short
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The item of `lora_settings` that the service takes."""
        return _given(lora_type=self.lora_type, lora_image=self.image, lora_strength=self.strength)


@attrs.frozen
class ControlNet:
    """A control picture, and what of it steers the result.

    Args:
        control_type: What is taken from the picture, as a rule one of `CONTROL_TYPES`; another name warns and is sent.

        image: The control picture: an http(s) URL, a data URI, a `Path` or bytes.

        strength: How strongly; the service documents no range, its examples use 0.45 to 0.7.

        return_preprocessed_image: Whether to also return what was taken from the picture.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field has a value that is not allowed.
    """

    control_type: str = attrs.field(validator=_checks.open_name(CONTROL_TYPES, listed="piapi_async.flux.CONTROL_TYPES"))
    image: ImageSource = attrs.field(kw_only=True, validator=_IMAGE, repr=_checks.short)
    strength: float | None = attrs.field(default=None, kw_only=True, validator=_NUMBER)
    return_preprocessed_image: bool | None = attrs.field(
        default=None,
        kw_only=True,
        validator=_checks.optional(_checks.instance_of(bool, allowed="True or False")),
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The item of `control_net_settings` that the service takes."""
        return _given(
            control_type=self.control_type,
            control_image=self.image,
            control_strength=self.strength,
            return_preprocessed_image=self.return_preprocessed_image,
        )


def _runs(instance: "_FluxRequest", _attribute: "attrs.Attribute[str]", value: object) -> None:
    allowed = MODELS[instance.task_type]
    if value not in allowed:
        names = " or ".join(map(repr, allowed))
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"model must be {names} for task type {instance.task_type!r}, got {value!r}")


def _only_schnell_makes_several(instance: "Img2Img", _attribute: object, value: int | None) -> None:
    if value not in (None, 1) and instance.model != SCHNELL:
        raise ValueError(
            f"batch_size must be 1 or not set for model {instance.model!r}, got {value}; {SCHNELL!r} takes 1 to 4"
        )


@attrs.frozen(kw_only=True, repr=False)
class _FluxRequest:
    # No annotation: a class variable, and for type checkers still what the protocol `Submittable` asks for.
    task_type = ""

    prompt: str = attrs.field(validator=_checks.text)
    negative_prompt: str | None = attrs.field(
        default=None, validator=_checks.optional(_checks.instance_of(str, allowed="a string"))
    )
    denoise: float | None = attrs.field(default=None, validator=_checks.optional(_checks.number(above=0, at_most=1)))
    guidance_scale: float | None = attrs.field(
        default=None, validator=_checks.optional(_checks.number(at_least=1.5, at_most=5))
    )
    service_mode: str | None = attrs.field(default=None, validator=_checks.optional(_checks.one_of(SERVICE_MODES)))

    @property
    def input(self) -> Mapping[str, Any]:
        """The fields of the task that were set, under the service's names."""
        return _given(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            denoise=self.denoise,
            guidance_scale=self.guidance_scale,
            **self._settings,
        )

    @property
    def _settings(self) -> dict[str, Any]:
        """The fields that only this task type has."""
        raise NotImplementedError

    def __repr__(self) -> str:
        given = attrs.asdict(self, recurse=False, filter=lambda _field, value: value is not None)
        fields = ", ".join(f"{name}={_brief(value)}" for name, value in given.items())
        return f"{type(self).__name__}({fields})"


@attrs.frozen(kw_only=True, repr=False)
class Img2Img(_FluxRequest):
    """Make a new picture from a picture and a prompt (task type `img2img`).

    Only what is set is sent; for what is not, the service's default holds.

    Args:
        prompt: What the result shows. No length limit is documented.

        image: The source picture: an http(s) URL, a data URI, a `pathlib.Path` or bytes. Local pictures travel as data
            URIs.

        model: `"Qubico/flux1-schnell"` (fastest and cheapest), `"Qubico/flux1-dev"` or `"Qubico/flux1-dev-advanced"`.

        negative_prompt: What the result should not show.

        denoise: How far the result may leave the source: above 0, up to 1; the service's default is 0.7.

        guidance_scale: How closely the prompt is followed, at the cost of realism: 1.5 to 5; no default is documented.

        batch_size: How many pictures: 1 to 4, more than 1 on schnell only; each is charged. The default is 1.

        service_mode: `"public"` (pay per use), `"private"` (host your account), or `None` for the workspace's setting.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "img2img"

    image: ImageSource = attrs.field(validator=_IMAGE)
    model: str = attrs.field(default=SCHNELL, validator=_runs)
    batch_size: int | None = attrs.field(
        default=None,
        validator=[
            _checks.optional(_checks.number(at_least=1, at_most=4, integer=True)),
            _only_schnell_makes_several,
        ],
    )

    @property
    def _settings(self) -> dict[str, Any]:
        return {"image": self.image, "batch_size": self.batch_size}


@attrs.frozen(kw_only=True, repr=False)
class Img2ImgLora(_FluxRequest):
    """`Img2Img` in the style of a LoRA (task type `img2img-lora`), on `"Qubico/flux1-dev-advanced"`.

    Args:
        lora: The LoRA; the service takes one.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, image, negative_prompt, denoise, guidance_scale, service_mode: As in `Img2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "img2img-lora"

    image: ImageSource = attrs.field(validator=_IMAGE)
    lora: LoRA = attrs.field(validator=_checks.instance_of(LoRA, allowed="a LoRA"))
    model: str = attrs.field(default=DEV_ADVANCED, validator=_runs)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"image": self.image, "lora_settings": [self.lora.settings]}


@attrs.frozen(kw_only=True, repr=False)
class ControlNetLora(_FluxRequest):
    """Make a picture steered by a control picture (task type `controlnet-lora`), on `"Qubico/flux1-dev-advanced"`.

    Args:
        control_net: The control picture and how it steers; the service takes one.

        image: A source picture, as in `Img2Img`. The service's schema requires it and its examples leave it out, so it
            is optional here.

        lora: A LoRA to apply as well; the service takes at most one.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, negative_prompt, denoise, guidance_scale, service_mode: As in `Img2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "controlnet-lora"

    control_net: ControlNet = attrs.field(validator=_checks.instance_of(ControlNet, allowed="a ControlNet"))
    image: ImageSource | None = attrs.field(default=None, validator=_checks.optional(_IMAGE))
    lora: LoRA | None = attrs.field(
        default=None, validator=_checks.optional(_checks.instance_of(LoRA, allowed="a LoRA"))
    )
    model: str = attrs.field(default=DEV_ADVANCED, validator=_runs)

    @property
    def _settings(self) -> dict[str, Any]:
        lora = None if self.lora is None else [self.lora.settings]
        return {
            "image": self.image,
            "control_net_settings": [self.control_net.settings],
            "lora_settings": lora,
        }
