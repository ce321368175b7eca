"""The way in for tools and for the page: how the emulator stands, and every switch of it.

Whoever asks must be on this machine and call it by a loopback name; a page of another site is refused. No key is
needed, nothing here is in `Emulator.requests`, and no fault meets it.

- GET `/_emulator/state?most=50`: the state, below, with so many tasks and requests.
- GET `/_emulator/events?most=50`: the same as server-sent events: at once, after every change and while tasks live,
  five times a second at most.
- POST `/_emulator/options` `{"chaos": 0.2, "queue_delay": 0.5, ...}` gives `{"options": {...}}`. `durations` and
  `queue_delay` are seconds, or `[low, high]`.
- POST `/_emulator/faults` `{"endpoint": "get", "name": "503", "times": 2, ...}`, as for `Faults.next`, or with
  `"probability"` as for `Faults.often`, gives `{"faults": [...]}`; DELETE clears them.
- POST `/_emulator/tasks/{task_id}` `{"action": "start"}`, `{"action": "finish"}` or `{"action": "fail", "reason":
  "..."}` gives `{"task": {...}}`.
- GET `/_emulator/input/{task_id}`: the first image that was sent, as a small PNG.
- GET `/_emulator/picture/{task_id}/{n}`: its n-th picture as PNG, n from 0.

A mistake is answered with `{"error": "a sentence"}`: 400, 403 to strangers, 404, 415 for a body that does not call
itself JSON.

The state, times in seconds since the emulator was started:

    now, credits, charged (points), charges (how many)
    counts:   {pending, processing, completed, failed, canceled}: tasks held
    asked:    {endpoint: requests since the start}
    faults:   [{endpoint, name, probability (null: the next request)}]
    options:  {field of Options: its value}
    tasks:    newest first: [{task_id, model, task_type, status, prompt, created_at, started_at, ended_at, cost, polls,
              reason (of a failure), pictures (paths, once completed)}]
    requests: newest first: [{time, method, path, endpoint, task_id, status, outcome, fault, refusal, fingerprint}]
"""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from aiohttp import web

from piapi_async.emulator._art.gallery import Gallery
from piapi_async.emulator._http.journal import Journal
from piapi_async.emulator._http.state import options_as_json, state, task_as_json
from piapi_async.emulator._service.lifecycle import Failure, Task
from piapi_async.emulator._service.service import Service
from piapi_async.emulator._service.sources import is_loopback
from piapi_async.emulator._service.stopwatch import Stopwatch
from piapi_async.emulator._service.validation import Refusal
from piapi_async.emulator.durations import Constant, Duration, Uniform
from piapi_async.emulator.faults import Faults

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_PAUSE = 0.2  # seconds between two events
_MOST = 500
_FAILURE = "somebody wanted it to fail"


@attrs.frozen(kw_only=True)
class Admin:
    """The admin endpoints of one emulator."""

    service: Service
    journal: Journal
    gallery: Gallery
    faults: Faults
    watch: Stopwatch

    def add_to(self, app: web.Application) -> None:
        """Put the routes beside those of PiAPI, which leave the prefix alone."""
        for method, path, act in (
            ("GET", "state", self._state),
            ("GET", "events", self._events),
            ("POST", "options", self._set_options),
            ("POST", "faults", self._add_fault),
            ("DELETE", "faults", self._clear_faults),
            ("POST", "tasks/{task_id}", self._move_task),
            ("GET", "input/{task_id}", self._input),
            ("GET", "picture/{task_id}/{item}", self._picture),
            ("*", "{path:.*}", _nothing_here),
        ):
            app.router.add_route(method, f"/_emulator/{path}", _guarded(act))

    async def _state(self, request: web.Request) -> web.Response:
        return _json(self._now(_most(request)))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        most = _most(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        shown: dict[str, Any] = {}
        while True:
            now = self._now(most)
            if self.service.alive or now | {"now": 0} != shown | {"now": 0}:
                await response.write(b"data: " + json.dumps(now).encode() + b"\n\n")
            shown = now
            # Not the emulator's clock: this pause is for whoever watches, and a clock in a test may not pause at all.
            await asyncio.sleep(_PAUSE)

    async def _set_options(self, request: web.Request) -> web.Response:
        changes = await _object(request)
        for name in changes.keys() & {"durations", "queue_delay"}:
            changes[name] = _duration(name, changes[name])
        self.service.change(now=self.watch.now(), **changes)
        return _json({"options": options_as_json(self.service.options)})

    async def _add_fault(self, request: web.Request) -> web.Response:
        body = await _object(request)
        endpoint, name = _word(body, "endpoint"), _word(body, "name")
        plan = self.faults.often if "probability" in body else self.faults.next
        plan(endpoint, name, **body)
        return _json({"faults": self.faults.planned()})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self.faults.clear()
        return _json({"faults": []})

    async def _move_task(self, request: web.Request) -> web.Response:
        body, now = await _object(request), self.watch.now()
        task = self._task(request)
        action = _word(body, "action")
        if action == "start":
            self.service.start(task.task_id, now=now)
        elif action in ("finish", "fail"):
            failure = Failure(reason=str(body.get("reason", _FAILURE))) if action == "fail" else None
            self.service.end(task.task_id, failure=failure, now=now)
        else:
            raise ValueError(f"{action!r} is no action; there is start, finish, fail")
        return _json({"task": task_as_json(task)})

    async def _input(self, request: web.Request) -> web.Response:
        return _png(await self.gallery.thumbnail(self._task(request)))

    async def _picture(self, request: web.Request) -> web.Response:
        self.service.advance(self.watch.now())
        task, item = self._task(request), request.match_info["item"]
        if task.status != "completed" or item not in map(str, range(len(task.result_ids))):
            raise Refusal(404, "there is no such picture")
        return _png(await self.gallery.picture(task, item=int(item)))

    def _task(self, request: web.Request) -> Task:
        task_id = request.match_info["task_id"]
        if task_id not in self.service.tasks:
            raise Refusal(404, f"there is no task {task_id}")
        return self.service.tasks[task_id]

    def _now(self, most: int) -> dict[str, Any]:
        return state(self.service, journal=self.journal, faults=self.faults, now=self.watch.now(), most=most)


def _guarded(act: _Handler) -> _Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        if not _is_neighbour(request):
            return _error(403, "this is only for this machine: http://127.0.0.1 or http://localhost")
        try:
            return await act(request)
        except Refusal as refusal:
            return _error(refusal.status, refusal.message)
        except (TypeError, ValueError) as error:
            return _error(400, str(error.args[0]))  # attrs puts more behind its sentence

    return handle


def _is_neighbour(request: web.Request) -> bool:
    """Whether this is no page of another site, by its own word or by a name that it made to point here."""
    here = f"http://{request.host}"
    near = ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback  # noqa: S104 - stands for "unknown"
    return near and is_loopback(here) and request.headers.get("Origin", here) == here


async def _nothing_here(_request: web.Request) -> web.Response:
    raise Refusal(404, "there is state, events, options, faults, tasks, input and picture")


async def _object(request: web.Request) -> dict[str, Any]:
    # A form of another site cannot call its body JSON.
    if request.content_type != "application/json":
        raise Refusal(415, "the body must be application/json")
    body = await request.json()
    if not isinstance(body, dict):
        raise TypeError("the body must be an object")
    return body


def _word(body: dict[str, Any], name: str) -> str:
    value = body.pop(name, None)
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, it must be a word")
    return value


def _duration(name: str, value: Any) -> Duration:
    ends = value if isinstance(value, list) else [value]
    if not all(isinstance(end, int | float) for end in ends) or len(ends) not in (1, 2):
        raise TypeError(f"{name} is {value!r}, it must be seconds or [low, high]")
    return Uniform(*ends) if len(ends) > 1 else Constant(ends[0])


def _most(request: web.Request) -> int:
    return max(0, min(int(request.query.get("most", "50")), _MOST))


def _json(value: Mapping[str, Any]) -> web.Response:
    return web.json_response(value, headers={"Cache-Control": "no-store"})


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)


def _png(body: bytes | None) -> web.Response:
    if body is None:
        raise Refusal(404, "there is no such picture")
    return web.Response(body=body, content_type="image/png", headers={"Cache-Control": "private, max-age=3600"})
