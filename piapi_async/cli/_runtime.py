"""What commands run in: a session with its display, on the real service or on an emulator; and the emulator alone."""

import asyncio
import importlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from piapi_async.cli._interrupt import Farewell, Setting, nothing_to_say, run
from piapi_async.cli._progress import Glance
from piapi_async.cli._summary import Fates
from piapi_async.errors import ConfigurationError
from piapi_async.session import Session

if TYPE_CHECKING:
    from piapi_async.emulator import Emulator

T = TypeVar("T")

PICTURES_MISSING = "pictures need Pillow: pip install pillow"


def attend(
    work: Callable[[Session, Fates], Awaitable[T]],
    *,
    setting: Setting,
    is_emulated: bool = False,
    **given: Any,
) -> T:
    """Do the work that follows one task, with its display, and with what to say of it after Ctrl-C.

    Args:
        work: What to do.

        setting: What to run on.

        is_emulated: Whether to use a local emulator.

        **given: What else the `Session` is to be made with.
    """
    glance = Glance(Console(stderr=True))
    fates = Fates(glance.say, on_cancel=given.get("on_cancel", "detach"), is_emulated=is_emulated)

    async def attended() -> T:
        async with opened(is_emulated=is_emulated, observers=(fates, glance), **given) as session:
            return await work(session, fates)

    with glance:
        return run(attended(), setting=setting, say=glance.say, farewell=fates.farewell)


def ask(
    work: Callable[[Session], Awaitable[T]],
    *,
    setting: Setting,
    farewell: Farewell = nothing_to_say,
    is_emulated: bool = False,
    **given: Any,
) -> T:
    """Do the work of one short question, without a display; the arguments are those of `attend` and of `run`."""

    async def asked() -> T:
        async with opened(is_emulated=is_emulated, **given) as session:
            return await work(session)

    return run(asked(), setting=setting, say=Glance(Console(stderr=True)).say, farewell=farewell)


@asynccontextmanager
async def opened(*, is_emulated: bool = False, **given: Any) -> AsyncIterator[Session]:
    """A session, on the real service or on an emulator of its own.

    Args:
        is_emulated: Whether to use a local emulator.

        **given: What else the `Session` is to be made with.
    """
    if not is_emulated:
        async with Session(**given) as session:
            yield session
        return
    need_pillow()
    # The seed makes the task ids, and those name the files: each command has its own.
    own = emulator(seed=secrets.randbits(32))
    async with own as server, Session(server.api_key, base_url=server.url, **given) as session:
        yield session


def emulator(**options: Any) -> "Emulator":
    """An emulator, whose web server is imported only now."""
    from piapi_async.emulator import Emulator  # noqa: PLC0415 - aiohttp.web is not needed for real tasks

    return Emulator(**options)


async def serve(server: "Emulator", *, ready: Callable[["Emulator"], None]) -> None:
    """Run an emulator until cancelled.

    Args:
        server: The emulator.

        ready: Called when it listens.
    """
    async with server:
        ready(server)
        await asyncio.get_running_loop().create_future()


def has_pillow() -> bool:
    """Whether pictures can be made."""
    try:
        importlib.import_module("PIL.Image")
    except ImportError:
        return False
    return True


def need_pillow() -> None:
    """Make sure that pictures can be made.

    Raises:
        ConfigurationError: They cannot.
    """
    if not has_pillow():
        raise ConfigurationError(PICTURES_MISSING)
