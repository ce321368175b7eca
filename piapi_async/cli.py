"""The command line `piapi-async`; needs the extra `cli`.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 it failed, 2 it was asked for in a wrong way,
130 Ctrl-C.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from piapi_async._cli_board import Board
from piapi_async._cli_fates import Fates, OnCancel
from piapi_async._cli_program import Program
from piapi_async._cli_run import Interrupted, Setting, run
from piapi_async._cli_task import Wish, as_json, build, finish, make, summary
from piapi_async._cli_types import CONTROL, IMAGE, LORA, MODEL, SECONDS
from piapi_async.errors import ConfigurationError
from piapi_async.flux import CONTROL_TYPES, LORA_TYPES, ControlNet, ImageSource, LoRA
from piapi_async.polling import UNSET
from piapi_async.session import Session
from piapi_async.task import SERVICE_MODES, Submittable, TaskInfo, WebhookConfig

if TYPE_CHECKING:
    from piapi_async.emulator import Emulator

_setting = click.make_pass_decorator(Setting, ensure=True)
_on_cancel = click.option(
    "--on-cancel",
    type=click.Choice(["detach", "cancel"]),
    default="detach",
    show_default=True,
    help="What Ctrl-C does to the task: leave it alone, so that it may be billed, or ask the service to cancel it.",
)
_timeout = click.option("--timeout", type=SECONDS, default=None, help="Seconds to wait at most.  [default: 900]")
_seed = click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same pictures.")


def _folder(default: str | None, *, about: str) -> Any:
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--out", type=kind, default=default, show_default=True, metavar="DIR", help=about)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="piapi_async", prog_name="piapi-async", message="%(prog)s %(version)s")
def program() -> None:
    """Image-to-image with PiAPI's Flux models.

    Try 'piapi-async demo' first: it needs no key and costs nothing. For real tasks set PIAPI_API_KEY. Submitting a task
    costs money, looking at one does not.
    """


@program.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@_folder("piapi-demo", about="Where the pictures go.")
@_seed
@_setting
def demo(setting: Setting, photo: Path | None, out: Path, seed: int) -> None:
    """Restyle one photograph in twelve ways, on the emulator.

    Without PHOTO a cat is taken. No key, no network and no money are needed; it takes about 20 seconds.
    """
    _need_pillow("the demo")
    from piapi_async import demo as show  # noqa: PLC0415 - needs Pillow

    board = Board(Console(stderr=True))
    with board:
        results = run(
            show.play(board, photo=photo, out=out, seed=seed),
            setting=setting,
            say=board.say,
            farewell=Fates(board.say, is_emulated=True).farewell,
        )
    show.report(results, console=Console())


@program.command(
    epilog=f"LoRAs: {', '.join(LORA_TYPES)}. Control types: {', '.join(CONTROL_TYPES)}. Others are sent, with a warning."
)
@click.argument("image", type=IMAGE)
@click.argument("prompt")
@click.option("--model", type=MODEL, default=None, help="schnell, dev or dev-advanced.  [default: what the task needs]")
@click.option("--lora", type=LORA, default=None, help="Apply a LoRA.")
@click.option("--control", type=CONTROL, default=None, help="Steer by a control picture, e.g. canny:edges.png.")
@click.option("--negative-prompt", metavar="TEXT", default=None, help="What the result should not show.")
@click.option("--denoise", type=float, default=None, help="How far to leave the source: above 0, up to 1.")
@click.option("--guidance-scale", type=float, default=None, help="How closely to follow the prompt: 1.5 to 5.")
@click.option("--batch-size", type=int, default=None, help="How many pictures, 1 to 4, on schnell; each is charged.")
@click.option("--service-mode", type=click.Choice(SERVICE_MODES), default=None, help="Pay per use, or host-your-account.")
@click.option("--webhook", metavar="URL", default=None, help="Where the service is to report the task as well.")
@_folder(".", about="Where the pictures go.")
@_timeout
@click.option("--emulator", "is_emulated", is_flag=True, help="Use a local emulator: no key, no money.")
@_on_cancel
@_setting
def img2img(
    setting: Setting,
    *,
    image: ImageSource,
    prompt: str,
    lora: LoRA | None,
    control: ControlNet | None,
    batch_size: int | None,
    webhook: str | None,
    out: Path,
    timeout: float | None,
    is_emulated: bool,
    on_cancel: OnCancel,
    **fields: Any,
) -> None:
    """Make new pictures from IMAGE, a file or a URL, and PROMPT.

    The files written are printed. The task's id comes first, on stderr, so that 'piapi-async task wait ID' can find the
    task again whatever happens.
    """
    request = build(image, prompt=prompt, lora=lora, control=control, batch_size=batch_size, **fields)
    wish = Wish(
        out=out,
        timeout=UNSET if timeout is None else timeout,
        webhook=None if webhook is None else WebhookConfig(webhook),
    )
    for path in _submit(request, setting=setting, wish=wish, on_cancel=on_cancel, is_emulated=is_emulated):
        click.echo(path)


def _submit(
    request: Submittable, *, setting: Setting, wish: Wish, on_cancel: OnCancel, is_emulated: bool
) -> tuple[str, ...]:
    board = Board(Console(stderr=True))
    fates = Fates(board.say, on_cancel=on_cancel, is_emulated=is_emulated)

    async def work() -> tuple[str, ...]:
        async with _session(is_emulated=is_emulated, on_cancel=on_cancel, observers=(fates, board)) as session:
            return await make(request, session=session, fates=fates, wish=wish)

    with board:
        return run(work(), setting=setting, say=board.say, farewell=fates.farewell)
