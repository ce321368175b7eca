"""What a picture depends on, and nothing else."""

import hashlib
from collections.abc import Mapping
from typing import Any, Self

import attrs

from piapi_async.emulator._service.sources import image_values
from piapi_async.emulator._service.validation import SIDES

_DENOISE = 0.7
_CONTROL_STRENGTH = 0.5


@attrs.frozen(kw_only=True)
class Order:
    """One picture of one request.

    Two tasks that ask for the same get the same picture, and it is made once.
    """

    seed: int
    item: int
    max_pixels: int
    task_type: str
    width: int
    height: int
    """0 when it was not given, as with the width."""
    margins: tuple[int, ...]
    """Pixels to add on the left, right, top and bottom."""
    chance: int
    """The `seed` of the request; -1 when it was not given."""
    prompt: str
    negative_prompt: str
    images: tuple[str, ...] = attrs.field(repr=False)
    denoise: float
    guidance_scale: float
    """0 when it was not given."""
    lora: str | None
    lora_strength: float
    control_type: str | None
    control_strength: float
    is_guide: bool
    """Whether this is the preprocessed control picture, and not what was made with it."""

    @classmethod
    def of(
        cls,
        given: Mapping[str, Any],
        *,
        item: int,
        seed: int,
        max_pixels: int,
        task_type: str = "img2img",
        is_guide: bool = False,
    ) -> Self:
        """Read it from the input of a task that passed validation."""
        lora = (given.get("lora_settings") or [{}])[0]
        control = (given.get("control_net_settings") or [{}])[0]
        outpaint = (given.get("custom_settings") or [{}])[0]
        return cls(
            seed=seed,
            item=item,
            max_pixels=max_pixels,
            task_type=task_type,
            width=given.get("width", 0),
            height=given.get("height", 0),
            margins=tuple(outpaint.get(f"outpaint_{side}", 0) for side in SIDES),
            chance=given.get("seed", -1),
            prompt=given["prompt"],
            negative_prompt=given["negative_prompt"],
            images=tuple(image_values(given)),
            denoise=given.get("denoise", _DENOISE),
            guidance_scale=given.get("guidance_scale", 0.0),
            lora=lora.get("lora_type"),
            lora_strength=lora.get("lora_strength", 1.0),
            control_type=control.get("control_type"),
            control_strength=control.get("control_strength", _CONTROL_STRENGTH),
            is_guide=is_guide,
        )

    @property
    def is_sized(self) -> bool:
        """Whether the task type says what size the result has: one of its own, or exactly what its source needs."""
        return self.task_type in ("kontext", "fill-inpaint", "fill-outpaint") or not self.images

    @property
    def key(self) -> bytes:
        """A fingerprint of all of it."""
        return hashlib.blake2b(repr(attrs.astuple(self)).encode(errors="replace"), digest_size=16).digest()
