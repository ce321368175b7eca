"""One job as a row of the ledger, read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from piapi_async._client import responses
from piapi_async._fingerprint import Content
from piapi_async.ledger._states import JobState
from piapi_async.prices import POINTS_PER_USD
from piapi_async.task import TaskInfo

_NAMES = (
    *("id", "key", "state", "request", "attempts", "since", "sent", "token", "task_id", "points"),
    *("info", "paths", "error", "owner", "changed_at"),
)
COLUMNS = ", ".join(_NAMES)
"""What is read of it."""


@attrs.frozen(kw_only=True)
class Row:
    """One job, as the ledger has it.

    Attributes:
        key: Its name.

        state: Where it stands.

        content: What is asked for, pictures by their hashes.

        attempts: How often it was sent.

        since: When it was last sent, seconds since 1970 (UTC), or `None`.

        sent: The hashes of its local pictures as they were last sent: converted, scaled or turned upright.

        token: What the webhook URL of the last attempt carries, or `None`.

        task_id: The task, once it is known.

        points: What it costs: 0 while planned, an estimate until it is over, then what the service charged.

        info: The task as it ended, without its input, or `None`.

        paths: Where its pictures are, or `None` when they were not saved.

        error: Why there will be no pictures, or why it is in doubt and could not be settled; `None` otherwise.

        owner: Who holds it at this moment, or `None`.

        changed_at: When it last changed, seconds since 1970 (UTC).
    """

    id: int = attrs.field(repr=False)
    key: str
    state: JobState
    content: Content = attrs.field(repr=False)
    attempts: int
    since: float | None
    sent: tuple[str, ...] = attrs.field(repr=False)
    token: str | None
    task_id: str | None
    points: int
    info: TaskInfo | None = attrs.field(repr=False)
    paths: tuple[Path, ...] | None
    error: str | None
    owner: str | None
    changed_at: float

    def fits(self, info: TaskInfo) -> bool:
        """Whether a task can be of its last attempt, by what it shows; see `Content.fits`."""
        return self.content.fits(info, sent=self.sent)

    def is_settled(self, *, save: bool) -> bool:
        """Whether nothing is left to do: it is over, and its pictures are on disk where they were wanted."""
        return self.state.is_over and not (save and self.is_unsaved)

    @property
    def is_unsaved(self) -> bool:
        """Whether it completed, and its pictures may still be fetched."""
        return self.state is JobState.COMPLETED and self.paths is None and self.error is None

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {
            "key": self.key,
            "state": str(self.state),
            **json.loads(self.content.text),
            "attempts": self.attempts,
            "since": self.since,
            "task_id": self.task_id,
            "usd": self.points / POINTS_PER_USD,
            "paths": None if self.paths is None else [str(path) for path in self.paths],
            "error": self.error,
            "changed_at": self.changed_at,
        }


def read(found: Sequence[Any]) -> Row:
    """A row as SQLite gives it."""
    given = dict(zip(_NAMES, found, strict=True))
    info, paths, sent = (None if given[name] is None else json.loads(given[name]) for name in ("info", "paths", "sent"))
    return Row(
        **given
        | {
            "state": JobState(given["state"]),
            "content": Content(given.pop("request")),
            "sent": tuple(sent or ()),
            "info": None if info is None else responses.parse_task(info),
            "paths": None if paths is None else tuple(map(Path, paths)),
        }
    )
