"""The only door to SQLite: one thread, one connection, and one flush to disk for all who come at the same moment.

An *act* is a function of the connection that reads and writes. Acts that wait while the disk is busy are done in one
transaction, in the order in which they came: a commit costs the same for one as for a hundred. An act that refuses
(raises a `PiAPIError`) has to do so before it writes. Whatever SQLite itself objects to undoes the transaction, and
everybody who was in it is told.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from piapi_async import errors

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

MEMORY = ":memory:"
"""SQLite's name for a database without a file."""

BUSY = 30.0
"""Seconds to wait while another process writes."""

_MOMENT = 0.02  # seconds


@attrs.define(eq=False)
class _Errand(Generic[T]):
    act: "Callable[[sqlite3.Connection], T]"
    flush: bool
    result: T | None = None
    error: Exception | None = None

    def run(self, db: "sqlite3.Connection") -> None:
        self.error = None
        try:
            self.result = self.act(db)
        except errors.PiAPIError as error:
            self.error = error


class Door:
    """A database file, opened when it is first used, and again after `aclose`.

    Args:
        path: The file; it is made if it does not exist, its directory is not.

        migrations: Statements that make the tables, a list for each version of them.
    """

    def __init__(self, path: str | Path, *, migrations: Sequence[str]) -> None:
        self.path = path
        # An absolute path is no URI, whatever it begins with, and stays the same file in another directory.
        self._file = path if path == MEMORY else Path(path).absolute()
        self._migrations = migrations
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="piapi_async-ledger")
        self._waiting: deque[_Errand[Any]] = deque()
        self._db: sqlite3.Connection | None = None

    async def do(self, act: "Callable[[sqlite3.Connection], T]", *, flush: bool = True) -> T:
        """Do something in a transaction, which is in the file when this returns.

        It is done also when the caller is cancelled meanwhile.

        Args:
            act: What is to be done.

            flush: Whether a power cut cannot undo it from then on. Otherwise it can until the next act with a flush,
                and whatever becomes of this process alone cannot.

        Raises:
            LedgerError: The file cannot be opened, read or written; nothing was done.
            PiAPIError: What the act refuses.
        """
        errand = _Errand(act, flush)
        self._waiting.append(errand)
        # One thread, first come first served: when our turn is over, ours was done, perhaps in an earlier turn.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._turn))
        if errand.error is not None:
            raise errand.error
        return errand.result  # type: ignore[return-value] # it is what the act returned, None included

    async def aclose(self) -> None:
        """Close the file."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._close))

    def _turn(self) -> None:
        errands = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not errands:
            return
        error = self._attempt(errands)
        if error is not None and self._makes_room(error):
            error = self._attempt(errands)
        if error is not None:
            for errand in errands:
                errand.error = self._error(error)

    def _attempt(self, errands: Sequence[_Errand[Any]]) -> Exception | None:
        try:
            self._transact(errands)
        except Exception as error:  # noqa: BLE001 - whoever waits for it is told
            self._undo()
            return error
        return None

    def _transact(self, errands: Sequence[_Errand[Any]]) -> None:
        db = self._db = self._db or self._open()
        db.execute(f"PRAGMA synchronous = {'FULL' if any(errand.flush for errand in errands) else 'NORMAL'}")
        db.execute("BEGIN IMMEDIATE")
        for errand in errands:
            errand.run(db)
        db.execute("COMMIT")

    def _undo(self) -> None:
        # Some errors, a full disk among them, have undone it already.
        if self._db is not None and self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _makes_room(self, error: Exception) -> bool:
        """Whether it was the disk that was full, and there is room now: the log of changes may be done with."""
        if self._db is None or getattr(error, "sqlite_errorname", "") != "SQLITE_FULL":
            return False
        return _shorten_log(self._db)

    def _open(self) -> "sqlite3.Connection":
        import sqlite3  # noqa: PLC0415 - not everyone has a ledger

        db = sqlite3.connect(self._file, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            self._refuse_others(db)
            log_ahead(db)
            _shorten_log(db)
            self._migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _refuse_others(self, db: "sqlite3.Connection") -> None:
        """Leave a database alone that is full of something else: ours have a version from their first table on."""
        db.execute("BEGIN")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        db.execute("COMMIT")
        if tables and not version:
            raise errors.LedgerError(
                f"{str(self.path)!r} is a database of something else, no ledger; it was not changed"
            )

    def _migrate(self, db: "sqlite3.Connection") -> None:
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise errors.LedgerError(
                f"ledger {str(self.path)!r} has version {version}, and this piapi_async knows {len(self._migrations)};"
                " update the package"
            )
        for statements in self._migrations[version:]:
            for statement in statements.split(";\n\n"):
                db.execute(statement)
        if version < len(self._migrations):  # on a full disk a ledger can still be read
            db.execute(f"PRAGMA user_version = {len(self._migrations)}")
        db.execute("COMMIT")

    def _error(self, error: Exception) -> errors.PiAPIError:
        if isinstance(error, errors.PiAPIError):
            return error
        ours = errors.LedgerError(f"the ledger {str(self.path)!r} cannot be read or written: {error}")
        ours.__cause__ = error
        return ours

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def log_ahead(db: "sqlite3.Connection", *, seconds: float = BUSY) -> None:
    """Switch to the log that is written ahead; SQLite does not wait by itself for another that does so just now."""
    import sqlite3  # noqa: PLC0415 - not everyone has a ledger

    for _ in range(round(seconds / _MOMENT)):
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY":
                raise
            threading.Event().wait(_MOMENT)
        else:
            return
    db.execute("PRAGMA journal_mode = WAL")


def _shorten_log(db: "sqlite3.Connection") -> bool:
    """Bring the log of changes into the file, and give its room back; whether that was possible."""
    import sqlite3  # noqa: PLC0415 - not everyone has a ledger

    is_busy = 1
    with suppress(sqlite3.Error):
        (is_busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy
