"""What an emulator tells a test about itself: frozen pictures, safe to keep."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

Outcome = Literal["answered", "refused", "lost", "not-done"]


@attrs.frozen(kw_only=True)
class RequestRecord:
    """One HTTP request, as the emulator saw and answered it.

    All times are seconds since the emulator was started.
    """

    time: float
    """When the request arrived."""
    method: str
    path: str
    host: str
    """The `Host` header: the name and port under which the client came."""
    endpoint: str
    """`create`, `get`, `cancel`, `result`, `account`, `active-tasks`, `history`, `upload`, `file`, or `unknown` for a
    path PiAPI does not have."""
    task_id: str | None
    """The task that was made, polled, canceled or downloaded; None when there is none."""
    status: int | None
    """The HTTP status that was sent, None when none was (the connection was cut, or stalls)."""
    outcome: Outcome
    """What became of it: `answered`, with the right answer if not always in good time; `refused`; `lost`, when it was
    done and a fault ate the answer; `not-done`, when a fault came before."""
    fault: str | None
    """The scripted fault this request suffered."""
    refusal: str | None
    """Why the emulator refused the request, in the words it answered."""
    fingerprint: str
    """The same for two requests of the same method, path, query and body: a submit that was sent again."""
    had_key: bool
    """Whether the client sent `X-API-Key` or `Authorization`, right or wrong."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """What the client sent, names in any case, without the values of those two."""


@attrs.frozen(kw_only=True)
class TaskView:
    """One task, as it stands now. All times are seconds since the emulator was started."""

    task_id: str
    model: str
    task_type: str
    status: str
    """`pending`, `processing`, `completed`, `failed` or `canceled`, whatever words the emulator answers with."""
    input: Mapping[str, Any] = attrs.field(repr=False)
    """As echoed: what the client sent, and zeros for what it left out."""
    config: Mapping[str, Any] = attrs.field(repr=False)
    created_at: float
    started_at: float | None
    ended_at: float | None
    usage: Mapping[str, Any]
    """As answered; `consume` is the price from the beginning on, as in PiAPI's examples."""
    cost: int
    """Points really taken so far: 0 until the task completes."""
    polls: int
    """How many times the task was read with GET."""


@attrs.frozen(kw_only=True)
class Delivery:
    """One attempt to call a webhook, or the decision not to.

    All times are seconds since the emulator was started.
    """

    time: float
    """When the attempt began."""
    task_id: str
    status: str
    """Which change is reported: `pending`, `processing`, `completed`, `failed` or `canceled`."""
    endpoint: str
    attempt: int
    """1 for the first; 0 when nothing was sent, as the endpoint is not on this machine."""
    answer: int | None
    """The HTTP status that came back; None when none did."""
    body: bytes = attrs.field(repr=False)
    """The JSON that was sent, or would have been."""


@attrs.frozen(kw_only=True)
class Charge:
    """Points taken for a task, once it is over. 10,000,000 points are 1 USD."""

    task_id: str
    model: str
    task_type: str
    points: int
    time: float
    """Seconds since the emulator was started."""
