"""Nobody runs this file: type checkers must accept it as it stands."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any, assert_type

import numpy as np
import PIL.Image
import tenacity

from piapi_async import (
    Account,
    Backoff,
    Batch,
    ControlNet,
    ControlNetLora,
    FillOutpaint,
    Governor,
    Image,
    Img2Img,
    Img2ImgLora,
    Kontext,
    Learned,
    LoRA,
    Picture,
    Polling,
    RetryPolicy,
    Session,
    TaskHandle,
    TaskInfo,
    TaskRequest,
    TaskStatus,
    Txt2Img,
    WebhookConfig,
)
from piapi_async.batch import Failed, Succeeded
from piapi_async.display import Progress, Row, Table
from piapi_async.events import Event, Submitted
from piapi_async.ledger import JobState, SQLiteLedger
from piapi_async.ledger import Row as LedgerRow
from piapi_async.task import Submittable


def observe(event: Event) -> None:
    """Events narrow by class."""
    if isinstance(event, Submitted):
        assert_type(event.info, TaskInfo)


class Custom:
    """A request class of the user's own."""

    model = "vendor/model"
    task_type = "anything"
    service_mode: str | None = None
    input: Mapping[str, Any] = {}


def pictures(path: Path, file: IO[bytes], image: PIL.Image.Image, array: "np.ndarray[Any, np.dtype[np.uint8]]") -> None:
    """A picture may be any of these, wherever a request takes one."""
    Img2Img(prompt="a", image=path)
    Img2Img(prompt="a", image=file)
    Img2Img(prompt="a", image=io.BytesIO())
    Img2Img(prompt="a", image=image)
    Img2Img(prompt="a", image=array)
    Kontext(prompt="a", image=np.zeros((2, 2, 3), np.uint8))
    with path.open("rb") as opened:
        ControlNetLora(prompt="a", control_net=ControlNet("depth", image=opened), image=None)
    LoRA("mjv6", image=PIL.Image.open(path))
    with path.open() as text:
        Img2Img(prompt="a", image=text)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Img2Img(prompt="a", image=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


REQUESTS: list[Submittable] = [
    Img2Img(prompt="a", image=Path("a.png")),
    Img2ImgLora(prompt="a", image=b"", lora=LoRA("mjv6", strength=1.0)),
    ControlNetLora(prompt="a", control_net=ControlNet("depth", image="https://example.com/a.png")),
    Txt2Img(prompt="a", width=512),
    FillOutpaint(prompt="a", image=Path("a.png"), left=10),
    Kontext(prompt="a", image=b"", seed=-1),
    TaskRequest(model="m", task_type="t", input={"x": [1, None]}),
    Custom(),
]


async def use() -> None:
    """Every public call, with the type it gives."""
    session = Session(
        "key",
        retry=RetryPolicy(attempts=2),
        polling=Polling(wait=tenacity.wait_fixed(2), timeout=None),
        governor=Governor(requests_per_second=20, burst=5, max_in_flight="account"),
        on_cancel="cancel",
        upload_url="https://example.com",
        local_images="upload",
        max_pixels=2**20,
        observers=[observe, Progress(total=3)],
    )
    async with session as entered:
        assert_type(entered, Session)
        handle = await session.submit(REQUESTS[0], webhook=WebhookConfig("https://example.com", secret="s"))
        assert_type(handle, TaskHandle)
        assert_type(await handle, TaskInfo)
        assert_type(await handle.wait(timeout=None, polling=Polling(wait=Backoff(initial=0.1))), TaskInfo)
        learned = Learned.from_json(Learned().to_json(), price=3)
        learned.observe(("m", "t"), 4, queued=1.5)
        assert_type(learned.delay(("m", "t"), 2.0), float)
        assert_type(learned.urgency("m", 2, since=1), float)
        assert_type(await handle.wait(polling=Polling(wait=learned)), TaskInfo)
        assert_type(handle.info, TaskInfo | None)
        updates = handle.updates()
        assert_type(updates, AsyncIterator[TaskInfo])
        async for info in updates:
            assert_type(info.status, TaskStatus)
            assert_type(info.images, tuple[Image, ...])
            assert_type(info.raw, dict[str, Any])
        infos = await asyncio.gather(*(session.run(request) for request in REQUESTS))
        assert_type(infos, list[TaskInfo])
        assert_type(await session.save(infos[0], "out"), tuple[Path, ...])
        saved = await session.save(infos[0], Path("out"), name="{model}/{n:03}", sidecar=True, request=REQUESTS[0])
        assert_type(saved, tuple[Path, ...])
        picture = await session.fetch(infos[0].images[0])
        assert_type(picture, Picture)
        assert_type((picture.data, picture.suffix, picture.size_bytes), tuple[bytes, str, int])
        assert_type((picture.width, picture.height), tuple[int | None, int | None])
        assert_type(picture.save("a.png", overwrite=True), Path)
        assert_type(await session.download(infos[0].images[0], "a.png"), Path)
        assert_type(await session.account(), Account)
        outcomes = await asyncio.gather(*map(session.run, REQUESTS), return_exceptions=True)
        assert_type(Table(outcomes).rows, tuple[Row, ...])
        assert_type(Table({"a bear": infos[0]}, limit=20).rows, tuple[Row, ...])
        assert_type(infos[0].seconds, float | None)
        assert_type(session.spent, float)
        assert_type(await session.upload(Path("a.mp4"), filename="a.mp4"), str)
        assert_type(await session.upload(PIL.Image.new("L", (1, 1))), str)
        assert_type(Txt2Img(prompt="a").estimate(), float)
        assert_type(await session.task("id").cancel(), TaskInfo)


async def jobs() -> AsyncIterator[Submittable | tuple[Submittable, str]]:
    """A stream of requests, with keys or without."""
    yield REQUESTS[0]
    yield REQUESTS[1], "second"


async def use_batch(session: Session) -> None:
    """Every public call of a batch and its ledger, with the type it gives."""
    async with SQLiteLedger(Path("jobs.db")) as ledger:
        batch = Batch(
            session,
            ledger=ledger,
            max_in_flight=40,
            on_doubt="reconcile",
            max_spend_usd=5,
            deadline=60,
            save_to="out",
            name="{task_id}",
            sidecar=True,
        )
        async with batch as entered:
            assert_type(entered, Batch)
            batch.add(REQUESTS[0], key="first")
            batch.add_many(REQUESTS)
            batch.add_many(jobs())
            async for outcome in batch:
                assert_type(outcome, Succeeded | Failed)
                if isinstance(outcome, Succeeded):
                    assert_type((outcome.info, outcome.paths), tuple[TaskInfo, tuple[Path, ...]])
                else:
                    assert_type(outcome.error, Exception)
            batch.stop()
        assert_type(await ledger.counts(), dict[JobState, int])
        assert_type(await ledger.spent(), float)
        assert_type(await ledger.get("first"), LedgerRow | None)
        async for row in ledger.rows(JobState.IN_DOUBT):
            assert_type((row.state, row.task_id, row.paths), tuple[JobState, str | None, tuple[Path, ...] | None])
        assert_type(await ledger.forget("first"), bool)
    outcomes = await Batch(session, ledger="jobs.db", on_doubt="skip").gather([*REQUESTS, (REQUESTS[0], "again")])
    assert_type(outcomes, list[Succeeded | Failed])
    await Batch(session, on_doubt="hope").gather(REQUESTS)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
