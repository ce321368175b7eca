"""Files that are whole or not there: written under a hidden name, then given their own in one step."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from piapi_async import _process

OLD_SECONDS = 24 * 3600.0
"""How long a part that somebody still writes to can certainly not be left alone: silence ends a download in minutes."""

_PART = re.compile(r"\.piapi_async-([0-9a-f]{12})-(\d+)-(\d*)-[0-9a-f]{16}\.part", re.ASCII)


@cache
def _mine(_pid: int) -> str:
    """What tells the parts of this process from those of others: machine, process id, and when it began.

    Worked out once, and, as the argument differs there, again in a process that was forked.
    """
    machine, pid, begun, _ = _process.new_owner().rsplit("/", 3)
    return f"{_digest(machine)}-{pid}-{begun}"


def _digest(machine: str) -> str:
    return hashlib.sha256(machine.encode()).hexdigest()[:12]


def sweep(directory: Path, *, now: float) -> None:
    """Remove the parts that processes of this package left behind when they were killed.

    Args:
        directory: Where they are, if there are any.

        now: Seconds since 1970. A part is left alone as long as its process may be alive: it runs on this machine, or
            it is not known whether it does, and the part was written to within the last day.
    """
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            found = _PART.fullmatch(entry.name)
            if found and _is_left_behind(entry, *found.groups(), now=now):
                Path(entry.path).unlink()


def _is_left_behind(entry: "os.DirEntry[str]", machine: str, pid: str, begun: str, *, now: float) -> bool:
    here = _process.new_owner().rsplit("/", 3)[0]
    if machine == _digest(here) and _process.is_gone(f"{here}/{pid}/{begun}/"):
        return True
    return int(pid) != os.getpid() and now - entry.stat().st_mtime > OLD_SECONDS


@contextmanager
def temporary(directory: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new hidden file, open for writing and reading; it is gone afterwards, unless it was published."""
    path = directory / f".piapi_async-{_mine(os.getpid())}-{secrets.token_hex(8)}.part"
    file = path.open("x+b")
    try:
        yield path, file
    finally:
        # What led here is to be told, not that a full disk refuses the last bytes of a file that nobody wants.
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            path.unlink()


def publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give a file that is complete its name, in one step.

    Raises:
        FileExistsError: The name is taken and may not be replaced; also when it was taken a moment ago.
        OSError: The disk refuses.
    """
    if overwrite:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except (OSError, NotImplementedError):  # the name is taken, or this file system has no hard links
        _reserve_and_replace(temporary, path)


def _reserve_and_replace(temporary: Path, path: Path) -> None:
    try:
        path.open("xb").close()
    except FileExistsError:
        raise _taken(path) from None
    try:
        temporary.replace(path)
    except BaseException:
        path.unlink()
        raise


def refuse_existing(path: Path) -> None:
    """Say at once what `publish` would say later.

    Raises:
        FileExistsError: The name is taken.
    """
    if path.exists():
        raise _taken(path)


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(f"{str(path)!r} exists; pass overwrite=True to replace it, or name it with {{task_id}}")


def write(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a file whole or not at all; its directory is made if missing. The errors are those of `publish`."""
    make_directory(path.parent)
    with naming(path), temporary(path.parent) as (part, file):
        file.write(data)
        file.close()
        publish(part, path, overwrite=overwrite)


def make_directory(path: Path) -> None:
    """Make a directory, and those that it is in, if they are missing.

    Raises:
        NotADirectoryError: It is a file, or in one.
        OSError: The disk refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next((one for one in (path, *path.parents) if one.exists()), path)
        raise NotADirectoryError(f"{str(path)!r} must be a directory, but {str(file)!r} is a file") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an `OSError` that names no file, as that of a full disk, the name of the one that was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
