"""`SQLiteLedger`: the durable record of jobs, in one file.

It remembers what was asked, what was paid for and where the pictures are, so that a batch which was killed goes on
where it was. What may become of a job is told in `piapi_async.ledger._states`.

    async with SQLiteLedger("jobs.db") as ledger:
        print(await ledger.counts())
        async for row in ledger.rows(JobState.IN_DOUBT):
            print(row.key, row.since)
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from piapi_async import _validators
from piapi_async._asyncio import Clock
from piapi_async._fingerprint import Content
from piapi_async.ledger import _store as acts
from piapi_async.ledger._rows import Row
from piapi_async.ledger._schema import MIGRATIONS
from piapi_async.ledger._sqlite import Door
from piapi_async.ledger._states import TABLE, JobEvent, JobState
from piapi_async.ledger._store import BURIED, LEASE, LOST, Claim, LeaseLostError
from piapi_async.prices import POINTS_PER_USD
from piapi_async.task import TaskInfo

__all__ = ["BURIED", "LEASE", "LOST", "TABLE", "Claim", "JobEvent", "JobState", "LeaseLostError", "Row", "SQLiteLedger"]


class SQLiteLedger:
    """A ledger in an SQLite file.

    Every change is in the file when its call returns. Those that money depends on (a POST may begin, its task's id, a
    doubt) are flushed to the disk as well, so that a power cut cannot undo them; those that come at the same moment
    share one flush. What a power cut may undo, the plan of a job or its end, is found out again without paying. The
    file is opened at the first use and again after `aclose`, also in another `asyncio.run`. Several processes on one
    machine may use it at once: they never work on the same job. A file on a network share is not for this.

    Args:
        path: The file; it is made if it does not exist. Its directory has to exist.

    Raises:
        TypeError: This is no path.
        ValueError: It is empty.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path):
            raise _validators.refuse(TypeError, name="ledger", allowed="a SQLiteLedger or a path", value=path)
        if not str(path):
            raise _validators.refuse(ValueError, name="ledger", allowed="the path of a file", value=path)
        self._door = Door(path, migrations=MIGRATIONS)
        self._clock = Clock()

    @property
    def path(self) -> str:
        """The file."""
        return str(self._door.path)

    # What is in it.

    async def counts(self) -> dict[JobState, int]:
        """How many jobs stand how.

        Raises:
            LedgerError: The file cannot be read; so also for the other methods.
        """
        return await self._door.do(acts.counts)

    async def spent(self) -> float:
        """What all jobs cost so far, in US dollars.

        Those that are over with what the service charged, those in flight or in doubt with what they are expected to
        cost; also jobs that were forgotten since.
        """
        return await self.points() / POINTS_PER_USD

    async def points(self) -> int:
        """The same in points; 10,000,000 are 1 US dollar."""
        return await self._door.do(acts.spent)

    async def get(self, key: str) -> Row | None:
        """The job of that key, or `None`."""
        return await self._door.do(lambda db: acts.find(db, key=key))

    async def rows(self, *states: JobState, is_unsaved: bool = False) -> AsyncIterator[Row]:
        """All jobs in these states, or in any, in the order in which they were planned.

        It may run beside a batch, and holds a few hundred rows at a time.

        Args:
            *states: The states.

            is_unsaved: Whether to leave out those whose pictures are on disk, or will never be.
        """
        wanted, beyond = [str(state) for state in states or JobState], 0
        while page := await self._page(wanted, beyond=beyond, is_unsaved=is_unsaved):
            for row in page:
                yield row
            beyond = page[-1].id

    async def export(self) -> AsyncIterator[dict[str, Any]]:
        """All jobs as JSON values."""
        async for row in self.rows():
            yield row.as_dict()

    async def forget(self, key: str) -> bool:
        """Remove a job, so that the same request is a new one, which is submitted and paid for again.

        Returns:
            Whether there was one.

        Raises:
            LedgerError: A batch works on it at this moment.
        """
        now = self._clock.now()
        return await self._door.do(lambda db: acts.forget(db, key=key, now=now))

    # What happens to jobs: for whoever drives them. `owner` is the name of a holder, see `piapi_async._process`.

    async def hold(self, owner: str) -> None:
        """Say that a holder lives, for `LEASE` seconds from now; jobs of holders that do not become free."""
        now = self._clock.now()
        await self._door.do(lambda db: acts.hold(db, owner=owner, now=now), flush=False)

    async def let_go(self, owner: str) -> None:
        """Free all jobs of a holder; what it was submitting is in doubt."""
        now = self._clock.now()
        await self._door.do(lambda db: acts.bury(db, owner=owner, now=now))

    async def claim(self, content: Content, *, key: str | None, owner: str, save: bool) -> Claim:
        """Find or plan a job, and take it unless it is settled or somebody's.

        Args:
            content: What is asked for.

            key: Its key; without one it is the next job of this content that the holder has not asked for yet.

            owner: Who asks.

            save: Whether a completed job without pictures on disk is not settled.

        Raises:
            LedgerConflictError: The key is another request's.
        """
        now = self._clock.now()
        return await self._door.do(
            lambda db: acts.claim(db, content=content, key=key, owner=owner, save=save, now=now), flush=False
        )

    async def take(self, row: Row, *, owner: str, save: bool) -> Claim:
        """Take a job that is in the ledger unless it is settled or somebody's."""
        now = self._clock.now()
        return await self._door.do(lambda db: acts.take(db, row=row, owner=owner, save=save, now=now))

    async def send(
        self, key: str, *, owner: str, token: str | None, points: int, limit: int | None, sent: Sequence[str] = ()
    ) -> None:
        """The job's POST is about to begin: from here on a task may exist.

        Args:
            key: The job.

            owner: Its holder.

            token: What the webhook URL of this attempt carries.

            points: What it is expected to cost.

            limit: What all jobs of the ledger may cost.

            sent: The hashes of its local pictures as they go out.

        Raises:
            LeaseLostError: The job is no longer this holder's: it must not be sent.
            SpendLimitError: It would go beyond the limit.
            LedgerError: The file cannot be written: it must not be sent.
        """
        now = self._clock.now()
        await self._door.do(
            lambda db: acts.send(db, key=key, owner=owner, sent=sent, token=token, points=points, limit=limit, now=now)
        )

    async def refused(self, key: str, *, owner: str) -> None:
        """There is certainly no task from the holder's POST."""
        now = self._clock.now()
        await self._door.do(lambda db: acts.refused(db, key=key, owner=owner, now=now))

    async def lost(self, key: str, *, owner: str) -> None:
        """The answer to the holder's POST was lost."""
        now = self._clock.now()
        await self._door.do(lambda db: acts.lost(db, key=key, owner=owner, now=now))

    async def explain(self, reasons: Mapping[str, str]) -> None:
        """Why jobs, by their keys, are in doubt, or stay so; what is not in doubt is left alone."""
        await self._door.do(lambda db: acts.explain(db, reasons=reasons))

    async def resubmit(self, key: str) -> None:
        """Plan a job anew that is in doubt; it may be paid for twice."""
        now = self._clock.now()
        await self._door.do(lambda db: acts.resubmit(db, key=key, now=now))

    async def accepted(self, key: str, *, task_id: str) -> None:
        """There is a task, whoever submitted it.

        Raises:
            LedgerError: The job has another one already, or the task is another job's.
        """
        now = self._clock.now()
        await self._door.do(lambda db: acts.accepted(db, key=key, task_id=task_id, now=now))

    async def finished(
        self,
        key: str,
        *,
        info: TaskInfo,
        owner: str,
        paths: Sequence[Path] | None = None,
        error: str | None = None,
    ) -> None:
        """The task is over, and the job is free again.

        Args:
            key: The job.

            info: The task.

            owner: Its holder.

            paths: Where its pictures are, if they were saved.

            error: Why there will never be any.
        """
        now = self._clock.now()
        await self._door.do(
            lambda db: acts.finished(db, key=key, info=info, paths=paths, error=error, owner=owner, now=now),
            flush=False,
        )

    async def release(self, key: str, *, owner: str) -> None:
        """Let one job go, as it stands."""
        now = self._clock.now()
        await self._door.do(lambda db: acts.release(db, key=key, owner=owner, now=now))

    async def miss(self, key: str) -> None:
        """The pictures are no longer where they were saved: they are to be fetched again."""
        await self._door.do(lambda db: acts.miss(db, key=key))

    async def rivals(self, rows: Sequence[Row]) -> set[str]:
        """Those contents, by fingerprint, of which jobs other than these are being submitted at this moment."""
        keys, fingerprints = {row.key for row in rows}, {row.content.fingerprint for row in rows}
        return await self._door.do(lambda db: acts.rivals(db, keys=keys, fingerprints=fingerprints))

    async def unknown(self, task_ids: Sequence[str]) -> list[str]:
        """Those of the tasks that no job has."""
        return await self._door.do(lambda db: acts.unknown(db, task_ids=task_ids))

    async def aclose(self) -> None:
        """Close the file; the next use opens it again."""
        await self._door.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<SQLiteLedger {self.path}>"

    async def _page(self, states: Sequence[str], *, beyond: int, is_unsaved: bool) -> list[Row]:
        return await self._door.do(lambda db: acts.page(db, states=states, beyond=beyond, is_unsaved=is_unsaved))
