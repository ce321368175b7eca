"""Every error of the package, one tree.

```text
PiAPIError
├── ConfigurationError(ValueError)      no key, bad URL, missing extra
├── TransportError                      no usable answer
│   ├── ConnectError(ConnectionError)   certainly not sent
│   ├── ConnectionLostError(ConnectionError)
│   └── RequestTimeoutError(TimeoutError)
├── APIError                            the server said no: .status .code .message .body .headers .is_enveloped
│   ├── InvalidRequestError             400, 413, 422
│   ├── AuthenticationError             401, 403
│   ├── InsufficientCreditsError        402, or the words it uses
│   ├── NotFoundError                   404
│   ├── RateLimitError                  429; .retry_after
│   └── ServerError                     5xx; .retry_after
├── UnexpectedResponseError             an answer we cannot read; .status .body
├── TaskError                           .info
│   ├── TaskFailedError                 with the reason
│   ├── TaskCanceledError
│   ├── NoOutputError                   completed, but no image
│   └── WaitTimeoutError(TimeoutError)  we stopped looking; the task may live; .handle
├── SubmissionInDoubtError              .key .request .since; the task may exist and may be billed
├── SpendLimitError                     before anything was sent
├── BatchStoppedError                   not begun: the batch stopped first
├── OutputError                         download: expired, not an image, too large
├── WebhookError
│   ├── WebhookSecretError
│   └── WebhookPayloadError
└── LedgerError
    └── LedgerConflictError
```

Wrong arguments are not in the tree: they raise `ValueError` or `TypeError` before anything is sent.
"""

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from piapi_async.handle import TaskHandle
    from piapi_async.task import Submittable, TaskInfo

__all__ = [
    "ORIGIN_NOT_REACHED",
    "APIError",
    "AuthenticationError",
    "BatchStoppedError",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLostError",
    "Hint",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "LedgerConflictError",
    "LedgerError",
    "NoOutputError",
    "NotFoundError",
    "OutputError",
    "PiAPIError",
    "RateLimitError",
    "RequestTimeoutError",
    "ServerError",
    "SpendLimitError",
    "SubmissionInDoubtError",
    "TaskCanceledError",
    "TaskError",
    "TaskFailedError",
    "TransportError",
    "UnexpectedResponseError",
    "WaitTimeoutError",
    "WebhookError",
    "WebhookPayloadError",
    "WebhookSecretError",
]


ORIGIN_NOT_REACHED = frozenset({521, 523, 525, 526, 530})
"""Cloudflare's own statuses that say that it had no connection to PiAPI (refused, unreachable, TLS, DNS).

520, 522 and 524 are not among them: those come when a connection brought no proper answer, or brought it too late
(https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/).
"""


class Hint(enum.StrEnum):
    """What the reader of an error can do about it.

    `str(error)` ends with the advice in the words of Python; another surface, such as the command line, finds the fact
    alone in `error.args[0]`, and words the advice itself.
    """

    CHECK_KEY = "check-key"
    """The key is missing, wrong, or its plan does not allow this."""
    CHECK_UPLOAD_PLAN = "check-upload-plan"
    """Uploads need a higher plan; pictures can travel without one."""
    CHECK_BALANCE = "check-balance"
    """The balance is short, or so PiAPI says: it has used these words for an unsuitable picture as well."""
    CLIENT_BLOCKED = "client-blocked"
    """Cloudflare, in front of PiAPI, does not let this client through. It knows nothing of API keys."""
    CHECK_BASE_URL = "check-base-url"
    """The base URL is not where the API is."""
    CHECK_TASKS = "check-tasks"
    """A task may exist: look for it before submitting again."""


_ADVICE = {
    Hint.CHECK_KEY: "check the API key (PIAPI_API_KEY) and what its plan allows",
    Hint.CHECK_UPLOAD_PLAN: "uploads need a valid API key and the Creator plan or higher: use local_images='data-uri',"
    " which sends pictures without one",
    Hint.CHECK_BALANCE: "check the balance at https://piapi.ai/workspace, or the picture: PiAPI says so of some, too",
    Hint.CLIENT_BLOCKED: "this is not about the API key: Cloudflare blocks this network or this User-Agent",
    Hint.CHECK_BASE_URL: "base_url (PIAPI_BASE_URL) may be wrong: set it to the address of the API itself,"
    " without /api/v1",
    Hint.CHECK_TASKS: "look for it with session.find(error.request, since=error.since), or at"
    " https://piapi.ai/workspace, before you submit it again",
}


class PiAPIError(Exception):
    """Something went wrong in PiAPI, on the way to it, or in how it was asked.

    Attributes:
        safe_to_resubmit: `True` when the server certainly holds no task from this call, so that submitting the same
            request again cannot pay twice. `False` when a task exists, or may exist.
        task_id: The task that this is about, once there is one; `session.task(task_id)` finds it again.
        hint: What to do about it, or `None`; `str(error)` says it in words.
        saved: The files that `Session.save` had written all the same; empty elsewhere.
    """

    safe_to_resubmit: bool = False
    task_id: str | None = None
    hint: Hint | None = None
    saved: "tuple[Path, ...]" = ()

    def __init__(
        self,
        text: str,
        *,
        safe_to_resubmit: bool | None = None,
        task_id: str | None = None,
        hint: Hint | None = None,
    ) -> None:
        super().__init__(text)
        # What was not given is as the class has it.
        given = {"safe_to_resubmit": safe_to_resubmit, "task_id": task_id, "hint": hint}
        vars(self).update({name: value for name, value in given.items() if value is not None})

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.hint is None else f"{text}; {_ADVICE[self.hint]}"


def set_resubmit(error: PiAPIError, *, safe: bool, task_id: str | None = None) -> None:
    """Say of an error what is known where it is caught, and could not be where it was made: whether there is a task.

    Args:
        error: What was met.

        safe: Whether there is certainly none from this call.

        task_id: The one that there is.
    """
    error.safe_to_resubmit = safe
    if task_id is not None:
        error.task_id = task_id


class ConfigurationError(PiAPIError, ValueError):
    """The session cannot work as it was set up: no key, a bad URL, a missing extra."""

    safe_to_resubmit = True


class TransportError(PiAPIError):
    """The request got no usable answer; whether the server acted on it is unknown."""


class ConnectError(TransportError, ConnectionError):
    """No connection came about, so nothing was sent."""

    safe_to_resubmit = True


class ConnectionLostError(TransportError, ConnectionError):
    """The connection broke after the request had been sent, at least in part."""


class RequestTimeoutError(TransportError, TimeoutError):
    """One request took longer than the session's `timeout`, or the server answered 408 or 499.

    Attributes:
        status: That status, or 0 when no answer came.
    """

    def __init__(self, text: str, *, status: int = 0, **extras: Any) -> None:
        super().__init__(text, **extras)
        self.status = status


class APIError(PiAPIError):
    """The server, or something in front of it, answered, and the answer is no.

    A redirect is one, as it is not followed; so is Cloudflare's refusal of a client, whose `hint` says so.

    Attributes:
        status: The HTTP status.
        code: The `code` of the answer's envelope, which may be an error while the HTTP status is 200; `None` when the
            answer had no such envelope.
        message: The server's own words, shortened.
        body: The first part of the answer's body as text.
        headers: The answer's headers, names in lower case.
        is_enveloped: Whether the answer had the form of PiAPI's own. Another one may be the word of something in
            between: Cloudflare, a proxy, a router.
    """

    safe_to_resubmit = True

    def __init__(
        self,
        text: str,
        *,
        status: int = 0,
        code: int | None = None,
        message: str = "",
        body: str = "",
        headers: Mapping[str, str] | None = None,
        is_enveloped: bool = False,
        **extras: Any,
    ) -> None:
        super().__init__(text, **extras)
        self.status = status
        self.code = code
        self.message = message
        self.body = body
        self.headers: dict[str, str] = dict(headers or {})
        self.is_enveloped = is_enveloped


class InvalidRequestError(APIError):
    """The server refuses the request as it is written (400, 413, 422)."""


class AuthenticationError(APIError):
    """The key is missing or wrong (401), or the plan does not allow this (403)."""


class InsufficientCreditsError(APIError):
    """The service says that the account's balance does not cover the task (402, or "failed to freeze credit").

    The latter was also seen for a picture that did not suit the model, so that a balance may be there all the same.
    """


class NotFoundError(APIError):
    """The server knows no such task or path (404)."""


class RateLimitError(APIError):
    """Too many requests, or too many tasks at once (429); the server did not accept this one.

    Attributes:
        retry_after: Seconds the server asks to wait, 0 to 3600, or `None` when it did not say.
    """

    def __init__(self, text: str, *, retry_after: float | None = None, **extras: Any) -> None:
        super().__init__(text, **extras)
        self.retry_after = retry_after


class ServerError(APIError):
    """The server, or the Cloudflare front before it, failed (5xx, or an envelope whose `code` is 500 or more).

    A submit answered so may have been accepted: `safe_to_resubmit` is `True` only where PiAPI says in known words that
    it made no task, or Cloudflare that it did not reach PiAPI (521, 523, 525, 526, 530).

    Attributes:
        retry_after: Seconds the server asks to wait, 0 to 3600, or `None` when it did not say.
    """

    safe_to_resubmit = False

    def __init__(self, text: str, *, retry_after: float | None = None, **extras: Any) -> None:
        super().__init__(text, **extras)
        self.retry_after = retry_after


class UnexpectedResponseError(PiAPIError):
    """The server answered with something that cannot be read, or that is about another task.

    Attributes:
        status: The HTTP status.
        body: The first part of the answer's body as text.
    """

    def __init__(self, text: str, *, status: int = 0, body: str = "", **extras: Any) -> None:
        super().__init__(text, **extras)
        self.status = status
        self.body = body


class TaskError(PiAPIError):
    """The task did not give what was asked for.

    Attributes:
        info: The task as last seen, or `None` when it never was.
    """

    def __init__(self, text: str, *, info: "TaskInfo | None" = None) -> None:
        super().__init__(text)
        self.info = info
        self.task_id: str | None = None if info is None else info.task_id


class TaskFailedError(TaskError):
    """The service reports the task as failed; the message holds the reason it gave."""


class TaskCanceledError(TaskError):
    """The service reports the task as cancelled."""


class NoOutputError(TaskError):
    """The task has no picture to hand out: it completed without one, or is not completed."""


class WaitTimeoutError(TaskError, TimeoutError):
    """The wait reached its limit while the task was still going on; the task lives and may still be billed.

    Attributes:
        handle: The handle that was waited on, to go on watching with; `None` after unpickling.
    """

    def __init__(self, text: str, *, info: "TaskInfo | None" = None, handle: "TaskHandle | None" = None) -> None:
        super().__init__(text, info=info)
        self.handle = handle
        self.task_id: str | None = self.task_id if handle is None else handle.task_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the handle behind: it belongs to a session, which belongs to this process."""
        return type(self), self.args, {**self.__dict__, "handle": None}


class SubmissionInDoubtError(PiAPIError):
    """A submit was sent, and no answer says what became of it: the task may exist, and may be billed.

    It is never sent again by itself. `task_id` is the task's where the answer, unreadable otherwise, names one.

    Attributes:
        key: The job's key in the ledger, or `None` outside a batch.
        request: The request that was submitted.
        since: When it was sent, seconds since 1970 (UTC).
        why: What is known of the answer: that it was lost, or what came instead.
        candidates: The ids of the tasks that fit, where `Session.find` could not tell which of several it is.
    """

    candidates: "tuple[str, ...]" = ()

    def __init__(
        self,
        text: str,
        *,
        key: str | None = None,
        request: "Submittable | None" = None,
        since: float = 0.0,
        why: str = "",
        **extras: Any,
    ) -> None:
        super().__init__(text, **extras)
        self.key = key
        self.request = request
        self.since = since
        self.why = why


class SpendLimitError(PiAPIError):
    """The request would exceed the session's or the batch's spend limit; nothing was sent."""

    safe_to_resubmit = True


class BatchStoppedError(PiAPIError):
    """A batch was stopped, or ran out of time, before this job was submitted; the next run goes on with it."""

    safe_to_resubmit = True


class OutputError(PiAPIError):
    """A finished picture could not be fetched: expired, not an image, broken, cut short, or too large.

    The task itself is done and paid for; submitting it again pays again.

    Attributes:
        url: Where the picture was to come from.
    """

    def __init__(self, text: str, *, url: str = "") -> None:
        super().__init__(text)
        self.url = url


class WebhookError(PiAPIError):
    """A webhook delivery cannot be trusted or understood."""


class WebhookSecretError(WebhookError):
    """The delivery's secret is missing or wrong."""


class WebhookPayloadError(WebhookError):
    """The delivery's body is not a task."""


class LedgerError(PiAPIError):
    """The ledger cannot be read or written."""


class LedgerConflictError(LedgerError):
    """The ledger holds this key already, with another request."""
