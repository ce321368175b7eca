"""The Flux requests of PiAPI, each field with the range its documentation gives.

Sources: https://piapi.ai/docs/flux-api/image-to-image, https://piapi.ai/docs/flux-api/text-to-image,
https://piapi.ai/docs/flux-api/kontext, https://piapi.ai/docs/flux-with-lora-and-controlnet and
https://piapi.ai/docs/flux-redux-fill-variation-inpaint-outpaint, read in November 2026.
"""

from typing import Any

import attrs

from piapi_async import _validators
from piapi_async.flux._base import (
    BATCH_SIZE,
    MARGIN,
    PIXELS_MAX,
    SIDE,
    STEPS,
    FromText,
    Guided,
    Reworked,
    a_lora,
    runs,
)
from piapi_async.flux._parts import (
    CONTROL_TYPES,
    DEV,
    DEV_ADVANCED,
    LORA_TYPES,
    MODELS,
    SCHNELL,
    ControlNet,
    ImageSource,
    LoRA,
    taken,
)

__all__ = [
    "CONTROL_TYPES",
    "DEV",
    "DEV_ADVANCED",
    "LORA_TYPES",
    "MODELS",
    "SCHNELL",
    "ControlNet",
    "ControlNetLora",
    "FillInpaint",
    "FillOutpaint",
    "ImageSource",
    "Img2Img",
    "Img2ImgLora",
    "Kontext",
    "LoRA",
    "ReduxVariation",
    "Txt2Img",
    "Txt2ImgLora",
]


@attrs.frozen(kw_only=True, repr=False)
class Img2Img(Guided):
    """Make a new picture from a picture and a prompt (task type `img2img`).

    Only what is set is sent; for what is not, the service's default holds.

    Args:
        prompt: What the result shows. No length limit is documented.

        image: The source picture: an http(s) URL, a data URI, a `pathlib.Path`, bytes, an open binary file, a Pillow
            image or a NumPy array; see `piapi_async.flux.ImageSource`. Local pictures travel as data URIs, or through
            the upload (`Session(local_images="upload")`).

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

    image: ImageSource = attrs.field(converter=taken, validator=_validators.image_source, eq=_validators.comparable)
    model: str = attrs.field(default=SCHNELL, validator=runs)
    batch_size: int | None = attrs.field(default=None, validator=BATCH_SIZE)

    @property
    def _settings(self) -> dict[str, Any]:
        return {**super()._settings, "image": self.image, "batch_size": self.batch_size}


@attrs.frozen(kw_only=True, repr=False)
class Img2ImgLora(Guided):
    """`Img2Img` in the style of a LoRA (task type `img2img-lora`), on `"Qubico/flux1-dev-advanced"`.

    Args:
        lora: The LoRA; the service takes one.

        steps: How many steps to take, at least 1. PiAPI's examples of LoRAs use 28; no range is documented.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, image, negative_prompt, denoise, guidance_scale, service_mode: As in `Img2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "img2img-lora"

    image: ImageSource = attrs.field(converter=taken, validator=_validators.image_source, eq=_validators.comparable)
    lora: LoRA = attrs.field(validator=a_lora)
    steps: int | None = attrs.field(default=None, validator=STEPS)
    model: str = attrs.field(default=DEV_ADVANCED, validator=runs)

    @property
    def _settings(self) -> dict[str, Any]:
        own = {"image": self.image, "steps": self.steps, "lora_settings": [self.lora.settings]}
        return {**super()._settings, **own}


@attrs.frozen(kw_only=True, repr=False)
class ControlNetLora(Guided):
    """Make a picture steered by a control picture (task type `controlnet-lora`), on `"Qubico/flux1-dev-advanced"`.

    Args:
        control_net: The control picture and how it steers; the service takes one.

        image: A source picture, as in `Img2Img`. The service's schema requires it and its examples leave it out, so it
            is optional here.

        lora: A LoRA to apply as well; the service takes at most one.

        steps: As in `Img2ImgLora`.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, negative_prompt, denoise, guidance_scale, service_mode: As in `Img2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "controlnet-lora"

    control_net: ControlNet = attrs.field(
        validator=_validators.instance_of(ControlNet, allowed="a ControlNet, as in ControlNet('canny', image=...)")
    )
    image: ImageSource | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(taken),
        validator=_validators.optional(_validators.image_source),
        eq=_validators.comparable,
    )
    lora: LoRA | None = attrs.field(default=None, validator=_validators.optional(a_lora))
    steps: int | None = attrs.field(default=None, validator=STEPS)
    model: str = attrs.field(default=DEV_ADVANCED, validator=runs)

    @property
    def _settings(self) -> dict[str, Any]:
        own = {
            "image": self.image,
            "steps": self.steps,
            "control_net_settings": [self.control_net.settings],
            "lora_settings": None if self.lora is None else [self.lora.settings],
        }
        return {**super()._settings, **own}


@attrs.frozen(kw_only=True, repr=False)
class Txt2Img(FromText):
    """Make a picture from a prompt alone (task type `txt2img`).

    Args:
        model: As in `Img2Img`.

        width: The picture's width in pixels; no default is documented.

        height: Its height. Width times height is at most 1,048,576.

        batch_size: As in `Img2Img`.

        prompt, negative_prompt, guidance_scale, service_mode: As in `Img2Img`.

        denoise: As in `Img2Img`; the service documents it here too, without saying what it does.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "txt2img"

    model: str = attrs.field(default=SCHNELL, validator=runs)
    batch_size: int | None = attrs.field(default=None, validator=BATCH_SIZE)

    @property
    def _settings(self) -> dict[str, Any]:
        return {**super()._settings, "batch_size": self.batch_size}


@attrs.frozen(kw_only=True, repr=False)
class Txt2ImgLora(FromText):
    """`Txt2Img` in the style of a LoRA (task type `txt2img-lora`), on `"Qubico/flux1-dev-advanced"`.

    Args:
        lora: The LoRA; the service takes one.

        steps: As in `Img2ImgLora`.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, width, height, negative_prompt, denoise, guidance_scale, service_mode: As in `Txt2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "txt2img-lora"

    lora: LoRA = attrs.field(validator=a_lora)
    steps: int | None = attrs.field(default=None, validator=STEPS)
    model: str = attrs.field(default=DEV_ADVANCED, validator=runs)

    @property
    def _settings(self) -> dict[str, Any]:
        return {**super()._settings, "steps": self.steps, "lora_settings": [self.lora.settings]}


@attrs.frozen(kw_only=True, repr=False)
class FillInpaint(Reworked):
    """Paint a region of a picture anew (task type `fill-inpaint`), on `"Qubico/flux1-dev-advanced"`.

    Args:
        image: The picture, with the region to repaint in pure white; the service has no field for a mask. A PNG keeps
            its white exactly, unless `Session(max_pixels=...)` scales it.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, service_mode: As in `Img2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "fill-inpaint"


def _adds_few_pixels(instance: "FillOutpaint", _attribute: object, _value: object) -> None:
    sides = instance.left, instance.right, instance.top, instance.bottom
    if not any(sides):
        raise ValueError("one of left, right, top and bottom must be above 0, got none")
    # The picture's own size is not known here; round a single pixel they add the fewest.
    added = (1 + instance.left + instance.right) * (1 + instance.top + instance.bottom) - 1
    if added >= PIXELS_MAX:
        raise ValueError(
            f"left, right, top and bottom must add fewer than {PIXELS_MAX} pixels, got {added} or more from {sides}"
        )


@attrs.frozen(kw_only=True, repr=False)
class FillOutpaint(Reworked):
    """Extend a picture beyond its edges (task type `fill-outpaint`), on `"Qubico/flux1-dev-advanced"`.

    Args:
        image: The picture.

        left, right, top, bottom: How many pixels to add on each side, 0 or more and one of them above 0. The service
            wants fewer than 1,048,576 pixels added in all; what they certainly exceed, whatever the size of the
            picture, is refused here.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, service_mode: As in `Img2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "fill-outpaint"

    left: int = attrs.field(default=0, validator=MARGIN)
    right: int = attrs.field(default=0, validator=MARGIN)
    top: int = attrs.field(default=0, validator=MARGIN)
    bottom: int = attrs.field(default=0, validator=[MARGIN, _adds_few_pixels])

    @property
    def _settings(self) -> dict[str, Any]:
        margins = {f"outpaint_{side}": getattr(self, side) for side in ("left", "right", "top", "bottom")}
        return {**super()._settings, "custom_settings": [{"setting_type": "outpaint", **margins}]}


@attrs.frozen(kw_only=True, repr=False)
class ReduxVariation(Reworked):
    """Make a variation of a picture (task type `redux-variation`), on `"Qubico/flux1-dev-advanced"`.

    Args:
        image: The picture.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, service_mode: As in `Img2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "redux-variation"


@attrs.frozen(kw_only=True, repr=False)
class Kontext(Reworked):
    """Edit a picture by instruction (task type `kontext`), on `"Qubico/flux1-dev-advanced"`.

    The result does not keep the size of the picture.

    Args:
        image: The picture, as in `Img2Img`; also as a string of base64 without a header, as PiAPI documents it here.

        width: The result's width in pixels; no default is documented.

        height: Its height; the default is 1024.

        seed: What chance begins with; the default, -1, is another one each time.

        steps: How many steps to take: 1 to 40; the default is 28.

        model: `"Qubico/flux1-dev-advanced"`, the only one that runs this.

        prompt, service_mode: As in `Img2Img`.

    Raises:
        TypeError: A field is missing or has the wrong type.
        ValueError: A field has a value that is not allowed, or the model does not run this.
    """

    task_type = "kontext"

    image: ImageSource = attrs.field(
        converter=taken, validator=_validators.picture_or_base64, eq=_validators.comparable
    )
    width: int | None = attrs.field(default=None, validator=SIDE)
    height: int | None = attrs.field(default=None, validator=SIDE)
    seed: int | None = attrs.field(default=None, validator=_validators.optional(_validators.number(integer=True)))
    steps: int | None = attrs.field(
        default=None, validator=_validators.optional(_validators.number(at_least=1, at_most=40, integer=True))
    )

    @property
    def _settings(self) -> dict[str, Any]:
        own = {"width": self.width, "height": self.height, "seed": self.seed, "steps": self.steps}
        return {**super()._settings, **own}
