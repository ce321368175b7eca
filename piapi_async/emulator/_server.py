"""The emulator: a server to start, to stop, and to ask what happened."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from yarl import URL

from piapi_async._asyncio import Clock
from piapi_async.emulator._art.gallery import Gallery
from piapi_async.emulator._http.admin import Admin
from piapi_async.emulator._http.endpoints import Endpoints
from piapi_async.emulator._http.journal import Journal
from piapi_async.emulator._http.responses import Renderer, usage
from piapi_async.emulator._http.webhooks import Webhooks
from piapi_async.emulator._service.lifecycle import Failure, Task
from piapi_async.emulator._service.rate import Rate
from piapi_async.emulator._service.service import Service
from piapi_async.emulator._service.settings import Settings
from piapi_async.emulator._service.stopwatch import Stopwatch
from piapi_async.emulator._service.uploads import Uploads
from piapi_async.emulator.check import Check
from piapi_async.emulator.faults import Faults
from piapi_async.emulator.options import Options
from piapi_async.emulator.records import Charge, Delivery, RequestRecord, TaskView

# Requests that are still busy (stalled on purpose, most likely) get this long, twice, before they are cut.
_SHUTDOWN = 0.02


class Emulator:
    """A local server that behaves, and misbehaves, like PiAPI.

    It needs no key and no money, keeps all its state to itself, and makes no connection to anywhere but this machine:

        async with Emulator(seed=0, concurrency=5) as emulator:
            ...                                     # a client on emulator.url with emulator.api_key
            assert len(emulator.charges) == 1

    Tasks live on its clock and not in timers. Ask it about them while it runs, from within its event loop, or when it
    is closed, from anywhere; its time stands still then, and goes on when it is started again.

    Args:
        seed: The same seed gives the same task ids, durations and pictures.

        clock: Where time comes from; the event loop unless you say otherwise.

        **options: The other fields of `Options`.

    Attributes:
        faults: The script of what goes wrong; see `piapi_async.emulator.faults`.
    """

    def __init__(self, seed: int = 0, *, clock: Clock | None = None, **options: Any) -> None:
        self._settings = Settings(Options(seed=seed, **options))
        self.faults: Faults = Faults(seed, chaos=lambda: self.options.chaos)
        self._clock = clock or Clock()
        self._watch = Stopwatch(self._clock)
        self._service = Service(self._settings)
        self._gallery = Gallery(self._settings)
        self._uploads = Uploads(self._settings)
        self._webhooks = Webhooks(self._service, clock=self._clock, watch=self._watch)
        self._journal = Journal(keep=self.options.keep_requests)
        self._rate = Rate(self._settings)
        self._runner: web.AppRunner | None = None
        self._port = self.options.port

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        where = f"on {self.url}" if self._runner else "not running"
        return f"<Emulator {where}, tasks={len(self._service.tasks)}, seed={self.options.seed}>"

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            RuntimeError: It does already.

            OSError: The port is taken.
        """
        if self._runner is not None:
            raise RuntimeError(f"the emulator is already running on {self.url}")
        self._watch.start()
        render = Renderer(self._settings, epoch=self._watch.epoch)
        app = self._endpoints(render).app()
        self._admin().add_to(app)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN)
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, self.options.host, self.options.port).start()
        except BaseException:
            await self.aclose()
            raise
        self._webhooks.start(render)
        self._port = self._runner.addresses[0][1]

    async def aclose(self) -> None:
        """Stop listening, and cut connections that are still busy. Calling it again does nothing."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        await runner.cleanup()
        await self._webhooks.aclose()
        self._watch.stop()

    @property
    def options(self) -> Options:
        """All settings, as they are now."""
        return self._settings.current

    def set(self, **changes: Any) -> None:
        """Change options while it runs; the next request is answered by the new ones.

        Args:
            **changes: Fields of `Options`, all but `host`, `port`, `seed`, `credits` and `keep_requests`.

        Raises:
            ValueError: A value out of range, or one of those five.

            TypeError: There is no such option.
        """
        self._service.change(now=self._watch.now(), **changes)

    def start_task(self, task_id: str) -> None:
        """Let a pending task begin to work now, whatever its progress was to be, and whether there is a place or not.

        Raises:
            ValueError: There is no such task, or it is not pending.
        """
        self._service.start(task_id, now=self._watch.now())

    def finish(self, task_id: str) -> None:
        """Let a task complete now, whatever its progress was to be.

        Raises:
            ValueError: There is no such task, or it is over.
        """
        self._service.end(task_id, failure=None, now=self._watch.now())

    def fail(
        self,
        task_id: str,
        *,
        reason: str = "the worker ran out of memory",
        where: Literal["error", "logs"] = "error",
        code: int = 10000,
    ) -> None:
        """Let a task fail now, whatever its progress was to be.

        Args:
            task_id: The task.

            reason: The words of the failure.

            where: Whether they are in `error.message`, or only in `logs`, as PiAPI often has it.

            code: The `error.code`.

        Raises:
            ValueError: There is no such task, or it is over.
        """
        failure = Failure(reason=reason, where=where, code=code)
        self._service.end(task_id, failure=failure, now=self._watch.now())

    @property
    def url(self) -> str:
        """`http://host:port`, once it listens."""
        return str(URL.build(scheme="http", host=self.options.host, port=self._port))

    @property
    def api_key(self) -> str:
        """The key it accepts. It is not a secret and opens nothing."""
        return self.options.api_key

    @property
    def tasks(self) -> Mapping[str, TaskView]:
        """The tasks it holds, as they stand now, by task id, oldest first."""
        self._service.advance(self._watch.now())
        return _Views(self._service.tasks, options=self.options)

    @property
    def requests(self) -> Sequence[RequestRecord]:
        """What it was asked, oldest first; the last `Options.keep_requests` of them."""
        return tuple(self._journal.requests)

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """Its calls to webhooks, oldest first; the last `Options.keep_requests` of them."""
        self._service.advance(self._watch.now())
        return tuple(self._webhooks.deliveries)

    @property
    def check(self) -> Check:
        """Assertions about what happened until now; see `piapi_async.emulator.check`."""
        return Check(
            requests=self.requests, counts=Counter(self._journal.counts), tasks=self.tasks, charges=self.charges
        )

    @property
    def charges(self) -> Sequence[Charge]:
        """Tasks that completed, and therefore cost something, in the order of their ends."""
        self._service.advance(self._watch.now())
        return tuple(self._service.wallet.charges)

    @property
    def credits(self) -> int:
        """The balance in points, without what is frozen for tasks that are not over; 10,000,000 are 1 USD."""
        self._service.advance(self._watch.now())
        return self._service.wallet.free

    def _admin(self) -> Admin:
        return Admin(
            service=self._service,
            journal=self._journal,
            gallery=self._gallery,
            faults=self.faults,
            watch=self._watch,
        )

    def _endpoints(self, render: Renderer) -> Endpoints:
        return Endpoints(
            settings=self._settings,
            service=self._service,
            render=render,
            gallery=self._gallery,
            uploads=self._uploads,
            webhooks=self._webhooks,
            faults=self.faults,
            journal=self._journal,
            rate=self._rate,
            clock=self._clock,
            watch=self._watch,
        )


class _Views(Mapping[str, TaskView]):
    """Views made one at a time, as there may be many tasks and few that are asked for."""

    def __init__(self, tasks: Mapping[str, Task], *, options: Options) -> None:
        self._tasks = tasks
        self._options = options

    def __getitem__(self, task_id: str) -> TaskView:
        return _view(self._tasks[task_id], options=self._options)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def _view(task: Task, *, options: Options) -> TaskView:
    return TaskView(
        task_id=task.task_id,
        model=task.model,
        task_type=task.task_type,
        status=task.status,
        input=task.input,
        config=task.config,
        created_at=task.created_at,
        started_at=task.started_at,
        ended_at=task.ended_at,
        usage=usage(task, options=options),
        cost=task.cost,
        polls=task.polls,
    )
