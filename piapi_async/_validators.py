"""attrs validators whose message names the field, the value and what is allowed."""

import math
import os
import reprlib
import sys
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from piapi_async import _media

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


class _Short(reprlib.Repr):
    def repr_ndarray(self, value: Any, _level: int) -> str:
        """A NumPy array, whose own text has many lines."""
        return f"<array {value.dtype} {value.shape}>"


short = _Short().repr
"""A value on part of a line."""


def optional(validator: Validator) -> Any:
    """`None`, or what the validator allows."""
    return attrs.validators.optional(validator)


def refuse(kind: type[Exception], *, name: str, allowed: str, value: object) -> Exception:
    """The one sentence for a bad argument."""
    return kind(f"{name} must be {allowed}, got {short(value)}")


def instead(value: object) -> str:
    """What to write in place of a class, for the sentence that refuses it."""
    return f", such as {value.__name__}(...), not the class itself" if isinstance(value, type) else ""


def number(
    *, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf, integer: bool = False
) -> Validator:
    """A finite number within bounds; no bool, and no number in a string: the server refuses those.

    A NumPy scalar is taken for the number that it is, and kept as a Python number, which JSON can hold.
    """
    allowed = _describe(above=above, at_least=at_least, at_most=at_most, integer=integer)
    kinds = int if integer else (int, float)

    def check(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        number = _within(value, name=attribute.name, allowed=allowed, kinds=kinds, above=above, at_least=at_least)
        if number > at_most:
            raise refuse(ValueError, name=attribute.name, allowed=allowed, value=value)
        _keep(instance, attribute, number, instead_of=value)

    return check


def seconds(name: str, value: object, *, above: float = -math.inf, at_least: float = -math.inf, other: str = "") -> Any:
    """A number of seconds within bounds, finite, a NumPy scalar as a Python number.

    Args:
        name: What it is called.

        value: What was given.

        above: The bound, if that itself is not allowed.

        at_least: The bound, if it is.

        other: What may be given in place of seconds, which the caller has seen to.

    Raises:
        TypeError: It has another type.
        ValueError: It is out of bounds.
    """
    allowed = (f"seconds > {above:g}" if above > -math.inf else f"seconds >= {at_least:g}") + other
    return _within(value, name=name, allowed=allowed, kinds=(int, float), above=above, at_least=at_least)


def _within(value: object, *, name: str, allowed: str, kinds: Any, above: float, at_least: float) -> Any:
    """A finite number that is large enough, as a Python number."""
    number = _media.python_scalar(value)
    if isinstance(number, bool) or not isinstance(number, kinds):
        raise refuse(TypeError, name=name, allowed=allowed, value=value)
    if not (abs(number) <= sys.float_info.max and number > above and number >= at_least):
        raise refuse(ValueError, name=name, allowed=allowed, value=value)
    return number


def boolean(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """`True` or `False`."""
    flag = _media.python_scalar(value)
    if not isinstance(flag, bool):
        raise refuse(TypeError, name=attribute.name, allowed="True or False", value=value)
    _keep(instance, attribute, flag, instead_of=value)


def _keep(instance: object, attribute: "attrs.Attribute[Any]", plain: object, *, instead_of: object) -> None:
    # Here and not in a converter: every class with a number would need one, and with one, type checkers no longer take
    # the class for a `Submittable`.
    if plain is not instead_of:
        object.__setattr__(instance, attribute.name, plain)


def count(name: str, value: object) -> None:
    """Refuse what is not a whole number of things."""
    _within(value, name=name, allowed="a whole number >= 0", kinds=int, above=-math.inf, at_least=0)


def _describe(*, above: float, at_least: float, at_most: float, integer: bool) -> str:
    bounds = [
        f"{sign} {bound:g}" for sign, bound in ((">", above), (">=", at_least), ("<=", at_most)) if math.isfinite(bound)
    ]
    return " ".join(["a whole number" if integer else "a finite number", " and ".join(bounds)]).strip()


def text(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """A text with something in it."""
    if not isinstance(value, str):
        raise refuse(TypeError, name=attribute.name, allowed="a string", value=value)
    if not value.strip():
        raise refuse(ValueError, name=attribute.name, allowed="a text that is not blank", value=value)


def one_of(values: Collection[str]) -> Validator:
    """One of a closed set of words."""
    allowed = "one of " + ", ".join(map(repr, values))

    def check(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if not isinstance(value, str):
            raise refuse(TypeError, name=attribute.name, allowed=allowed, value=value)
        if value not in values:
            raise refuse(ValueError, name=attribute.name, allowed=allowed, value=value)

    return check


def callable_(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Anything that can be called, except a class: what that gives is one of its objects, and no answer."""
    if isinstance(value, type) or not callable(value):
        raise refuse(TypeError, name=attribute.name, allowed=f"a callable{instead(value)}", value=value)


def instance_of(kind: type | tuple[type, ...], *, allowed: str) -> Validator:
    """An object of a class, said in one sentence."""

    def check(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if not isinstance(value, kind):
            raise refuse(TypeError, name=attribute.name, allowed=allowed, value=value)

    return check


def open_name(known: Collection[str], *, listed: str) -> Validator:
    """A name from an open set: one that is not known warns, and is sent all the same."""

    def check(instance: object, attribute: "attrs.Attribute[Any]", value: str) -> None:
        text(instance, attribute, value)
        if value not in known:
            warnings.warn(
                f"{attribute.name} {value!r} is not among the names in {listed}; it is sent as it is",
                stacklevel=3,
            )

    return check


def http_url(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """An absolute http or https URL."""
    if not isinstance(value, str):
        raise refuse(TypeError, name=attribute.name, allowed="an http(s) URL", value=value)
    if not is_http_url(value):
        raise refuse(ValueError, name=attribute.name, allowed="an http(s) URL", value=value)


def is_http_url(value: str) -> bool:
    """Whether a string is an absolute http or https URL with a host and without blanks."""
    if value[:5].lower() not in ("http:", "https"):
        return False  # `urlsplit` remembers what it was given, a data URI of megabytes too
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and value.isprintable() and " " not in value


def image_source(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """A picture from any source. Reads no file, and imports neither Pillow nor NumPy."""
    picture(value, name=attribute.name)


def picture_or_base64(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """A picture from any source, also as base64 without a header."""
    if not (isinstance(value, str) and _media.is_picture_base64(value)):
        picture(value, name=attribute.name)


def picture(value: object, *, name: str) -> None:
    """Refuse what is not a source of a picture.

    Raises:
        TypeError: It is of no type that is taken.
        ValueError: It is text, bytes or an array that cannot be a picture.
    """
    if isinstance(value, Path) or _media.is_pillow(value):
        return
    if isinstance(value, bytes):
        _bytes(value, name=name)
    elif isinstance(value, str):
        _text(value, name=name)
    elif _media.is_array(value):
        _array(value, name=name)
    else:
        is_file = hasattr(value, "read")
        allowed = "a file opened for reading bytes ('rb')" if is_file else _SOURCES
        raise refuse(TypeError, name=name, allowed=allowed, value=value)


_SOURCES = (
    "an http(s) URL, a picture's data URI, a pathlib.Path, bytes, a binary file, a Pillow image or an array of uint8"
)


def _bytes(value: bytes, *, name: str) -> None:
    if _media.sniff(value) is None:
        allowed = f"the bytes of a picture ({_media.KNOWN_FORMATS})"
        raise refuse(ValueError, name=name, allowed=allowed, value=value)


def _text(value: str, *, name: str) -> None:
    if not (is_http_url(value) or _media.is_picture_data_uri(value)):
        raise refuse(ValueError, name=name, allowed=f"{_SOURCES}; a local file is Path(...)", value=value)


def _array(value: Any, *, name: str) -> None:
    shape = value.shape
    is_grey, is_coloured = len(shape) == 2, len(shape) == 3 and shape[2] in (1, 3, 4)  # noqa: PLR2004 - as said below
    if value.dtype != "uint8" or not (is_grey or is_coloured) or 0 in shape:
        allowed = "an array of uint8 with the shape (height, width), or (height, width, 1, 3 or 4)"
        kind = ValueError if value.dtype == "uint8" else TypeError
        raise refuse(kind, name=name, allowed=allowed, value=value)


def path(value: object, *, name: str) -> Path:
    """A place on disk.

    Raises:
        TypeError: It is neither a string nor a path.
        ValueError: No disk can have it, as it holds a NUL.
    """
    if not isinstance(value, str | os.PathLike):
        raise refuse(TypeError, name=name, allowed="a path, as a string or a pathlib.Path", value=value)
    made = Path(value)
    if "\0" in str(made):
        raise refuse(ValueError, name=name, allowed="a path without NUL", value=value)
    return made


def key(value: object) -> None:
    """A job's name in a ledger, or `None`."""
    if value is not None and not isinstance(value, str):
        raise refuse(TypeError, name="key", allowed="a string", value=value)
    if value is not None and not (value.strip() and value.isprintable()):
        raise refuse(ValueError, name="key", allowed="a printable string that is not blank", value=value)


def comparable(value: object) -> object:
    """What a picture is compared by: itself, or its identity where it is an object that has no simple equality."""
    return value if isinstance(value, str | bytes | Path | None) else id(value)
