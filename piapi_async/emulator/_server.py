"""The emulator: a server to start, to stop, and to ask what happened."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from yarl import URL

from piapi_async._clock import Clock
from piapi_async.emulator._endpoints import Endpoints
from piapi_async.emulator._gallery import Gallery
from piapi_async.emulator._lifecycle import Task
from piapi_async.emulator._render import Renderer, usage
from piapi_async.emulator._service import Service
from piapi_async.emulator._stopwatch import Stopwatch
from piapi_async.emulator.faults import Faults
from piapi_async.emulator.options import Options
from piapi_async.emulator.records import Charge, RequestRecord, TaskView

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
        options: All settings.

        faults: The script of what goes wrong; see `piapi_async.emulator.faults`.
    """

    def __init__(self, seed: int = 0, *, clock: Clock | None = None, **options: Any) -> None:
        self.options = Options(seed=seed, **options)
        self.faults = Faults()
        self._clock = clock or Clock()
        self._watch = Stopwatch(self._clock)
        self._service = Service(self.options)
        self._gallery = Gallery(self.options)
        self._requests: deque[RequestRecord] = deque(maxlen=self.options.keep_requests)
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
        self._runner = web.AppRunner(
            self._endpoints().app(), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN
        )
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, self.options.host, self.options.port).start()
        except BaseException:
            await self.aclose()
            raise
        self._port = self._runner.addresses[0][1]

    async def aclose(self) -> None:
        """Stop listening, and cut connections that are still busy. Calling it again does nothing."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        await runner.cleanup()
        self._watch.stop()

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
        return _Views(self._service.tasks)

    @property
    def requests(self) -> Sequence[RequestRecord]:
        """What it was asked, oldest first; the last `Options.keep_requests` of them."""
        return tuple(self._requests)

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

    def _endpoints(self) -> Endpoints:
        return Endpoints(
            options=self.options,
            service=self._service,
            render=Renderer(self.options, epoch=self._watch.epoch),
            gallery=self._gallery,
            faults=self.faults,
            requests=self._requests,
            clock=self._clock,
            watch=self._watch,
        )


class _Views(Mapping[str, TaskView]):
    """Views made one at a time, as there may be many tasks and few that are asked for."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._tasks = tasks

    def __getitem__(self, task_id: str) -> TaskView:
        return _view(self._tasks[task_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def _view(task: Task) -> TaskView:
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
        usage=usage(task),
        cost=task.price if task.status == "completed" else 0,
        looks=task.looks,
    )
