"""The command line `piapi-async`; needs the extra `cli`.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 it failed, 2 usage error, 130 Ctrl-C,
128 + n ended by signal n (143 SIGTERM).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from piapi_async.cli import _options as options
from piapi_async.cli import _types as types
from piapi_async.cli._batch import batch
from piapi_async.cli._commands import FAMILY, account, upload
from piapi_async.cli._emulator import run_emulator
from piapi_async.cli._errors import Program
from piapi_async.cli._interrupt import Setting, run
from piapi_async.cli._ledger import ledger
from piapi_async.cli._progress import Board
from piapi_async.cli._runtime import ask, attend, need_pillow
from piapi_async.cli._summary import Fates
from piapi_async.cli._task import (
    Done,
    Saving,
    as_json,
    build,
    finish,
    summary,
)
from piapi_async.flux import CONTROL_TYPES, LORA_TYPES
from piapi_async.session import Session

F = TypeVar("F", bound=Callable[..., Any])

_NAMES = f"LoRAs: {', '.join(LORA_TYPES)}. Control types: {', '.join(CONTROL_TYPES)}. Others are sent, with a warning."

_task_id = click.argument("task_id", metavar="ID")
_seed = click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same pictures.")


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="piapi_async", prog_name="piapi-async", message="%(prog)s %(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Image-to-image with PiAPI's Flux models.

    'piapi-async demo' needs no key and costs nothing: try it first. For real tasks set PIAPI_API_KEY; submitting a task
    costs money, polling one does not.

    Exit codes: 0 done, 1 it failed, 2 usage error, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
    """
    _help_alone(ctx)


def _help_alone(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@program.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@options.out("piapi-demo", about="Where the pictures go.")
@_seed
@options.setting
def demo(setting: Setting, /, *, photo: Path | None, out: Path, seed: int) -> None:
    """Restyle one photograph in twelve ways, on the emulator.

    Without PHOTO it is that of a cat. No key, no network and no money are needed; it takes about 20 seconds.
    """
    need_pillow()
    from piapi_async.cli import _demo as show  # noqa: PLC0415 - needs Pillow, which not everyone has

    with Board(Console(stderr=True)) as board:
        fates = Fates(board.say, is_emulated=True)
        work = show.play(board, photo=photo, out=out, seed=seed)
        gallery = run(work, setting=setting, say=board.say, farewell=fates.farewell)
    show.report(gallery, console=Console())


@program.command(epilog=_NAMES)
@options.image
@options.prompt
@options.model
@options.lora
@click.option("--control", type=types.control, metavar="TYPE:IMAGE", help="Steer by a picture, e.g. canny:edges.png.")
@click.option("--negative-prompt", metavar="TEXT", help="What the result should not show.")
@click.option("--denoise", type=types.number, metavar="NUMBER", help="How far to leave IMAGE behind: above 0, up to 1.")
@click.option("--guidance-scale", type=types.number, metavar="NUMBER", help="How closely to follow PROMPT: 1.5 to 5.")
@click.option("--batch-size", type=int, help="How many pictures: 1 to 4, on schnell; each is charged.")
@options.paid
def img2img(setting: Setting, /, **given: Any) -> None:
    """Make a picture from IMAGE, a file or a URL, and PROMPT.

    --lora and --control choose the task type. The files written are printed; the task's id comes first, on stderr, so
    that 'piapi-async task wait ID' finds the task again whatever happens.
    """
    options.pay(build, setting, **given)


@program.group(invoke_without_command=True)
@click.pass_context
def task(ctx: click.Context) -> None:
    """Poll a task, wait for it, or cancel it."""
    _help_alone(ctx)


@task.command()
@_task_id
@click.option("--json", "is_raw", is_flag=True, help="Print what the service sent, without the webhook's secret.")
@options.setting
def get(setting: Setting, /, *, task_id: str, is_raw: bool) -> None:
    """Poll a task once, and print how it stands. This is free."""
    info = ask(lambda session: session.get_task(task_id), setting=setting)
    click.echo(as_json(info) if is_raw else summary(info))


@task.command()
@_task_id
@options.out(None, about="Save the pictures here; without it their links are printed.")
@options.naming
@options.sidecar
@options.timeout
@options.as_json
@options.setting
def wait(
    setting: Setting,
    /,
    *,
    task_id: str,
    out: Path | None,
    name: str | None,
    sidecar: bool,
    timeout: float | None,
    is_json: bool,
) -> None:
    """Wait until the task ID is over, and print its pictures. This is free."""
    if out is None and (name or sidecar):
        raise click.UsageError("--name and --sidecar need --out")

    async def work(session: Session, fates: Fates) -> Done:
        fates.know(task_id)
        saving = None if out is None else Saving(out=out, name=name, sidecar=sidecar)
        return await finish(session.task(task_id), session=session, saving=saving, timeout=timeout)

    options.report(attend(work, setting=setting), is_json=is_json)


@task.command()
@_task_id
@options.setting
def cancel(setting: Setting, /, *, task_id: str) -> None:
    """Ask the service to cancel the task ID, and print how it stands.

    PiAPI documents this for tasks that are still pending, and not for Flux; it may refuse.
    """

    def farewell(*, at_rest: bool) -> Iterator[str]:  # noqa: ARG001 - it is a `Farewell`
        yield f"'piapi-async task get {task_id}' tells whether the task was cancelled"

    click.echo(summary(ask(lambda session: session.cancel_task(task_id), setting=setting, farewell=farewell)))


for _command in (*FAMILY, batch, ledger, upload, account, run_emulator):
    program.add_command(_command)
