"""What a batch is still to do: jobs that were added, streams that are read when there is room, jobs put off."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator

import attrs

from piapi_async import _session_options, _validators
from piapi_async.batch._runner import Job
from piapi_async.task import Submittable

PUT_OFF = 10_000
"""Jobs that are put off at most before they go first; another process is working on them."""

Keyed = Submittable | tuple[Submittable, str]
"""What a stream holds: requests, or requests with their keys."""

Stream = Iterable[Keyed] | AsyncIterable[Keyed]


def job_of(item: object, *, key: str | None = None) -> Job:
    """The job that a user's item is.

    Raises:
        TypeError: It is no request, or its key is no string.
        ValueError: Its key is empty, or cannot be printed.
    """
    if isinstance(item, tuple) and len(item) == 2:  # noqa: PLR2004 - a request and its key
        item, key = item
    _session_options.submit(item, webhook=None)
    _validators.key(key)
    return Job(request=item, key=key)  # type: ignore[arg-type] # looked at above


@attrs.define
class Intake:
    """The jobs to come, in the order in which they were added."""

    _sources: deque[Job | Iterator[Keyed] | AsyncIterator[Keyed | Job]] = attrs.field(factory=deque, init=False)
    _put_off: deque[Job] = attrs.field(factory=deque, init=False)
    _turn: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)
    _count: int = attrs.field(default=0, init=False)

    @property
    def has_more(self) -> bool:
        """Whether another job may come."""
        return bool(self._sources or self._put_off)

    def add(self, job: Job) -> None:
        """One more, last."""
        self._sources.append(job)

    def add_stream(self, stream: Stream) -> None:
        """All of a stream, last; it is read one by one, when there is room.

        Raises:
            TypeError: It cannot be iterated over.
        """
        if isinstance(stream, AsyncIterable):
            self._sources.append(aiter(stream))
        elif isinstance(stream, Iterable):
            self._sources.append(iter(stream))
        else:
            raise _validators.refuse(TypeError, name="requests", allowed="an iterable, async or not", value=stream)

    def add_first(self, stream: AsyncIterator[Job]) -> None:
        """Jobs that go before all others."""
        self._sources.appendleft(stream)

    def put_off(self, job: Job) -> None:
        """A job to be tried again, when there is nothing else to do."""
        self._put_off.append(job)

    async def next(self, *, patient: bool) -> Job | None:
        """The next job, or `None` when there is none at this moment.

        Args:
            patient: Whether to come back to jobs that were put off.

        Raises:
            Exception: What a stream raises, or refuses to be; it is not read on.
        """
        async with self._turn:
            while self._sources and (len(self._put_off) < PUT_OFF or not patient):
                job = await self._first()
                if job is not None:
                    return self._numbered(job)
        return self._put_off.popleft() if self._put_off and patient else None

    def rest(self) -> Iterator[Job]:
        """What was added and not begun, but for what async streams still hold."""
        yield from self._put_off
        for source in self._sources:
            if isinstance(source, Job):
                yield self._numbered(source)
            elif isinstance(source, Iterator):
                yield from (self._numbered(job_of(item)) for item in source)

    async def aclose(self) -> None:
        """Close the streams that are async generators."""
        for source in self._sources:
            if isinstance(source, AsyncGenerator):
                await source.aclose()

    async def _first(self) -> Job | None:
        source = self._sources[0]
        if isinstance(source, Job):
            return self._sources.popleft()  # type: ignore[return-value] # it is the one that was looked at
        try:
            item = next(source, None) if isinstance(source, Iterator) else await anext(source, None)
            job = item if isinstance(item, Job) or item is None else job_of(item)
        except Exception:
            self._sources.popleft()
            raise
        if job is None:
            self._sources.popleft()
        return job

    def _numbered(self, job: Job) -> Job:
        if job.request is None or job.number >= 0:
            return job
        self._count += 1
        return attrs.evolve(job, number=self._count - 1)
