"""The commands for the rest of the Flux family, one for each task, `upload` and `account`."""

import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import attrs
import click

from piapi_async.cli import _options as options
from piapi_async.cli import _types as types
from piapi_async.cli._interrupt import Setting
from piapi_async.cli._runtime import ask
from piapi_async.cli._task import balance
from piapi_async.flux import FillInpaint, FillOutpaint, Kontext, LoRA, ReduxVariation, Txt2Img, Txt2ImgLora
from piapi_async.session import Session
from piapi_async.task import Submittable

_width = click.option("--width", type=int, metavar="PIXELS", help="The picture's width.")
_height = click.option("--height", type=int, metavar="PIXELS", help="The picture's height.")


def _from_text(*, lora: LoRA | None = None, **fields: Any) -> Submittable:
    if lora is None:
        return Txt2Img(**fields)
    if "batch_size" in fields:
        raise ValueError("--batch-size works without --lora only")
    return Txt2ImgLora(lora=lora, **fields)


@click.command()
@options.prompt
@options.model
@options.lora
@_width
@_height
@click.option("--negative-prompt", metavar="TEXT", help="What the result should not show.")
@click.option("--guidance-scale", type=types.number, metavar="NUMBER", help="How closely to follow PROMPT: 1.5 to 5.")
@click.option("--batch-size", type=int, help="How many pictures: 1 to 4, on schnell; each is charged.")
@options.paid
def txt2img(setting: Setting, /, **given: Any) -> None:
    """Make a picture from PROMPT alone. Width times height is at most 1048576."""
    options.pay(_from_text, setting, **given)


@click.command()
@options.image
@options.prompt
@options.paid
def inpaint(setting: Setting, /, **given: Any) -> None:
    """Paint what is pure white in IMAGE, a file or a URL, anew by PROMPT."""
    options.pay(FillInpaint, setting, **given)


@click.command()
@options.image
@options.prompt
@click.option("--left", type=int, metavar="PIXELS", help="How much to add on the left.")
@click.option("--right", type=int, metavar="PIXELS", help="How much to add on the right.")
@click.option("--top", type=int, metavar="PIXELS", help="How much to add at the top.")
@click.option("--bottom", type=int, metavar="PIXELS", help="How much to add at the bottom.")
@options.paid
def outpaint(setting: Setting, /, **given: Any) -> None:
    """Extend IMAGE, a file or a URL, beyond its edges by PROMPT, on one side at least."""
    options.pay(FillOutpaint, setting, **given)


@click.command()
@options.image
@options.prompt
@options.paid
def variation(setting: Setting, /, **given: Any) -> None:
    """Make a variation of IMAGE, a file or a URL, by PROMPT."""
    options.pay(ReduxVariation, setting, **given)


@click.command()
@options.image
@options.prompt
@_width
@_height
@click.option("--seed", type=int, help="What chance begins with; -1 is another one each time.")
@click.option("--steps", type=int, help="How many steps to take: 1 to 40.")
@options.paid
def kontext(setting: Setting, /, **given: Any) -> None:
    """Edit IMAGE, a file or a URL, as PROMPT says. The result has a size of its own."""
    options.pay(Kontext, setting, **given)


@click.command()
@options.as_json
@options.emulated
@options.setting
def account(setting: Setting, /, *, is_json: bool, is_emulated: bool) -> None:
    """Print the account's plan, balance and how many tasks it may have in flight. This is free."""
    found = ask(lambda session: session.account(), setting=setting, is_emulated=is_emulated)
    known = attrs.asdict(found, filter=lambda field, _value: not field.name.startswith("_"))
    click.echo(json.dumps(known) if is_json else balance(found))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), shell_complete=types.files)
@click.option("--filename", metavar="NAME", help="The name to upload it under.  [default: one that tells its kind]")
@options.max_pixels
@options.as_json
@options.emulated
@options.setting
def upload(
    setting: Setting,
    /,
    *,
    file: Path,
    filename: str | None,
    max_pixels: int | None,
    is_json: bool,
    is_emulated: bool,
) -> None:
    """Upload FILE, and print its link, which lives for 24 hours.

    This is free, but PiAPI wants its Creator plan or higher. A link can stand for IMAGE in every command.
    """
    if filename is None and file.suffix.lower() in (".mp4", ".wav", ".mp3"):
        filename = f"file{file.suffix.lower()}"

    def work(session: Session) -> Awaitable[str]:
        return session.upload(file, filename=filename)

    link = ask(work, setting=setting, is_emulated=is_emulated, max_pixels=max_pixels)
    click.echo(json.dumps({"url": link}) if is_json else link)


FAMILY = (txt2img, inpaint, outpaint, variation, kontext)
