"""PiAPI's endpoints: what is done for each request, and what is common to all of them."""

from collections import deque
from collections.abc import Awaitable, Callable

import attrs
from aiohttp import web

from piapi_async._clock import Clock
from piapi_async.emulator._apply import send, sent_status
from piapi_async.emulator._gallery import Gallery
from piapi_async.emulator._render import NOT_FOUND, Answer, Renderer
from piapi_async.emulator._service import Service
from piapi_async.emulator._stopwatch import Stopwatch
from piapi_async.emulator._validation import Refusal, read_submission
from piapi_async.emulator.faults import Fault, Faults
from piapi_async.emulator.options import Options
from piapi_async.emulator.records import RequestRecord

_Act = Callable[[web.Request, Fault | None], Awaitable[Answer]]
_KEY_HEADERS = frozenset({"x-api-key", "authorization"})


@attrs.frozen(kw_only=True)
class Endpoints:
    """Everything the requests of one emulator share."""

    options: Options
    service: Service
    render: Renderer
    gallery: Gallery
    faults: Faults
    requests: deque[RequestRecord]
    clock: Clock
    watch: Stopwatch

    def app(self) -> web.Application:
        """The routes, and PiAPI's plain 404 for all other paths."""
        app = web.Application(client_max_size=self.options.max_body)
        app.router.add_post("/api/v1/task", self._endpoint("create", self._create))
        app.router.add_get("/api/v1/task/{task_id}", self._endpoint("get", self._get), allow_head=False)
        app.router.add_delete("/api/v1/task/{task_id}", self._endpoint("cancel", self._cancel))
        app.router.add_get("/temp/{result_id}.png", self._endpoint("result", self._result))
        app.router.add_route("*", "/{path:.*}", self._endpoint("unknown", self._unknown))
        return app

    def _endpoint(self, name: str, act: _Act) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            arrived, fault = self.watch.now(), self.faults.take(name)
            answer = await self._answer(request, act, fault)
            self._record(request, answer, time=arrived, endpoint=name, fault=fault)
            return await send(answer, request=request, fault=fault, clock=self.clock)

        return handle

    async def _answer(self, request: web.Request, act: _Act, fault: Fault | None) -> Answer:
        task_id = request.match_info.get("task_id")
        if fault is not None and fault.when == "before":
            return Answer(body=b"", task_id=task_id)
        try:
            return await act(request, fault)
        except Refusal as refusal:
            return self.render.refusal(refusal, task_id=task_id)

    def _record(self, request: web.Request, answer: Answer, *, time: float, endpoint: str, fault: Fault | None) -> None:
        headers = {name: text for name, text in request.headers.items() if name.lower() not in _KEY_HEADERS}
        self.requests.append(
            RequestRecord(
                time=time,
                method=request.method,
                path=request.path,
                endpoint=endpoint,
                task_id=answer.task_id,
                status=sent_status(answer, fault=fault),
                fault=fault.name if fault else None,
                refusal=answer.refusal,
                had_key=len(headers) < len(request.headers),
                headers=headers,
            )
        )

    async def _create(self, request: web.Request, fault: Fault | None) -> Answer:
        self._check_key(request)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Refusal(400, "task input too large") from None
        task = self.service.create(read_submission(body), now=self.watch.now(), fault=fault)
        return self.render.task(task, base_url=_base_url(request))

    async def _get(self, request: web.Request, _fault: Fault | None) -> Answer:
        self._check_key(request)
        task = self.service.look(request.match_info["task_id"], now=self.watch.now())
        return self.render.task(task, base_url=_base_url(request))

    async def _cancel(self, request: web.Request, _fault: Fault | None) -> Answer:
        self._check_key(request)
        task = self.service.cancel(request.match_info["task_id"], now=self.watch.now())
        return self.render.canceled(task)

    async def _result(self, request: web.Request, _fault: Fault | None) -> Answer:
        found = self.service.result(request.match_info["result_id"], now=self.watch.now())
        if found is None:
            return NOT_FOUND
        task, item = found
        body = await self.gallery.picture(task, item=item)
        if body is None:
            return attrs.evolve(NOT_FOUND, task_id=task.task_id)
        return Answer(body=body, content_type="image/png", task_id=task.task_id)

    async def _unknown(self, _request: web.Request, _fault: Fault | None) -> Answer:
        return NOT_FOUND

    def _check_key(self, request: web.Request) -> None:
        if request.headers.get("X-API-Key") != self.options.api_key:
            raise Refusal(401, "failed to verify api key")


def _base_url(request: web.Request) -> str:
    # The client reached us under this name, so it can reach the picture under it too.
    return f"http://{request.host}"
