"""What the words of the command line mean, beyond click's own types: functions for `type=`."""

import math
from collections.abc import Callable, Collection
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from piapi_async._media import is_data_uri
from piapi_async._validators import is_http_url
from piapi_async.files._naming import naming as check_naming
from piapi_async.flux import DEV, DEV_ADVANCED, SCHNELL, ControlNet, ImageSource, LoRA

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

MODELS = {name.removeprefix("Qubico/flux1-"): name for name in (SCHNELL, DEV, DEV_ADVANCED)}


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What the shell knows of files."""
    return [CompletionItem(incomplete, type="file")]


def among(names: Collection[str]) -> Complete:
    """The names that begin so."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


def image(value: str) -> ImageSource:
    """A picture: a file, an http(s) URL or a data URI."""
    if is_http_url(value) or is_data_uri(value):
        return value
    if not Path(value).is_file():
        raise click.BadParameter(f"{value!r} is neither a file nor an http(s) URL")
    return Path(value)


def model(value: str) -> str:
    """A Flux model, with or without its family's name."""
    if value in MODELS.values():
        return value
    if value not in MODELS:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(MODELS)}")
    return MODELS[value]


def number(value: str) -> float:
    """A finite number."""
    try:
        result = float(value)
    except ValueError:
        result = math.nan
    if not math.isfinite(result):
        raise click.BadParameter(f"{value!r} is not a number")
    return result


def seconds(value: str) -> float:
    """A number of seconds, 0 or more."""
    if (result := number(value)) < 0:
        raise click.BadParameter(f"{value!r} is less than 0 seconds")
    return result


def naming(value: str) -> str:
    """A template for names."""
    try:
        check_naming(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def lora(value: str) -> LoRA:
    """A LoRA, perhaps with its strength."""
    name, colon, strength = value.partition(":")
    if not name.strip():
        raise click.BadParameter(f"{value!r} names no LoRA; write for example anime or anime:0.8")
    return LoRA(name, strength=number(strength) if colon else None)


def control(value: str) -> ControlNet:
    """A ControlNet and its picture."""
    control_type, _, picture = value.partition(":")
    if not (control_type.strip() and picture):
        raise click.BadParameter(f"{value!r} is not TYPE:IMAGE; write for example canny:edges.png")
    return ControlNet(control_type, image=image(picture))
