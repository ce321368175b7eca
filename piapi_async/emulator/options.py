"""Every setting of an emulator, in one frozen value.

What PiAPI does where its documentation is silent or contradicts itself is a setting here, and the first value named is
the default.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import attrs
from attrs import validators

from piapi_async.emulator.durations import USUAL, USUAL_QUEUE, Duration, DurationKey

UnreachableImages = Literal["placeholder", "fail"]
StatusWords = Literal["lowercase", "capitalised", "flux-page"]
OutputShape = Literal["documented", "image_url", "image_urls", "both", "null-urls", "null"]
ErrorTransport = Literal["status", "code", "error", "description"]

_DAY = 24 * 3600.0
_STATUSES = {"pending", "processing", "completed", "failed", "canceled"}
_at_least_one = validators.ge(1)
_not_negative = validators.ge(0)


def _one_of(literal: Any) -> Any:
    return validators.in_(get_args(literal))


@attrs.frozen(kw_only=True)
class Options:
    """How one emulator behaves. Each field is a keyword argument of `Emulator`."""

    seed: int = 0
    """The same seed gives the same task ids, durations and pictures, task by task in order of acceptance."""
    host: str = "127.0.0.1"
    """Where to listen. Anything but a loopback address lets others in."""
    port: int = attrs.field(default=0, validator=_not_negative)
    """0 takes a free one."""
    api_key: str = attrs.field(default="emulator-key", repr=False)
    """The one key that is accepted."""
    concurrency: int = attrs.field(default=30, validator=_at_least_one)
    """Tasks in `processing` at once; the others stay `pending`, first come, first served."""
    credits: int = attrs.field(default=10_000_000_000, validator=_not_negative)
    """Balance at the start, in points; 10,000,000 points are 1 USD."""
    durations: Duration | Mapping[DurationKey, Duration] = attrs.field(factory=lambda: USUAL, repr=False)
    """Seconds of work: one for all, or by model or (model, task_type); see `piapi_async.emulator.durations`."""
    queue_delay: Duration = USUAL_QUEUE
    """Seconds a task stays `pending` even when a place is free."""
    unreachable_images: UnreachableImages = attrs.field(default="placeholder", validator=_one_of(UnreachableImages))
    """For an `image` URL off this machine, which is never contacted: use a drawn landscape, or fail the task."""
    result_life: float = attrs.field(default=3 * _DAY, validator=validators.ge(0.0))
    """Seconds from the end of a task until its pictures are deleted; three days (piapi.ai/docs/output-storage)."""
    max_body: int = attrs.field(default=16 * 2**20, validator=_at_least_one)
    """Bytes of a request body; more is "task input too large". PiAPI publishes no number."""
    max_pixels: int = attrs.field(default=1_048_576, validator=_at_least_one)
    """Size of a result; larger inputs are scaled down."""
    keep_tasks: int = attrs.field(default=100_000, validator=_at_least_one)
    """Tasks held; beyond it the oldest is forgotten and answers 404."""
    keep_requests: int = attrs.field(default=50_000, validator=_at_least_one)
    """Entries of `Emulator.requests`; beyond it the oldest are dropped."""
    status_words: StatusWords | Mapping[str, str] = attrs.field(default="lowercase")
    """How a status is written: as in the examples; capitalised as in the unified schema; as on the Flux get-task page
    (`success`, and `processing` with a tab behind it); or your own word for `pending`, `processing`, `completed`,
    `failed`, `canceled`, as a mapping that need not name all."""
    output_shape: OutputShape = attrs.field(
        default="documented",
        validator=_one_of(OutputShape),
    )
    """Where the links are: in `image_url` when there is one and in `image_urls` when there are more, as documented;
    always in one, the other, or both; in `image_url` beside `image_urls: null`; or nowhere, `output` stays null."""
    error_transport: ErrorTransport = attrs.field(default="status", validator=_one_of(ErrorTransport))
    """How a refusal travels: HTTP status and envelope; HTTP 200 and the status in `code`; HTTP status and
    `{"error": ...}`; HTTP status and `{"description": ...}`. All four were seen on PiAPI."""

    @status_words.validator
    def _check_status_words(self, _attribute: object, value: StatusWords | Mapping[str, str]) -> None:
        if isinstance(value, str) and value not in get_args(StatusWords):
            raise ValueError(f"status_words is {value!r}, not {', '.join(get_args(StatusWords))} or a mapping")
        if not isinstance(value, str) and not value.keys() <= _STATUSES:
            raise ValueError(f"status_words may name {', '.join(sorted(_STATUSES))}, not {', '.join(value)}")
