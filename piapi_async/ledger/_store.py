"""What is done to the ledger, each as one act inside a transaction; `ledger` has the words for it.

The states and who may change them are in `_states`; here they meet the rows.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from piapi_async import errors
from piapi_async._fingerprint import Content
from piapi_async._process import is_gone
from piapi_async.ledger._rows import COLUMNS, Row, read
from piapi_async.ledger._states import JobEvent, JobState, after
from piapi_async.prices import POINTS_PER_USD
from piapi_async.task import TaskInfo, TaskStatus

if TYPE_CHECKING:
    import sqlite3

LEASE = 60.0
"""Seconds for which a holder keeps its jobs without saying that it lives."""

LOST = "the answer to its submit was lost"
"""Why a job is in doubt, where nothing more is known."""

BURIED = "the process that submitted it ended before the answer came"
"""Why the jobs are in doubt that a holder left behind."""

PAGE = 500
"""Rows that are read at once."""

MOST = 10**15
"""Points that one task may cost, a hundred million US dollars: a number beyond it is nonsense, and SQLite's end."""

_ENDS = {
    TaskStatus.COMPLETED: JobEvent.COMPLETED,
    TaskStatus.FAILED: JobEvent.FAILED,
    TaskStatus.CANCELED: JobEvent.CANCELED,
}


class LeaseLostError(errors.LedgerError):
    """Another process has taken the job over; nothing was sent from here."""

    safe_to_resubmit = True


@attrs.frozen(kw_only=True)
class Claim:
    """A job as found, and whether it is now the caller's to work on."""

    row: Row
    is_mine: bool


def find(db: "sqlite3.Connection", *, key: str) -> Row | None:
    """The job of that key."""
    found = db.execute(f"SELECT {COLUMNS} FROM jobs WHERE key = ?", (key,)).fetchone()  # noqa: S608 - our own names
    return None if found is None else read(found)


def _get(db: "sqlite3.Connection", *, key: str) -> Row:
    row = find(db, key=key)
    if row is None:
        raise errors.LedgerError(f"the ledger has no job {key!r}")
    return row


def page(db: "sqlite3.Connection", *, states: Sequence[str], beyond: int, is_unsaved: bool) -> list[Row]:
    """The next rows of these states, in the order in which they were planned."""
    places = ", ".join("?" * len(states))
    which = f"id > ? AND state IN ({places})" + " AND paths IS NULL AND error IS NULL" * is_unsaved
    query = f"SELECT {COLUMNS} FROM jobs WHERE {which} ORDER BY id LIMIT {PAGE}"  # noqa: S608 - the same
    return list(map(read, db.execute(query, (beyond, *states))))


def counts(db: "sqlite3.Connection") -> dict[JobState, int]:
    """How many jobs stand how."""
    found = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
    return {state: found.get(state, 0) for state in JobState}


def spent(db: "sqlite3.Connection") -> int:
    """Points spent or set aside by all jobs, also forgotten ones."""
    (points,) = db.execute("SELECT points FROM totals").fetchone()
    return int(points)


def unknown(db: "sqlite3.Connection", *, task_ids: Sequence[str]) -> list[str]:
    """Those of the tasks that no job has."""
    query = "SELECT 1 FROM jobs WHERE task_id = ?"
    return [task_id for task_id in task_ids if db.execute(query, (task_id,)).fetchone() is None]


def hold(db: "sqlite3.Connection", *, owner: str, now: float) -> None:
    """Say that a holder lives, and take their jobs from those that do not."""
    db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?)", (owner, now + LEASE))
    for other, lease_until in db.execute("SELECT owner, lease_until FROM owners WHERE owner <> ?", (owner,)).fetchall():
        if lease_until <= now or is_gone(other):
            bury(db, owner=other, now=now)


def bury(db: "sqlite3.Connection", *, owner: str, now: float) -> None:
    """Free all jobs of a holder; what it was submitting is in doubt."""
    in_doubt = after(JobState.SUBMITTING, JobEvent.LOST, key=owner)
    changes = (in_doubt, BURIED, now, owner, JobState.SUBMITTING)
    db.execute("UPDATE jobs SET state = ?, error = ?, changed_at = ? WHERE owner = ? AND state = ?", changes)
    db.execute("UPDATE jobs SET owner = NULL WHERE owner = ?", (owner,))
    db.execute("DELETE FROM owners WHERE owner = ?", (owner,))
    db.execute("DELETE FROM asked WHERE owner = ?", (owner,))


def claim(db: "sqlite3.Connection", *, content: Content, key: str | None, owner: str, save: bool, now: float) -> Claim:
    """Find or plan a job, and take it unless it is settled or somebody's.

    Without a key it is the next of its content that this holder has not asked for yet.

    Raises:
        LedgerConflictError: The key is another request's.
    """
    key = key or _next_key(db, content=content, owner=owner)
    row = find(db, key=key)
    if row is None:
        db.execute(
            "INSERT INTO jobs (key, fingerprint, request, changed_at) VALUES (?, ?, ?, ?)",
            (key, content.fingerprint, content.text, now),
        )
        row = _get(db, key=key)
    elif row.content != content:
        raise errors.LedgerConflictError(
            f"key {key!r} is another request's in this ledger; choose another key, or forget({key!r}) that one"
        )
    return take(db, row=row, owner=owner, save=save, now=now)


def _next_key(db: "sqlite3.Connection", *, content: Content, owner: str) -> str:
    asked = (owner, content.fingerprint)
    db.execute("INSERT INTO asked VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET times = times + 1", asked)
    (times,) = db.execute("SELECT times FROM asked WHERE owner = ? AND fingerprint = ?", asked).fetchone()
    return content.key(nth=times)


def take(db: "sqlite3.Connection", *, row: Row, owner: str, save: bool, now: float) -> Claim:
    """Take a job unless it is settled or somebody's."""
    if row.owner not in (None, owner):
        hold(db, owner=owner, now=now)
        row = _get(db, key=row.key)
    if row.is_settled(save=save) or row.owner is not None:
        return Claim(row=row, is_mine=False)
    db.execute("UPDATE jobs SET owner = ? WHERE key = ?", (owner, row.key))
    return Claim(row=row, is_mine=True)


def send(
    db: "sqlite3.Connection",
    *,
    key: str,
    owner: str,
    sent: Sequence[str],
    token: str | None,
    points: int,
    limit: int | None,
    now: float,
) -> None:
    """The permission to pay: from here on a task may exist.

    Raises:
        LeaseLostError: The job is no longer this holder's.
        SpendLimitError: It would go beyond the limit.
    """
    row = _get(db, key=key)
    if row.owner != owner:
        raise LeaseLostError(f"job {key!r} was taken over by another process; nothing was sent")
    total = spent(db)
    if limit is not None and total + points > limit:
        raise errors.SpendLimitError(
            f"job {key!r} costs about {points / POINTS_PER_USD:.4f} USD, and {total / POINTS_PER_USD:.4f} USD of"
            f" max_spend_usd={limit / POINTS_PER_USD:g} are spent, in flight or in doubt; nothing was sent,"
            " and a run with a higher max_spend_usd continues"
        )
    state = after(row.state, JobEvent.SEND, key=key)
    lease = (now + LEASE, owner, now + LEASE / 2)
    db.execute("UPDATE owners SET lease_until = ? WHERE owner = ? AND lease_until < ?", lease)
    db.execute(
        "UPDATE jobs SET state = ?, attempts = attempts + 1, since = ?, sent = ?, token = ?, points = ?, changed_at = ?"
        " WHERE key = ?",
        (state, now, json.dumps(sent) if sent else None, token, min(points, MOST), now, key),
    )


def refused(db: "sqlite3.Connection", *, key: str, owner: str, now: float) -> None:
    """There is certainly no task; only its holder can know."""
    row = _get(db, key=key)
    if row.owner == owner:
        state = after(row.state, JobEvent.REFUSED, key=key)
        db.execute("UPDATE jobs SET state = ?, points = 0, changed_at = ? WHERE key = ?", (state, now, key))


def lost(db: "sqlite3.Connection", *, key: str, owner: str, now: float) -> None:
    """There may be a task; only its holder can know."""
    row = _get(db, key=key)
    if row.owner == owner:
        state = after(row.state, JobEvent.LOST, key=key)
        db.execute("UPDATE jobs SET state = ?, error = ?, changed_at = ? WHERE key = ?", (state, LOST, now, key))


def explain(db: "sqlite3.Connection", *, reasons: Mapping[str, str]) -> None:
    """Why jobs are in doubt; of one that is not any longer there is nothing to say."""
    changes = [(why, key, JobState.IN_DOUBT) for key, why in reasons.items()]
    db.executemany("UPDATE jobs SET error = ? WHERE key = ? AND state = ?", changes)


def resubmit(db: "sqlite3.Connection", *, key: str, now: float) -> None:
    """Pay again rather than stay in doubt; what the lost attempt may have cost stays in the total."""
    state = after(_get(db, key=key).state, JobEvent.RESUBMIT, key=key)
    # The row begins anew with nothing set aside. The trigger would give back what the first attempt set aside, and
    # that may well have been charged.
    db.execute("UPDATE totals SET points = points + (SELECT points FROM jobs WHERE key = ?)", (key,))
    db.execute("UPDATE jobs SET state = ?, points = 0, error = NULL, changed_at = ? WHERE key = ?", (state, now, key))


def accepted(db: "sqlite3.Connection", *, key: str, task_id: str, now: float) -> None:
    """There is a task.

    Raises:
        LedgerError: The job has another task already, or the task is another job's.
    """
    row = _get(db, key=key)
    if row.task_id not in (None, task_id):
        raise _paid_twice(f"job {key!r} has task {row.task_id} already", task_id=task_id)
    other = db.execute("SELECT key FROM jobs WHERE task_id = ? AND key <> ?", (task_id, key)).fetchone()
    if other is not None:
        raise errors.LedgerError(f"task {task_id} is of job {other[0]!r}, it cannot be of job {key!r} too")
    if row.state.is_over:
        return
    state = after(row.state, JobEvent.ACCEPTED, key=key)
    changes = (state, task_id, now, key)
    db.execute("UPDATE jobs SET state = ?, task_id = ?, error = NULL, changed_at = ? WHERE key = ?", changes)


def _paid_twice(fact: str, *, task_id: str) -> errors.LedgerError:
    error = errors.LedgerError(f"{fact}; task {task_id} was paid for as well, session.task({task_id!r}) finds it")
    error.task_id = task_id
    return error


def finished(
    db: "sqlite3.Connection",
    *,
    key: str,
    info: TaskInfo,
    paths: Sequence[Path] | None,
    error: str | None,
    owner: str,
    now: float,
) -> None:
    """The task is over; where its pictures are, or why there are none. The job is free again."""
    accepted(db, key=key, task_id=info.task_id, now=now)
    row = _get(db, key=key)
    state = after(row.state, _ENDS[info.status], key=key)
    kept = {name: value for name, value in info.raw.items() if name not in ("input", "config")}
    db.execute(
        "UPDATE jobs SET state = ?, info = ?, paths = coalesce(?, paths), error = ?, points = ?, changed_at = ?,"
        " owner = nullif(owner, ?) WHERE key = ?",
        (
            state,
            json.dumps(kept),
            None if paths is None else json.dumps([str(path) for path in paths]),
            error,
            row.points if (charged := _charged(info)) is None else charged,
            now,
            owner,
            key,
        ),
    )


def _charged(info: TaskInfo) -> int | None:
    """The points that the service says it charged; `None` where it says none, or no number: unknown is not zero."""
    if info.usage is None:
        return None
    if info.usage.consume > 0:
        return min(info.usage.consume, MOST)
    # A cost that is missing or unreadable is a 0 in `usage` as well; only a 0 that the service wrote is one.
    meta = info.raw.get("meta")
    usage = meta.get("usage") if isinstance(meta, dict) else None
    said = usage.get("consume") if isinstance(usage, dict) else None
    return 0 if said == 0 and not isinstance(said, bool) else None


def miss(db: "sqlite3.Connection", *, key: str) -> None:
    """The pictures are no longer where they were saved."""
    db.execute("UPDATE jobs SET paths = NULL WHERE key = ?", (key,))


def rivals(db: "sqlite3.Connection", *, keys: Collection[str], fingerprints: Collection[str]) -> set[str]:
    """Those contents of which other jobs are being submitted at this moment."""
    query = "SELECT key, fingerprint FROM jobs WHERE state = ?"
    found = db.execute(query, (JobState.SUBMITTING,)).fetchall()
    return {fingerprint for key, fingerprint in found if key not in keys and fingerprint in fingerprints}


def release(db: "sqlite3.Connection", *, key: str, owner: str, now: float) -> None:
    """Let one job go, as it stands; one whose submit has no answer written down is in doubt, as in `bury`."""
    in_doubt = after(JobState.SUBMITTING, JobEvent.LOST, key=key)
    which = "key = ? AND owner = ? AND state = ?"
    changes = (in_doubt, LOST, now, key, owner, JobState.SUBMITTING)
    db.execute(f"UPDATE jobs SET state = ?, error = ?, changed_at = ? WHERE {which}", changes)  # noqa: S608 - as above
    db.execute("UPDATE jobs SET owner = NULL WHERE key = ? AND owner = ?", (key, owner))


def forget(db: "sqlite3.Connection", *, key: str, now: float) -> bool:
    """Remove a job; whether there was one. What it cost stays in the total.

    Raises:
        LedgerError: Somebody works on it.
    """
    row = find(db, key=key)
    if row is not None and row.owner is not None and not _is_free(db, owner=row.owner, now=now):
        raise errors.LedgerError(f"job {key!r} is being worked on; it can be forgotten when that is over")
    db.execute("DELETE FROM jobs WHERE key = ?", (key,))
    return row is not None


def _is_free(db: "sqlite3.Connection", *, owner: str, now: float) -> bool:
    found = db.execute("SELECT lease_until FROM owners WHERE owner = ?", (owner,)).fetchone()
    return found is None or found[0] <= now or is_gone(owner)
