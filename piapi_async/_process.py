"""Who holds a job: a name for this process that another one on the same machine can see to be gone."""

import os
import platform
import secrets
import sys
from contextlib import suppress
from pathlib import Path


def new_owner() -> str:
    """A name for one holder of jobs in this process, different each time."""
    return "/".join((_machine(), str(os.getpid()), _begun(os.getpid()), secrets.token_hex(8)))


def is_gone(owner: str) -> bool:
    """Whether a holder is certainly no more: its process ran on this machine and has ended.

    `False` also where that cannot be told; its lease runs out in the end.
    """
    machine, pid, begun, _ = owner.rsplit("/", 3)
    # On Windows a signal 0 is no question but an interruption.
    if machine != _machine() or sys.platform == "win32":
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return _begun(int(pid)) != begun


def _machine() -> str:
    """What two processes have to share for their process ids to mean the same: host, boot, and namespace."""
    return "|".join((platform.node(), _told("/proc/sys/kernel/random/boot_id"), _told("/proc/self/ns/pid")))


def _begun(pid: int) -> str:
    """When a process began, in the kernel's count: process ids are used again."""
    return "".join(_told(f"/proc/{pid}/stat").rpartition(")")[2].split()[19:20])


def _told(name: str) -> str:
    """What the kernel says in one of its files, or nothing where it has none."""
    path, words = Path(name), ""
    with suppress(OSError):
        words = str(path.readlink()) if path.is_symlink() else path.read_text(encoding="utf-8", errors="replace")
    return words.strip()
