"""The only door to SQLite: one thread, one connection, and one flush to disk for all who come at the same moment.

An *act* is a function of the connection that reads and writes. Acts that wait while the disk is busy are done in one
transaction, in the order in which they came, and all who wait for them are told at once: a commit, and waking the
event loop after it, cost the same for one as for a hundred. An act that refuses (raises a `PiAPIError`) has to do so
before it writes. What goes wrong with the file undoes the transaction, and everybody who was in it is told; what goes
wrong with one act, a value that cannot be stored, is that act's alone.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
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
    """An act, and who waits for it."""

    act: "Callable[[sqlite3.Connection], T]"
    flush: bool
    told: "asyncio.Future[T]"
    result: T | None = None
    error: errors.PiAPIError | None = None

    def run(self, db: "sqlite3.Connection") -> None:
        self.error = None
        try:
            self.result = self.act(db)
        except errors.PiAPIError as error:
            self.error = error

    def tell(self) -> None:
        if self.told.done():  # the caller was cancelled meanwhile
            return
        if self.error is not None:
            self.told.set_exception(self.error)
        else:
            self.told.set_result(self.result)  # type: ignore[arg-type] # it is what the act returned, None included


@attrs.define(eq=False)
class _Turn:
    """What is done in one transaction, all of it asked for in one event loop."""

    loop: asyncio.AbstractEventLoop
    errands: list[_Errand[Any]] = attrs.field(factory=list)


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
        self._lock = threading.Lock()  # for the next line
        self._next: _Turn | None = None  # the one that has not begun, and takes more
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
        loop = asyncio.get_running_loop()
        told: asyncio.Future[T] = loop.create_future()
        with self._lock:
            if self._next is None or self._next.loop is not loop:
                turn = _Turn(loop)
                taken = loop.run_in_executor(self._thread, self._take, turn)
                taken.add_done_callback(partial(self._tell, turn))
                self._next = turn
            self._next.errands.append(_Errand(act, flush, told))
        return await told

    async def aclose(self) -> None:
        """Close the file."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._close))

    def _take(self, turn: _Turn) -> None:
        self._begin(turn)
        self._carry_out(turn.errands)

    def _begin(self, turn: _Turn) -> None:
        """Whoever comes from now on has another turn."""
        with self._lock:
            if self._next is turn:
                self._next = None

    def _tell(self, turn: _Turn, done: "asyncio.Future[None]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._begin(turn)
            for errand in turn.errands:
                errand.error = errors.LedgerError(f"the thread of the ledger {str(self.path)!r} was stopped")
        for errand in turn.errands:
            errand.tell()

    def _carry_out(self, errands: Sequence[_Errand[Any]]) -> None:
        try:
            self._work(errands)
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
            if len(errands) > 1 and not _is_of_file(error):
                for errand in errands:
                    self._carry_out([errand])
            else:
                for errand in errands:
                    errand.error = self._error(error)

    def _work(self, errands: Sequence[_Errand[Any]]) -> None:
        try:
            self._transact(errands)
        except Exception as error:
            if not self._makes_room(error):
                raise
            self._transact(errands)

    def _transact(self, errands: Sequence[_Errand[Any]]) -> None:
        db = self._db = self._db or self._open()
        try:
            db.execute(f"PRAGMA synchronous = {'FULL' if any(errand.flush for errand in errands) else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            for errand in errands:
                errand.run(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # some errors, a full disk among them, have undone it already
                db.execute("ROLLBACK")
            raise

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

    def _error(self, error: BaseException) -> errors.PiAPIError:
        if isinstance(error, errors.PiAPIError):
            return error
        ours = errors.LedgerError(f"the ledger {str(self.path)!r} cannot be read or written: {error}")
        ours.__cause__ = error
        return ours

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _is_of_file(error: BaseException) -> bool:
    import sqlite3  # noqa: PLC0415 - not everyone has a ledger

    return isinstance(error, sqlite3.OperationalError)


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
    """Bring the log of changes into the file, and give its room back; whether that was possible.

    It does not wait for others: while it waited none of them could write, and some waited for it in turn.
    """
    import sqlite3  # noqa: PLC0415 - not everyone has a ledger

    is_busy = 1
    db.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.Error):
        (is_busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    db.execute(f"PRAGMA busy_timeout = {round(1000 * BUSY)}")
    return not is_busy
