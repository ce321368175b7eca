"""What is asked of the service, and what the service says of it: frozen values, no I/O."""

import enum
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import attrs

from piapi_async import _html, _media, _text, _validators
from piapi_async.prices import POINTS_PER_USD, PRICES, PriceList

SERVICE_MODES = ("public", "private")
"""Values of `service_mode` (https://piapi.ai/docs/unified-api-schema)."""


class TaskStatus(enum.StrEnum):
    """Where a task stands.

    The service has written each of these in several ways (`Completed`, `success`, a trailing tab); the word as it came
    is in `TaskInfo.raw_status`.
    """

    PENDING = "pending"
    """Accepted, waiting for a worker."""
    STAGED = "staged"
    """Over the account's concurrency limit, queued by the service."""
    PROCESSING = "processing"
    """A worker runs it."""
    RETRY = "retry"
    """The service tries again, as a rule because the source picture is hard to download."""
    COMPLETED = "completed"
    """Over, with output."""
    FAILED = "failed"
    """Over, without."""
    CANCELED = "canceled"
    """Over, on request."""
    UNKNOWN = "unknown"
    """A word this version does not know: taken as not over."""

    @property
    def is_terminal(self) -> bool:
        """Whether the task is over: no later poll will show another status."""
        return self in _TERMINAL


_TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELED})


class Submittable(Protocol):
    """What `Session.submit` takes: `TaskRequest`, the typed requests of `piapi_async.flux`, or a class of your own."""

    @property
    def model(self) -> str:
        """The service's name of the model."""
        ...

    @property
    def task_type(self) -> str:
        """The service's name of the kind of task."""
        ...

    @property
    def input(self) -> Mapping[str, Any]:
        """The fields of the task: JSON values, and local pictures at any depth (`piapi_async.flux.ImageSource`)."""
        ...

    @property
    def service_mode(self) -> str | None:
        """`"public"`, `"private"`, or `None` for the workspace's setting."""
        ...


@attrs.frozen(kw_only=True)
class TaskRequest:
    """A task of any model that PiAPI serves, Flux or not, with its input as a plain mapping.

    Nothing but the outer shape is checked; for Flux prefer the typed requests, which know every field's range.

    Args:
        model: The service's name of the model, e.g. `"Qubico/flux1-dev"`.

        task_type: The service's name of the kind of task, e.g. `"txt2img"`.

        input: The fields of the task: JSON values, and at any depth local pictures in all forms that
            `piapi_async.flux.ImageSource` has.

        service_mode: `"public"` (pay per use), `"private"` (host your account), or `None` for the workspace's setting.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field has a value that is not allowed.
    """

    model: str = attrs.field(validator=_validators.text, repr=_validators.short)
    task_type: str = attrs.field(validator=_validators.text, repr=_validators.short)
    input: Mapping[str, Any] = attrs.field(
        validator=_validators.instance_of(Mapping, allowed="a mapping"),
        repr=_validators.short,
        hash=False,
    )
    service_mode: str | None = attrs.field(
        default=None, validator=_validators.optional(_validators.one_of(SERVICE_MODES))
    )

    def __attrs_post_init__(self) -> None:
        # No converter: with one, type checkers no longer take this for a `Submittable`.
        object.__setattr__(self, "input", _media.all_as_kept(self.input))

    def estimate(self, *, prices: PriceList = PRICES) -> float:
        """What the task is expected to cost, in US dollars, by its model and `batch_size`.

        Args:
            prices: The prices to go by; `PRICES` knows Flux only.

        Raises:
            ConfigurationError: They have none for the model.
        """
        return prices.estimate(self)


@attrs.frozen(init=False)
class WebhookConfig:
    """Where the service reports the task, besides being asked.

    Args:
        endpoint: An http(s) URL that Cloudflare Workers can reach.

        secret: Sent back by the service in the header `x-webhook-secret`, as it is. It never appears in a `repr`.

    Raises:
        TypeError: A field is no string.
        ValueError: `endpoint` is no http(s) URL.
    """

    endpoint: str = attrs.field(
        validator=_validators.http_url, repr=lambda url: _validators.short(url.partition("?")[0])
    )
    secret: str = attrs.field(
        default="", kw_only=True, repr=False, validator=_validators.instance_of(str, allowed="a string")
    )

    def __init__(self, endpoint: str, *, secret: str = "") -> None:
        # Masked first of all: a traceback with local variables would show it.
        secret = _text.masked(secret)
        self.__attrs_init__(endpoint, secret=secret)  # pyright: ignore[reportAttributeAccessIssue] - made by attrs


@attrs.frozen
class Image:
    """A finished picture, where the service keeps it for three days (https://piapi.ai/docs/output-storage).

    Attributes:
        url: An http(s) URL, or a data URI when the service sent the picture inside its answer.

        ended_at: When its task was over, by the service's clock, or `None`: a picture that is only seconds old may not
            be everywhere yet, and is waited for.
    """

    url: str = attrs.field(
        repr=_validators.short, validator=_validators.instance_of(str, allowed="an http(s) URL or a data URI")
    )
    ended_at: datetime | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)

    @property
    def is_inline(self) -> bool:
        """Whether the picture is inside `url` itself."""
        return _media.is_data_uri(self.url)


@attrs.frozen(kw_only=True)
class Usage:
    """What the service says the task costs, in points; 10,000,000 points are 1 US dollar (measured, not documented).

    Attributes:
        type: The kind of balance: `"quota"`, `"llm"`, `"point"`, …

        frozen: Points set aside.

        consume: Points charged, or to be charged; it may be set before the task is over.
    """

    type: str = ""
    frozen: int = 0
    consume: int = 0

    @property
    def usd(self) -> float:
        """`consume` in US dollars; final only once the task is over."""
        return self.consume / POINTS_PER_USD


@attrs.frozen(kw_only=True)
class TaskFault:
    """What the service says went wrong with a task.

    Attributes:
        code: The service's number; 0 when it gave none. No complete list is public.

        message: The service's sentence for users.

        raw_message: The sentence of what lies behind the service.

        detail: Anything else it sent.
    """

    code: int = 0
    message: str = ""
    raw_message: str = ""
    detail: Any = attrs.field(default=None, hash=False)


def _packed(raw: Mapping[str, Any] | bytes) -> bytes:
    """A task as JSON text: decoded it takes ten times the room, and ten thousand of them wait at once."""
    return raw if isinstance(raw, bytes) else json.dumps(dict(raw)).encode()


@attrs.frozen(kw_only=True, repr=False)
class TaskInfo:
    """A frozen picture of a task, as last seen.

    Attributes:
        task_id: The service's name of the task.

        model: The model as the service reports it.

        task_type: The kind of task as the service reports it.

        status: Where the task stands.

        raw_status: The word the service used for it, untouched.

        images: The finished pictures, in the service's order; empty until there are any.

        usage: What the service says it costs, or `None` when it did not say so in a number that can be read.

        created_at: When the service accepted the task (UTC, its clock), or `None`.

        started_at: When a worker began, or `None` while it has not, as far as the service says.

        ended_at: When it was over, or `None`.

        error: What went wrong, or `None` on a healthy task; without the API key and the webhook's secret.

        logs: The service's log lines, likewise. The real cause of a failure is often here.
    """

    task_id: str
    model: str = ""
    task_type: str = ""
    status: TaskStatus
    raw_status: str = ""
    images: tuple[Image, ...] = ()
    usage: Usage | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: TaskFault | None = None
    logs: tuple[str, ...] = ()
    _json: bytes = attrs.field(default=b"{}", eq=False, alias="raw", converter=_packed)
    _is_enveloped: bool = attrs.field(default=False, eq=False, alias="is_enveloped")

    @property
    def raw(self) -> dict[str, Any]:
        """The task as the service sent it. It holds the webhook secret, if there is one.

        Texts of more than 10,000 characters in what the service echoes are not kept, as ten thousand tasks may wait at
        once: a picture stands here as `{"sha256": ..., "bytes": ...}`, where the digest is that of the picture's bytes,
        and another text as `{"text_sha256": ..., "characters": ...}`. `output` is whole.
        """
        kept: dict[str, Any] = json.loads(self._json)
        task: dict[str, Any] = kept["data"] if self._is_enveloped else kept
        return task

    @property
    def is_terminal(self) -> bool:
        """Whether the task is over."""
        return self.status.is_terminal

    @property
    def seconds(self) -> float | None:
        """How long the service had the task, queue included, by its own clock; `None` until it says when it ended."""
        if self.created_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.created_at).total_seconds()

    @property
    def has_output(self) -> bool:
        """Whether the service returned anything: pictures, or for models other than Flux something in `raw`."""
        if self.images:
            return True
        output = self.raw.get("output")
        return isinstance(output, dict) and any(output.values())

    @property
    def reason(self) -> str:
        """Why the task failed, in the service's words, as one line of at most 500 characters; empty without any.

        The real cause is often in the last log line or in `raw_message`, while the message says no more than "task
        failed": where they differ, all are told.
        """
        fault = self.error or TaskFault()
        log = next((line for line in reversed(self.logs) if line.strip()), "")
        found: list[str] = []
        for text in (fault.message, fault.raw_message, log):
            line = _text.clipped(text, most=200)
            if line not in ": ".join(found):
                found.append(line)
        return _text.clipped(": ".join(found), most=500)

    def __repr__(self) -> str:
        parts = [self.task_id, self.raw_status or str(self.status), self.model, self.task_type]
        parts += [f"{len(self.images)} images"] * bool(self.images)
        parts += [] if self.usage is None else [f"{self.usage.consume} points"]
        return f"<TaskInfo {_text.clipped(' '.join(filter(None, parts)), most=300)}>"

    def _repr_html_(self) -> str:
        """The task as a card in a notebook.

        Its pictures are shown from where the service keeps them for three days; after that the page has gaps.
        """
        return _html.task(self)
