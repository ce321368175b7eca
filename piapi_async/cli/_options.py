"""The options that several commands share, and what a command that pays for a task does with them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from piapi_async._session_options import LocalImages
from piapi_async.cli import _types as types
from piapi_async.cli._interrupt import Setting
from piapi_async.cli._runtime import attend
from piapi_async.cli._summary import Fates, OnCancel
from piapi_async.cli._task import Done, Saving, make, record
from piapi_async.flux import LORA_TYPES
from piapi_async.session import Session
from piapi_async.task import SERVICE_MODES, Submittable, WebhookConfig

F = TypeVar("F", bound=Callable[..., Any])

image = click.argument("image", type=types.image, shell_complete=types.files)
prompt = click.argument("prompt")
model = click.option(
    "--model",
    type=types.model,
    metavar="NAME",
    shell_complete=types.among(types.MODELS),
    help="schnell, dev or dev-advanced.  [default: what fits]",
)
lora = click.option(
    "--lora",
    type=types.lora,
    metavar="NAME[:STRENGTH]",
    shell_complete=types.among(LORA_TYPES),
    help="Apply a LoRA.",
)
setting = click.make_pass_decorator(Setting, ensure=True)
timeout = click.option(
    "--timeout", type=types.seconds, metavar="SECONDS", help="Seconds to wait at most.  [default: 900]"
)
as_json = click.option("--json", "is_json", is_flag=True, help="Print one line of JSON, for machines.")
emulated = click.option("--emulator", "is_emulated", is_flag=True, help="Use a local emulator: no key, no money.")


def out(default: str | None, *, about: str) -> Callable[[F], F]:
    """`--out`, a directory."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--out", type=kind, default=default, show_default=True, metavar="DIR", help=about)


naming = click.option(
    "--name",
    type=types.naming,
    metavar="TEMPLATE",
    help="How to name the files, e.g. '{date}/{task_id}-{n}'.  [default: the task's id]",
)
sidecar = click.option("--sidecar", is_flag=True, help="Write a JSON file beside them: request, times, cost, digests.")
local_images = click.option(
    "--local-images",
    type=click.Choice(get_args(LocalImages)),
    default="data-uri",
    show_default=True,
    help="How local pictures travel: inside the request, or as links of the upload (Creator plan or higher).",
)
max_pixels = click.option(
    "--max-pixels", type=int, metavar="NUMBER", help="Scale local pictures down to so many pixels at most."
)

_PAID: tuple[Callable[[Any], Any], ...] = (
    click.option("--service-mode", type=click.Choice(SERVICE_MODES), help="Pay per use, or host-your-account."),
    click.option("--webhook", metavar="URL", help="Where the service is to report the task as well."),
    out(".", about="Where the pictures go."),
    naming,
    sidecar,
    local_images,
    max_pixels,
    timeout,
    click.option(
        "--max-spend",
        type=types.number,
        metavar="USD",
        help="Submit nothing that may cost more than this, by the prices PiAPI published.",
    ),
    as_json,
    emulated,
    click.option(
        "--on-cancel",
        type=click.Choice(["detach", "cancel"]),
        default="detach",
        show_default=True,
        help="What Ctrl-C does to the task: leave it alone, and it may be billed, or ask the service to cancel it.",
    ),
    setting,
)


def paid(command: F) -> F:
    """The options of every command that pays for a task; `pay` takes them, and `--service-mode` is the request's."""
    for option in reversed(_PAID):
        command = option(command)
    return command


def pay(
    build: Callable[..., Submittable],
    setting: Setting,
    /,
    *,
    webhook: str | None,
    out: Path,
    name: str | None,
    sidecar: bool,
    local_images: LocalImages,
    max_pixels: int | None,
    timeout: float | None,
    max_spend: float | None,
    is_json: bool,
    is_emulated: bool,
    on_cancel: OnCancel,
    **fields: Any,
) -> None:
    """Submit a task, wait for it, save its pictures, and print their files, or all there is to tell as JSON.

    Args:
        build: Makes the request.

        setting: What to run on.

        webhook: Of `paid`, like the next ten.

        out: Where the pictures go.

        name: The template for their names; `None` for the task's id.

        sidecar: Whether to write a JSON file beside them.

        local_images: How local pictures travel.

        max_pixels: The most pixels they have; `None` for any.

        timeout: Seconds to wait; `None` for the policy's.

        max_spend: US dollars that the task may cost; `None` for no limit.

        is_json: Whether to print JSON.

        is_emulated: Whether to use a local emulator.

        on_cancel: What Ctrl-C does to the task.

        **fields: Of the request; `None` is not given.
    """
    with _own_words():
        request = build(**{name: value for name, value in fields.items() if value is not None})
    told = None if webhook is None else WebhookConfig(webhook)

    async def work(session: Session, fates: Fates) -> Done:
        saving = Saving(out=out, name=name, sidecar=sidecar, request=request)
        return await make(request, session=session, fates=fates, webhook=told, saving=saving, timeout=timeout)

    given = {"on_cancel": on_cancel, "max_spend_usd": max_spend, "local_images": local_images, "max_pixels": max_pixels}
    report(attend(work, setting=setting, is_emulated=is_emulated, **given), is_json=is_json)


def report(done: Done, *, is_json: bool) -> None:
    """Print what came of a task: its files or links, one a line, or all there is to tell as JSON."""
    click.echo(json.dumps(record(done)) if is_json else "\n".join(done.results))


@contextmanager
def _own_words() -> Iterator[None]:
    """An error about a field names the option or argument that gives it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        field, _, rest = str(error).partition(" ")
        raise type(error)(f"{_spelt(field)} {rest}") from None


def _spelt(field: str) -> str:
    """A field's name as the command line has it."""
    for param in click.get_current_context().command.params:
        if param.name == field:
            return field.upper() if isinstance(param, click.Argument) else param.opts[0]
    return field
