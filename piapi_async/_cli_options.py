"""The options that several commands share, and what a command that pays for a task does with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from piapi_async import _cli_types as types
from piapi_async._cli_fates import Fates, OnCancel
from piapi_async._cli_run import Setting
from piapi_async._cli_session import attend
from piapi_async._cli_task import make
from piapi_async.session import Session
from piapi_async.task import SERVICE_MODES, Submittable, WebhookConfig

F = TypeVar("F", bound=Callable[..., Any])

setting = click.make_pass_decorator(Setting, ensure=True)
timeout = click.option(
    "--timeout", type=types.seconds, metavar="SECONDS", help="Seconds to wait at most.  [default: 900]"
)
emulated = click.option("--emulator", "is_emulated", is_flag=True, help="Use a local emulator: no key, no money.")


def out(default: str | None, *, about: str) -> Callable[[F], F]:
    """`--out`, a directory."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--out", type=kind, default=default, show_default=True, metavar="DIR", help=about)


_PAID = (
    click.option("--service-mode", type=click.Choice(SERVICE_MODES), help="Pay per use, or host-your-account."),
    click.option("--webhook", metavar="URL", help="Where the service is to report the task as well."),
    out(".", about="Where the pictures go."),
    timeout,
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
    timeout: float | None,
    is_emulated: bool,
    on_cancel: OnCancel,
    **fields: Any,
) -> None:
    """Submit a task, wait for it, save its pictures, and print their files.

    Args:
        build: Makes the request.

        setting: What to run on.

        webhook: Of `paid`, like the next four.

        out: Where the pictures go.

        timeout: Seconds to wait; `None` for the policy's.

        is_emulated: Whether to use a local emulator.

        on_cancel: What Ctrl-C does to the task.

        **fields: Of the request; `None` is not given.
    """
    request = build(**{name: value for name, value in fields.items() if value is not None})
    told = None if webhook is None else WebhookConfig(webhook)

    async def work(session: Session, fates: Fates) -> tuple[str, ...]:
        return await make(request, session=session, fates=fates, webhook=told, out=out, timeout=timeout)

    click.echo("\n".join(attend(work, setting=setting, on_cancel=on_cancel, is_emulated=is_emulated)))
