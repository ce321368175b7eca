"""The ledger of what was asked: one record for each request, and counts that outlast the records."""

import hashlib
from collections import Counter, deque

import attrs
from aiohttp import web

from piapi_async.emulator._http.inject import sent_status
from piapi_async.emulator._http.responses import Answer
from piapi_async.emulator.faults import KINDS, Fault
from piapi_async.emulator.records import Outcome, RequestRecord

_KEY_HEADERS = frozenset({"x-api-key", "authorization"})
_BAD = 400


@attrs.frozen(kw_only=True)
class Asked:
    """One request that arrived, whole."""

    request: web.Request
    endpoint: str
    time: float
    body: bytes
    """Its beginning, when it was longer than anything that is accepted."""
    fault: Fault | None

    @property
    def task_id(self) -> str | None:
        """The task in its path."""
        return self.request.match_info.get("task_id")

    @property
    def base_url(self) -> str:
        """The name under which the client reached us, so that it can reach a picture under it too."""
        return f"http://{self.request.host}"


async def read_body(request: web.Request, *, most: int) -> bytes:
    """The body; no more than a little over *most* bytes of it."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most:
            break
    return bytes(body)


class Journal:
    """What happened.

    Args:
        keep: How many records are kept.

    Attributes:
        requests: The last of them, oldest first.

        counts: How many there were in all, by endpoint.
    """

    def __init__(self, *, keep: int) -> None:
        self.requests: deque[RequestRecord] = deque(maxlen=keep)
        self.counts: Counter[str] = Counter()

    def record(self, asked: Asked, answer: Answer) -> None:
        """Write one down."""
        request, fault = asked.request, asked.fault
        headers = {name: text for name, text in request.headers.items() if name.lower() not in _KEY_HEADERS}
        self.counts[asked.endpoint] += 1
        self.requests.append(
            RequestRecord(
                time=asked.time,
                method=request.method,
                path=request.path,
                host=request.host,
                endpoint=asked.endpoint,
                task_id=answer.task_id,
                status=sent_status(answer, fault=fault),
                outcome=_outcome(answer, fault),
                fault=fault.name if fault else None,
                refusal=answer.refusal,
                fingerprint=_fingerprint(asked),
                had_key=len(headers) < len(request.headers),
                headers=headers,
            )
        )


def _outcome(answer: Answer, fault: Fault | None) -> Outcome:
    if fault is not None and fault.when == "before":
        return "not-done"
    if answer.status >= _BAD or answer.refusal is not None:
        return "refused"
    return "answered" if fault is None or KINDS[fault.name].answers else "lost"


def _fingerprint(asked: Asked) -> str:
    head = f"{asked.request.method} {asked.request.path_qs}\n".encode(errors="replace")
    return hashlib.blake2b(head + asked.body, digest_size=8).hexdigest()
