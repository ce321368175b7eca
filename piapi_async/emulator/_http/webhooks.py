"""Calls to the endpoints that clients gave: what is sent, when, and how often.

Source: piapi.ai/docs/unified-webhook. A task lives without timers until somebody asks; only when an endpoint is to be
called does a scheduler sleep from one change of a task to the next. What has happened waits in a line of its own for
each task, so its reports arrive in the order in which they were put there, retries included. Only endpoints on this
machine are called; what would have been sent elsewhere is recorded.
"""

import asyncio
import math
from collections import deque
from collections.abc import Coroutine
from typing import Any

import aiohttp
import attrs
from yarl import URL

from piapi_async._asyncio import Clock
from piapi_async.emulator._http.responses import Renderer, as_json
from piapi_async.emulator._service.lifecycle import Task
from piapi_async.emulator._service.service import Service
from piapi_async.emulator._service.sources import is_loopback, is_url
from piapi_async.emulator._service.stopwatch import Stopwatch
from piapi_async.emulator.records import Delivery

_OVER = frozenset({"completed", "failed", "canceled"})
_REPORTED = {
    "completion": _OVER,
    "created-and-completed": _OVER | {"pending"},
    "every-change": _OVER | {"pending", "processing"},
    "never": frozenset[str](),
}


@attrs.frozen(kw_only=True)
class _Report:
    task_id: str
    status: str
    endpoint: str
    secret: str = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


class Webhooks:
    """The webhooks of one emulator.

    Args:
        service: The tasks, and the options.

        clock: For the sleeps.

        watch: For the times.

    Attributes:
        deliveries: What was sent, oldest first.
    """

    def __init__(self, service: Service, *, clock: Clock, watch: Stopwatch) -> None:
        self.deliveries: deque[Delivery] = deque(maxlen=service.options.keep_requests)
        self._service = service
        self._clock = clock
        self._watch = watch
        self._hosts: dict[str, str] = {}
        self._called: set[str] = set()
        self._lines: dict[str, deque[_Report]] = {}
        self._sending: set[str] = set()
        self._owned: set[asyncio.Task[None]] = set()
        self._scheduler: asyncio.Task[None] | None = None
        self._nap: asyncio.Task[None] | None = None
        self._http: aiohttp.ClientSession | None = None
        self._render: Renderer | None = None
        service.changed, service.replanned = self._changed, self._wake

    def start(self, render: Renderer) -> None:
        """Begin, or go on with what was left when it was closed; needs a running loop."""
        self._render = render
        self._http = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        self._schedule()
        for task_id in self._lines:
            self._send_line(task_id)

    async def aclose(self) -> None:
        """End everything that is under way; what was not delivered is kept for the next start."""
        if self._http is None:
            return
        http, self._http, self._scheduler, self._nap = self._http, None, None, None
        for task in self._owned:
            task.cancel()
        await asyncio.gather(*self._owned, return_exceptions=True)
        self._sending.clear()
        await http.close()

    def accepted(self, task: Task, *, base_url: str) -> None:
        """A task was made; if its client gave an endpoint, it is reported from now on."""
        endpoint = task.config["webhook_config"]["endpoint"]
        if not endpoint:
            return
        self._hosts[task.task_id] = base_url
        if _is_here(endpoint):
            self._called.add(task.task_id)
        self._changed(task)
        self._schedule()

    def _changed(self, task: Task) -> None:
        base_url = self._hosts.get(task.task_id)
        if base_url is not None:
            self._report(task, base_url)
            if task.ended_at is not None:
                del self._hosts[task.task_id]
                self._called.discard(task.task_id)
        self._wake()

    def _report(self, task: Task, base_url: str) -> None:
        if task.status not in _REPORTED[self._service.options.webhooks]:
            return
        hook = task.config["webhook_config"]
        report = _Report(
            task_id=task.task_id,
            status=task.status,
            endpoint=hook["endpoint"],
            secret=hook["secret"],
            body=self._body(task, base_url),
        )
        if _is_here(report.endpoint):
            self._line_up(report)
        else:
            self._record(report, time=task.changed_at, attempt=0, answer=None)

    def _body(self, task: Task, base_url: str) -> bytes:
        assert self._render is not None
        shape, data = self._service.options.webhook_body, self._render.task_data(task, base_url=base_url)
        if shape == "flat":
            return as_json(data)
        if shape == "envelope":
            return as_json({"code": 200, "data": data, "message": "success"})
        return as_json({"timestamp": self._render.unix(task.changed_at), "data": data})

    def _line_up(self, report: _Report) -> None:
        line, manner = self._lines.setdefault(report.task_id, deque()), self._service.options.webhook_manner
        if manner == "out-of-order":
            line.appendleft(report)
        else:
            line.extend([report] * (2 if manner == "duplicates" else 1))
        if manner != "out-of-order" or report.status in _OVER:
            self._send_line(report.task_id)

    def _send_line(self, task_id: str) -> None:
        if self._http is not None and task_id not in self._sending:
            self._sending.add(task_id)
            self._own(self._send_all(task_id))

    async def _send_all(self, task_id: str) -> None:
        line = self._lines[task_id]
        while line:
            report = line[0]
            await self._send(report)
            line.remove(report)
        del self._lines[task_id]
        self._sending.discard(task_id)

    async def _send(self, report: _Report) -> None:
        for attempt in range(1, self._service.options.webhook_attempts + 1):
            if attempt > 1:
                await self._clock.sleep(self._service.options.webhook_pause)
            began, answer = self._watch.now(), await self._post(report)
            self._record(report, time=began, attempt=attempt, answer=answer)
            if answer is not None and answer // 100 == 2:  # noqa: PLR2004 - a 2xx
                return

    async def _post(self, report: _Report) -> int | None:
        assert self._http is not None
        # Whether the header is there when the secret is empty is not documented.
        secret = {"x-webhook-secret": report.secret} if report.secret else {}
        timeout = aiohttp.ClientTimeout(total=self._service.options.webhook_timeout)
        try:
            async with self._http.post(
                URL(report.endpoint, encoded=True),
                data=report.body,
                headers={"Content-Type": "application/json", **secret},
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    def _record(self, report: _Report, *, time: float, attempt: int, answer: int | None) -> None:
        self.deliveries.append(
            Delivery(
                time=time,
                task_id=report.task_id,
                status=report.status,
                endpoint=report.endpoint,
                attempt=attempt,
                answer=answer,
                body=report.body,
            )
        )

    def _schedule(self) -> None:
        if self._called and self._http is not None and self._scheduler is None:
            self._scheduler = self._own(self._follow())

    async def _follow(self) -> None:
        while self._called:
            self._nap = self._own(self._sleep(self._service.next_change() - self._watch.now()))
            await asyncio.wait({self._nap})
            self._service.advance(self._watch.now())
        self._scheduler = None

    async def _sleep(self, seconds: float) -> None:
        if seconds == math.inf:
            await asyncio.Event().wait()
        await self._clock.sleep(seconds)

    def _wake(self) -> None:
        """What the scheduler sleeps for may have moved."""
        if self._nap is not None:
            self._nap.cancel()

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._owned.add(task)
        task.add_done_callback(self._owned.discard)
        return task


def _is_here(endpoint: str) -> bool:
    return is_url(endpoint) and is_loopback(endpoint)
