"""Every setting of an emulator, in one frozen value.

What PiAPI does where its documentation is silent or contradicts itself is a switch here: a closed set of words of which
the first is the default. `attrs.fields(Options)` has the name, the type, the default and, as `metadata["about"]`, the
explanation of each field, so that a command line and a page of settings can be made from it. There [D] marks what
PiAPI's documentation says, [T] what third parties report.
"""
# ruff: noqa: RUF009 - the calls below make fields

from collections.abc import Mapping
from typing import Any, Literal, get_args

import attrs
from attrs import validators

from piapi_async.emulator.durations import USUAL, USUAL_QUEUE, Duration, DurationKey

Plan = Literal["pro", "creator", "free"]
OverLimit = Literal["pending", "staged", "429"]
OutOfCredit = Literal["402", "400", "500", "200"]
FailedTasks = Literal["refunded", "charged"]
Cancel = Literal["pending-only", "404", "405"]
StatusWords = Literal["lowercase", "capitalised", "flux-page", "starting", "retry", "staged", "unknown"]
OutputShape = Literal["documented", "image_url", "image_urls", "both", "null-urls", "null"]
UnsetTimes = Literal["zero", "empty", "zero-while-processing"]
Usage = Literal["consume-first", "frozen-first", "absent"]
UsageType = Literal["llm", "quota", "point", "credit"]
HealthyError = Literal["object", "null"]
EmptyLogs = Literal["list", "null"]
Progress = Literal["time", "at-once", "polls", "manual"]
ErrorTransport = Literal["status", "code", "error", "description", "text", "html"]
KeyHeader = Literal["x-api-key", "x-api-key-or-bearer"]
UnknownFields = Literal["dropped", "refused"]
Preprocessed = Literal["last", "absent"]
OtherBatches = Literal["refused", "ignored", "honoured"]
InlineImages = Literal["accepted", "data-uri-only", "fail"]
UnreachableImages = Literal["placeholder", "fail"]
ExpiredLinks = Literal["404", "html", "empty"]
UploadAnswer = Literal["data-url", "top-level-url"]
HistoryShape = Literal["enveloped", "bare"]
HistoryLists = Literal["ended", "all"]
Webhooks = Literal["completion", "created-and-completed", "every-change", "never"]
WebhookManner = Literal["once", "duplicates", "out-of-order"]
WebhookBody = Literal["documented", "flat", "envelope"]

CONCURRENCY: Mapping[Plan, int] = {"pro": 30, "creator": 5, "free": 1}
"""Tasks at once, by plan: third-party notes, no official table is known."""

_DAY = 24 * 3600.0
_STATUSES = {"staged", "pending", "processing", "completed", "failed", "canceled"}


def _choice(literal: Any, about: str) -> Any:
    words = get_args(literal)
    return attrs.field(default=words[0], validator=validators.in_(words), metadata={"about": about})


def _check_words(_options: object, _attribute: object, value: StatusWords | Mapping[str, str]) -> None:
    if not isinstance(value, Mapping) and value not in get_args(StatusWords):
        raise ValueError(f"status_words is {value!r}, not {', '.join(get_args(StatusWords))} or a mapping")
    if isinstance(value, Mapping) and not value.keys() <= _STATUSES:
        raise ValueError(f"status_words may name {', '.join(sorted(_STATUSES))}, not {', '.join(value)}")


def _amount(default: float, about: str, *, least: float = 0, most: float = float("inf")) -> Any:
    within = validators.and_(validators.ge(least), validators.le(most))
    return attrs.field(default=default, validator=within, metadata={"about": about})


def _value(default: Any, about: str, **more: Any) -> Any:
    return attrs.field(default=default, metadata={"about": about}, **more)


@attrs.frozen(kw_only=True)
class Options:
    """How one emulator behaves. Each field is a keyword argument of `Emulator`."""

    seed: int = _value(0, "The same seed gives the same ids, durations and pictures, in order of acceptance.")
    host: str = _value("127.0.0.1", "Where to listen. Anything but a loopback address lets others in.")
    port: int = _amount(0, "0 takes a free one.")
    api_key: str = _value("emulator-key", "The one key that is accepted.", repr=False)
    key_header: KeyHeader = _choice(
        KeyHeader, "Where the key is looked for: in X-API-Key as documented, or in Authorization: Bearer as well [T]."
    )

    plan: Plan = _choice(
        Plan, "The account's. Uploads and Qubico/flux1-dev-advanced need creator or higher, and give 403 on free [D]."
    )
    concurrency: int | None = _value(
        None,
        "Tasks in processing at once; None: what the plan has, 30, 5 or 1 [T].",
        validator=validators.optional(validators.ge(1)),
    )
    over_limit: OverLimit = _choice(
        OverLimit,
        "A task beyond the concurrency waits as pending; waits as staged, 50 of them at most, as documented for "
        "Midjourney; or is refused with 429. Not documented for Flux.",
    )
    requests_per_second: float | None = _value(
        None,
        "More requests with the right key, of all kinds together, are refused with 429; what a second allows may come "
        "at once. None: any number. No figure is documented.",
        validator=validators.optional(validators.gt(0)),
    )
    credits: int = _amount(10_000_000_000, "Balance at the start, in points; 10,000,000 are 1 USD.")
    out_of_credit: OutOfCredit = _choice(
        OutOfCredit, "The HTTP status of 'failed to freeze point'; 200 has 402 as its code. Not documented."
    )
    failed_tasks: FailedTasks = _choice(
        FailedTasks, "Whether a failed task gives its points back [T], or keeps them. Not documented."
    )
    cancel: Cancel = _choice(
        Cancel,
        "DELETE cancels what is pending and refuses the rest with 400, as documented for other models; or is "
        "answered with 404 or 405 always.",
    )
    visible_after: float = _amount(0.0, "Seconds for which a new task is still 404 to GET. Not documented.")

    durations: Duration | Mapping[DurationKey, Duration] = _value(
        attrs.Factory(lambda: USUAL),
        "Seconds of work: one for all, or by model or (model, task_type); see `piapi_async.emulator.durations`.",
        repr=False,
    )
    queue_delay: Duration = _value(USUAL_QUEUE, "Seconds a task stays pending even when a place is free.")
    progress: Progress = _choice(
        Progress,
        "How the tasks made from now on get to their end: by queue_delay and durations; at once, so that the first "
        "poll shows it; at the poll that polls says; or when `Emulator.start_task`, `finish` or `fail` says so.",
    )
    polls: int = _amount(
        3,
        "With progress polls, the poll that shows a task at its end. Those before it show processing, and the first "
        "of them pending where there are two.",
        least=1,
    )
    chaos: float = _amount(
        0.0,
        "The probability, from 0 to 1, with which any request suffers a fault; see `piapi_async.emulator.faults`.",
        most=1,
    )

    status_words: StatusWords | Mapping[str, str] = _value(
        "lowercase",
        "How a status is written: as in the examples; capitalised as in the unified schema; as on the Flux get-task "
        "page (success, and processing with a tab behind it); with starting or staged for pending, with retry or the "
        "unheard-of rendering for processing; in Python also your own words, as a mapping from ours.",
        validator=_check_words,
    )
    output_shape: OutputShape = _choice(
        OutputShape,
        "Where the links are: in image_url when there is one and in image_urls when there are more, as documented; "
        "always in one, the other, or both; in image_url beside image_urls null; or nowhere, output stays null.",
    )
    unset_times: UnsetTimes = _choice(
        UnsetTimes,
        "A time that has not come is 0001-01-01T00:00:00Z or an empty string [D]; or started_at stays zero until the "
        "task is over [T].",
    )
    time_digits: int = _amount(9, "Digits behind the second; 0 to 9 were seen [D].", most=9)
    usage: Usage = _choice(
        Usage,
        "Whether the price is in consume from the beginning on, as in the examples; in frozen until the task is over; "
        "or whether meta has no usage, as on the get-task page.",
    )
    usage_type: UsageType = _choice(UsageType, "usage.type: llm and quota in the examples, point and credit [T].")
    healthy_error: HealthyError = _choice(
        HealthyError, "error of a task that did not fail: an object with code 0, as in the examples, or null."
    )
    empty_logs: EmptyLogs = _choice(EmptyLogs, "logs without entries: an empty list or null [D].")
    error_transport: ErrorTransport = _choice(
        ErrorTransport,
        "How a refusal travels: HTTP status and envelope; HTTP 200 and the status in code; HTTP status and {error}, "
        "{description}, plain text or an HTML page. All were seen [T].",
    )

    unknown_fields: UnknownFields = _choice(
        UnknownFields, "What becomes of fields that the documentation does not have. Not documented."
    )
    other_batches: OtherBatches = _choice(
        OtherBatches,
        "batch_size above 1 on dev and dev-advanced, where it does not work [D]: 400, one picture, or as many as asked "
        "for, at their price.",
    )
    preprocessed: Preprocessed = _choice(
        Preprocessed,
        "Where the picture of return_preprocessed_image is, which is not documented: after the others, or nowhere.",
    )
    max_body: int = _amount(16 * 2**20, "Bytes of a create request; more is 'task input too large' [T].", least=1)
    inline_images: InlineImages = _choice(
        InlineImages,
        "An image in the request itself: data URIs [T] and bare base64 work, only data URIs do, or the task fails.",
    )
    unreachable_images: UnreachableImages = _choice(
        UnreachableImages,
        "For an image URL off this machine, which is never contacted: use a drawn landscape, or fail the task.",
    )
    max_pixels: int = _amount(1_048_576, "Size of a result; larger inputs are scaled down.", least=1)

    result_life: float = _amount(3 * _DAY, "Seconds from the end of a task until its pictures are deleted [D].")
    expired_links: ExpiredLinks = _choice(
        ExpiredLinks, "What is behind a link that expired: 404, or 200 with an HTML page or with nothing [D]."
    )
    upload_life: float = _amount(_DAY, "Seconds until an uploaded file is deleted [D].")
    upload_answer: UploadAnswer = _choice(
        UploadAnswer, "Where the answer to an upload has its link: in data.url [T] or in url [D]."
    )

    history_lag: float = _amount(0.0, "Seconds until the history knows of a task, or of its end. Not documented.")
    history_shape: HistoryShape = _choice(HistoryShape, "Whether the history comes in the envelope; both were seen.")
    history_lists: HistoryLists = _choice(
        HistoryLists, "Whether tasks that are not over are in the history, as pending or processing. Not documented."
    )

    webhooks: Webhooks = _choice(
        Webhooks, "When the endpoint is called: versions of the documentation differ, and it may never be [T]."
    )
    webhook_manner: WebhookManner = _choice(
        WebhookManner, "Each change once, each twice, or the end of a task first and what came before it behind [D]."
    )
    webhook_body: WebhookBody = _choice(
        WebhookBody, "{timestamp, data} as documented; the task alone [T]; or the envelope of GET [T]."
    )
    webhook_attempts: int = _amount(3, "Attempts until a 2xx comes [T].", least=1)
    webhook_pause: float = _amount(5.0, "Seconds between two attempts [T].")
    webhook_timeout: float = _amount(10.0, "Seconds an endpoint has for its answer. Not documented.", least=0.001)

    keep_tasks: int = _amount(100_000, "Tasks held; beyond it the oldest is forgotten and answers 404.", least=1)
    keep_requests: int = _amount(50_000, "Entries of `requests` and of `deliveries`; the oldest go first.", least=1)
    keep_uploads: int = _amount(100, "Uploaded files held; beyond it the oldest is forgotten.", least=1)

    @property
    def places(self) -> int:
        """How many tasks may be in `processing` at once."""
        return self.concurrency or CONCURRENCY[self.plan]
