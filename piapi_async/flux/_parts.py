"""What the Flux requests are made of: the names that PiAPI knows, `LoRA` and `ControlNet`.

Sources: https://piapi.ai/docs/flux-with-lora-and-controlnet (which model runs what),
https://piapi.ai/docs/available-lora-and-controlnet and https://piapi.ai/docs/flux-api/kontext, read in November 2026.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs

from piapi_async import _media, _validators


class BinaryFile(Protocol):
    """A file that is open for reading bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, all that are left by default."""
        ...


class PillowImage(Protocol):
    """A `PIL.Image.Image`, as far as type checkers need to know it."""

    @property
    def mode(self) -> str:
        """What a pixel is made of."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        ...

    def getbands(self) -> tuple[str, ...]:
        """The names of the channels."""
        ...


class Array(Protocol):
    """A `numpy.ndarray`, as far as type checkers need to know it."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """NumPy's description of the memory."""
        ...

    @property
    def shape(self) -> tuple[Any, ...]:
        """Height, width and, except for grey pictures, channels."""
        ...


ImageSource = str | Path | bytes | bytearray | memoryview | BinaryFile | PillowImage | Array
"""A picture to send. Text is an http(s) URL or a data URI; all others are local pictures:

- a `pathlib.Path`, read when the request is submitted, or the `bytes` of a file (`bytearray` and `memoryview` too);
- a file open for reading bytes: it is read to its end when the request is made, and may be closed afterwards;
- a `PIL.Image.Image`, or a `numpy.ndarray` of `uint8` with the shape (height, width) or (height, width, 1, 3 or 4):
  they are encoded as PNG when the request is submitted, which needs Pillow (the extra `images`).

PNG, JPEG and WebP travel byte for byte, unless their EXIF data say that they lie on the side, which is put right, or
`Session(max_pixels=...)` asks for fewer pixels. Everything else that Pillow can open is converted: the service does not
document what it takes here, and its upload takes PNG, JPEG and WebP only. Photographs in AVIF, HEIC and JPEG 2000
become JPEG, or WebP where they are transparent; GIF (the first frame), BMP, TIFF and the rest become PNG. A JPEG or
lossy WebP that has to be changed stays what it is, a lossless WebP becomes PNG. All of this needs Pillow, and HEIC, as
iPhones make it, pillow-heif as well; without Pillow EXIF data are left to the service, and pictures that would have to
be converted are refused.

A PNG, JPEG or WebP that ends early is refused before anything is sent.
"""

SCHNELL = "Qubico/flux1-schnell"
DEV = "Qubico/flux1-dev"
DEV_ADVANCED = "Qubico/flux1-dev-advanced"

MODELS: Mapping[str, tuple[str, ...]] = {
    "img2img": (SCHNELL, DEV, DEV_ADVANCED),
    "img2img-lora": (DEV_ADVANCED,),
    "controlnet-lora": (DEV_ADVANCED,),
    "txt2img": (SCHNELL, DEV, DEV_ADVANCED),
    "txt2img-lora": (DEV_ADVANCED,),
    "fill-inpaint": (DEV_ADVANCED,),
    "fill-outpaint": (DEV_ADVANCED,),
    "redux-variation": (DEV_ADVANCED,),
    "kontext": (DEV_ADVANCED,),
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

_NUMBER = _validators.optional(_validators.number())
_IMAGE = _validators.image_source


def taken(value: ImageSource) -> ImageSource:
    """A picture as a request keeps it: of an open file it keeps what is in it."""
    kept: Any = _media.as_kept(value)
    return kept  # type: ignore[no-any-return] # what is no picture is refused by the validator


def given(**fields: Any) -> dict[str, Any]:
    """The fields that were set."""
    return {name: value for name, value in fields.items() if value is not None}


def brief(value: object) -> str:
    """A field's value on part of a line."""
    return repr(value) if attrs.has(type(value)) else _validators.short(value)


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

    lora_type: str = attrs.field(validator=_validators.open_name(LORA_TYPES, listed="piapi_async.flux.LORA_TYPES"))
    strength: float | None = attrs.field(default=None, kw_only=True, validator=_NUMBER)
    image: ImageSource | None = attrs.field(
        default=None,
        kw_only=True,
        converter=attrs.converters.optional(taken),
        validator=_validators.optional(_IMAGE),
        eq=_validators.comparable,
        repr=_validators.short,
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The item of `lora_settings` that the service takes."""
        return given(lora_type=self.lora_type, lora_image=self.image, lora_strength=self.strength)


@attrs.frozen
class ControlNet:
    """A control picture, and what of it steers the result.

    Args:
        control_type: What is taken from the picture, as a rule one of `CONTROL_TYPES`; another name warns and is sent.

        image: The control picture, as in `Img2Img`.

        strength: How strongly; the service documents no range, its examples use 0.45 to 0.7.

        return_preprocessed_image: Whether to also return what was taken from the picture.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field has a value that is not allowed.
    """

    control_type: str = attrs.field(
        validator=_validators.open_name(CONTROL_TYPES, listed="piapi_async.flux.CONTROL_TYPES")
    )
    image: ImageSource = attrs.field(
        kw_only=True, converter=taken, validator=_IMAGE, eq=_validators.comparable, repr=_validators.short
    )
    strength: float | None = attrs.field(default=None, kw_only=True, validator=_NUMBER)
    return_preprocessed_image: bool | None = attrs.field(
        default=None,
        kw_only=True,
        validator=_validators.optional(_validators.boolean),
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The item of `control_net_settings` that the service takes."""
        return given(
            control_type=self.control_type,
            control_image=self.image,
            control_strength=self.strength,
            return_preprocessed_image=self.return_preprocessed_image,
        )
