"""PiAPI's endpoints: what is done for each request, and what is common to all of them."""

from collections.abc import Awaitable, Callable, Iterator

import attrs
from aiohttp import web

from piapi_async._asyncio import Clock
from piapi_async.emulator._art.gallery import Gallery
from piapi_async.emulator._http.inject import send
from piapi_async.emulator._http.journal import Asked, Journal, read_body
from piapi_async.emulator._http.page import for_browsers
from piapi_async.emulator._http.responses import (
    NOT_FOUND,
    Answer,
    Renderer,
    as_json,
    envelope,
    page,
)
from piapi_async.emulator._http.webhooks import Webhooks
from piapi_async.emulator._service.account import account_info, active_tasks
from piapi_async.emulator._service.history import History
from piapi_async.emulator._service.rate import Rate
from piapi_async.emulator._service.service import Service
from piapi_async.emulator._service.settings import Settings
from piapi_async.emulator._service.stopwatch import Stopwatch
from piapi_async.emulator._service.uploads import MOST_BODY, Uploads
from piapi_async.emulator._service.validation import Refusal, read_submission
from piapi_async.emulator.faults import Faults

_Act = Callable[[Asked], Awaitable[Answer]]
_EXPIRED = {
    "404": NOT_FOUND,
    "html": Answer(body=page("This file has expired"), content_type="text/html"),
    "empty": Answer(body=b"", content_type="image/png"),
}


@attrs.frozen(kw_only=True)
class Endpoints:
    """Everything the requests of one emulator share."""

    settings: Settings
    service: Service
    render: Renderer
    gallery: Gallery
    uploads: Uploads
    webhooks: Webhooks
    faults: Faults
    journal: Journal
    rate: Rate
    clock: Clock
    watch: Stopwatch

    def app(self) -> web.Application:
        """The routes, and PiAPI's plain 404 for all other paths."""
        app = web.Application()
        app.router.add_route("GET", "/", for_browsers(self._endpoint("unknown", self._unknown)))
        for method, path, name, act in self._routes():
            app.router.add_route(method, path, self._endpoint(name, act))
        return app

    def _routes(self) -> Iterator[tuple[str, str, str, _Act]]:
        yield "GET", "/api/v1/task/{task_id}", "get", self._get
        yield "POST", "/api/v1/task", "create", self._create
        yield "DELETE", "/api/v1/task/{task_id}", "cancel", self._cancel
        yield "GET", "/temp/{result_id}.png", "result", self._result
        yield "GET", "/account/info", "account", self._account
        yield "GET", "/account/active_tasks", "active-tasks", self._active_tasks
        yield "GET", "/api/open/tasks/histories", "history", self._history
        yield "POST", "/api/ephemeral_resource", "upload", self._upload
        yield "GET", "/ephemeral/{name}", "file", self._file
        yield "*", "/{path:.*}", "unknown", self._unknown

    def _endpoint(self, name: str, act: _Act) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            arrived, fault = self.watch.now(), self.faults.take(name)
            body = await read_body(request, most=max(self.settings.current.max_body, MOST_BODY))
            asked = Asked(request=request, endpoint=name, time=arrived, body=body, fault=fault)
            answer = await self._answer(asked, act)
            self.journal.record(asked, answer)
            return await send(answer, request=request, fault=fault, clock=self.clock)

        return handle

    async def _answer(self, asked: Asked, act: _Act) -> Answer:
        if asked.fault is not None and asked.fault.when == "before":
            return Answer(body=b"", task_id=asked.task_id)
        try:
            return await act(asked)
        except Refusal as refusal:
            return self.render.refusal(refusal, task_id=asked.task_id)

    async def _create(self, asked: Asked) -> Answer:
        self._admit(asked.request)
        body = _body(asked, most=self.settings.current.max_body, too_large="task input too large")
        submission = read_submission(body, options=self.settings.current)
        task = self.service.create(submission, now=self.watch.now(), fault=asked.fault)
        self.webhooks.accepted(task, base_url=asked.base_url)
        return self.render.created(task, base_url=asked.base_url)

    async def _get(self, asked: Asked) -> Answer:
        self._admit(asked.request)
        task = self.service.poll(asked.request.match_info["task_id"], now=self.watch.now())
        return self.render.task(task, base_url=asked.base_url)

    async def _cancel(self, asked: Asked) -> Answer:
        self._admit(asked.request)
        task = self.service.cancel(asked.request.match_info["task_id"], now=self.watch.now())
        return self.render.canceled(task)

    async def _result(self, asked: Asked) -> Answer:
        found = self.service.result(asked.request.match_info["result_id"], now=self.watch.now())
        if found is None:
            return NOT_FOUND
        task, item = found
        if self.service.is_expired(task, now=self.watch.now()):
            return self._expired(task.task_id)
        body = await self.gallery.picture(task, item=item)
        if body is None:
            return attrs.evolve(NOT_FOUND, task_id=task.task_id)
        return Answer(body=body, content_type="image/png", task_id=task.task_id)

    async def _account(self, asked: Asked) -> Answer:
        self._admit(asked.request)
        self.service.advance(self.watch.now())
        return Answer(body=envelope(account_info(self.service, self.render)))

    async def _active_tasks(self, asked: Asked) -> Answer:
        self._admit(asked.request)
        self.service.advance(self.watch.now())
        return Answer(body=envelope(active_tasks(self.service)))

    async def _history(self, asked: Asked) -> Answer:
        self._admit(asked.request)
        self.service.advance(self.watch.now())
        history = History(self.service, self.render)
        return Answer(body=history.page(asked.request.query, now=self.watch.now(), base_url=asked.base_url))

    async def _upload(self, asked: Asked) -> Answer:
        self._admit(asked.request)
        body = _body(asked, most=MOST_BODY, too_large="file too large; 10 MB are allowed")
        url = f"{asked.base_url}/ephemeral/{self.uploads.store(body, now=self.watch.now())}"
        if self.settings.current.upload_answer == "top-level-url":
            return Answer(body=as_json({"code": 200, "url": url, "message": "success"}))
        return Answer(body=envelope({"url": url}))

    async def _file(self, asked: Asked) -> Answer:
        file = self.uploads.file(asked.request.match_info["name"])
        if file is None:
            return NOT_FOUND
        if self.uploads.is_expired(file, now=self.watch.now()):
            return self._expired()
        return Answer(body=file.body, content_type=file.content_type)

    def _expired(self, task_id: str | None = None) -> Answer:
        return attrs.evolve(_EXPIRED[self.settings.current.expired_links], task_id=task_id)

    async def _unknown(self, _asked: Asked) -> Answer:
        return NOT_FOUND

    def _admit(self, request: web.Request) -> None:
        """Refuse a wrong key, and with the right one what is too much."""
        options, headers = self.settings.current, request.headers
        key = headers.get("X-API-Key")
        if key is None and options.key_header == "x-api-key-or-bearer":
            key = headers.get("Authorization", "").removeprefix("Bearer ")
        if key != options.api_key:
            raise Refusal(401, "failed to verify api key")
        self.rate.take(self.watch.now())


def _body(asked: Asked, *, most: int, too_large: str) -> bytes:
    if len(asked.body) > most:
        raise Refusal(400, too_large)
    return asked.body
