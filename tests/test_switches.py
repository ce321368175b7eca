"""The SDK on every dialect of the service: each value of every switch of the emulator, and every pair of values.

The scenarios are what users do; what they expect under a switch is what a user of that service would see. The rows of
the covering array are the tests' names: `pytest --collect-only -q tests/test_switches.py` lists them.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Self, get_args, get_type_hints

import attrs
import pytest

import piapi_async
from piapi_async import Img2Img, Session, SubmissionInDoubtError, TaskFailedError, TaskStatus, WebhookConfig, errors
from piapi_async.emulator import Constant, Emulator, Options
from piapi_async.events import Event, Submitted

CAT = Path(piapi_async.__file__).parent / "assets" / "cat.jpg"
WEBHOOK = WebhookConfig("http://127.0.0.1:9/nobody", secret="hush")
BEAR = Img2Img(prompt="a bear", image=CAT, denoise=0.5)
NUMBERS: Mapping[str, tuple[float, ...]] = {"visible_after": (0.0, 3.0), "time_digits": (9, 0, 3), "polls": (3, 1, 5)}


def switches() -> dict[str, tuple[Any, ...]]:
    """Every switch with its values, the default first: those with a closed set of words, and some numbers."""
    found: dict[str, tuple[Any, ...]] = dict(NUMBERS)
    for name, kind in get_type_hints(Options).items():
        words = [word for choice in (kind, *get_args(kind)) for word in get_args(choice) if isinstance(word, str)]
        if words:
            found[name] = tuple(dict.fromkeys(words))
    return found


SWITCHES = switches()
SINGLES = [{name: value} for name, values in SWITCHES.items() for value in values[1:]]


def covering_array(values: Mapping[str, tuple[Any, ...]], *, seed: int) -> list[dict[str, Any]]:
    """Rows in which every pair of values of every two switches occurs at least once; greedy, seeded."""
    rng = random.Random(seed)
    open_pairs = {
        ((one, a), (two, b)) for one, two in combinations(values, 2) for a in values[one] for b in values[two]
    }
    rows = []
    while open_pairs:
        row = max((grown(values, open_pairs, rng) for _ in range(5)), key=lambda row: len(pairs(row) & open_pairs))
        open_pairs -= pairs(row)
        rows.append(row)
    return rows


def grown(values: Mapping[str, tuple[Any, ...]], open_pairs: set[Any], rng: random.Random) -> dict[str, Any]:
    """One row: begins with an open pair, then gives each switch the value that closes most."""
    row = dict(rng.choice(sorted(open_pairs, key=repr)))
    for name in rng.sample(list(values), len(values)):
        if name not in row:
            gain = {
                value: sum(
                    ((other, kept), (name, value)) in open_pairs or ((name, value), (other, kept)) in open_pairs
                    for other, kept in row.items()
                )
                for value in values[name]
            }
            best = max(gain.values())
            row[name] = rng.choice([value for value, gained in gain.items() if gained == best])
    return {name: row[name] for name in values}


def pairs(row: Mapping[str, Any]) -> set[Any]:
    """The pairs of values in a row."""
    return set(combinations(row.items(), 2))


PAIRWISE = covering_array(SWITCHES, seed=7)


def name_of(row: Mapping[str, Any]) -> str:
    """A row, without what is default."""
    return ",".join(f"{name}={value}" for name, value in row.items() if value != SWITCHES[name][0]) or "defaults"


class Rig:
    """One emulator with switches flipped, and a session on it."""

    def __init__(self, row: Mapping[str, Any], **options: Any) -> None:
        self.row = {name: values[0] for name, values in SWITCHES.items()} | dict(row)
        settings = {"queue_delay": Constant(0.5), "durations": Constant(2.0), "max_pixels": 1000}
        self.emulator = Emulator(**{**settings, **row, **options})
        self.end: Callable[[str], None] = self.emulator.finish

    async def __aenter__(self) -> Self:
        await self.emulator.start()
        self.session = Session(
            self.emulator.api_key,
            base_url=self.emulator.url,
            max_in_flight=1 if self.row["over_limit"] == "429" else None,
            observers=[self.finish_soon],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.aclose()
        await self.emulator.aclose()

    def finish_soon(self, event: Event) -> None:
        """With manual progress, be the hand that ends tasks."""
        if isinstance(event, Submitted) and self.row["progress"] == "manual":
            asyncio.get_running_loop().call_later(2.0, self.end, event.info.task_id)

    def fails(self, *, of_url: bool = False) -> bool:
        """Whether the source of a picture makes its task fail, unless a hand ends it otherwise."""
        refused = self.row["unreachable_images" if of_url else "inline_images"] == "fail"
        return refused and self.row["progress"] != "manual"

    def images(self, count: int, *, of_url: bool = False) -> int:
        """How many of so many pictures the service shows; none when it does not take their source."""
        if self.fails(of_url=of_url):
            return 0
        return {"null": 0, "image_url": 1, "null-urls": 1}.get(self.row["output_shape"], count)


async def one_picture(row: Mapping[str, Any], tmp_path: Path) -> None:
    """A task runs to its picture on disk, or to the error that names what the service left out."""
    async with Rig(row) as rig:
        if rig.fails():
            with pytest.raises(TaskFailedError):
                await rig.session.run(BEAR, webhook=WEBHOOK)
        elif not rig.images(1):
            with pytest.raises(errors.NoOutputError):
                await rig.session.run(BEAR, webhook=WEBHOOK)
        else:
            info = await rig.session.run(BEAR, webhook=WEBHOOK)
            assert info.status is TaskStatus.COMPLETED
            (path,) = await rig.session.save(info, tmp_path)
            assert path.read_bytes().startswith(b"\x89PNG")
        rig.emulator.check.exactly(1, "create")


async def a_batch(row: Mapping[str, Any], _tmp_path: Path) -> None:
    """All pictures of a batch that the service shows are found."""
    async with Rig(row) as rig:
        handle = await rig.session.submit(Img2Img(prompt="p", image="https://example.com/a.jpg", batch_size=3))
        infos = [info async for info in handle.updates()]
        assert infos[-1].is_terminal
        assert len(infos[-1].images) == rig.images(3, of_url=True)


async def a_failure(row: Mapping[str, Any], _tmp_path: Path) -> None:
    """A failing task raises with the reason, wherever it stands."""
    for where in ("error", "logs"):
        async with Rig(row) as rig:
            rig.emulator.faults.next("create", "task-fails", reason="no luck today", where=where)
            rig.end = partial(rig.emulator.fail, reason="no luck today", where=where)
            with pytest.raises(TaskFailedError, match="no luck today"):
                await rig.session.run(Img2Img(prompt="p", image="https://example.com/a.jpg"))


async def refusals(row: Mapping[str, Any], _tmp_path: Path) -> None:
    """A wrong key, an unknown task and an empty balance are told as such, and nothing is in doubt."""
    async with Rig(row, credits=0) as rig:
        with pytest.raises(errors.InsufficientCreditsError):
            await rig.session.submit(Img2Img(prompt="p", image="https://example.com/a.jpg"))
        with pytest.raises(errors.NotFoundError):
            await rig.session.get_task("00000000-0000-4000-8000-000000000000")
        async with Session("wrong", base_url=rig.emulator.url) as stranger:
            with pytest.raises(errors.AuthenticationError):
                await stranger.submit(Img2Img(prompt="p", image="https://example.com/a.jpg"))


async def a_lost_answer(row: Mapping[str, Any], _tmp_path: Path) -> None:
    """A submit whose answer is lost is in doubt, and made one task."""
    async with Rig(row) as rig:
        rig.emulator.faults.next("create", "cut-after-accept")
        with pytest.raises(SubmissionInDoubtError):
            await rig.session.submit(BEAR)
        rig.emulator.check.exactly_tasks(1)


async def bad_polls(row: Mapping[str, Any], _tmp_path: Path) -> None:
    """Polls that fail do not fail the task."""
    async with Rig(row) as rig:
        for fault in ("503", "cut-before-accept", "html", "empty", "garbled", "429"):
            rig.emulator.faults.next("get", fault)
        handle = await rig.session.submit(Img2Img(prompt="p", image="https://example.com/a.jpg"))
        infos = [info async for info in handle.updates()]
        assert infos[-1].status in (TaskStatus.COMPLETED, TaskStatus.FAILED)


async def a_cancel(row: Mapping[str, Any], _tmp_path: Path) -> None:
    """A pending task is cancelled where the service does that; otherwise its refusal comes out."""
    async with Rig(row, visible_after=0.0) as rig:
        handle = await rig.session.submit(Img2Img(prompt="p", image="https://example.com/a.jpg"))
        if rig.row["cancel"] == "pending-only" and rig.row["progress"] != "at-once":
            assert (await handle.cancel()).status is TaskStatus.CANCELED
        else:
            with pytest.raises(errors.APIError):
                await handle.cancel()


async def more_than_fit(row: Mapping[str, Any], _tmp_path: Path) -> None:
    """Tasks beyond the account's concurrency all come to their end."""
    async with Rig(row, concurrency=1) as rig:
        request = Img2Img(prompt="p", image="https://example.com/a.jpg")
        ends = await asyncio.gather(*(rig.session.run(request) for _ in range(3)), return_exceptions=True)
        failures = [end for end in ends if isinstance(end, BaseException)]
        assert len(failures) == (0 if rig.images(1, of_url=True) else 3)
        assert all(isinstance(failure, TaskFailedError | errors.NoOutputError) for failure in failures)
        rig.emulator.check.exactly_tasks(3)
        rig.emulator.check.charged_once_each()


SCENARIOS: Iterable[Callable[[Mapping[str, Any], Path], Awaitable[None]]] = (
    one_picture,
    a_batch,
    a_failure,
    refusals,
    a_lost_answer,
    bad_polls,
    a_cancel,
    more_than_fit,
)


@pytest.mark.parametrize("row", [{}, *SINGLES], ids=name_of)
async def test_single_switch(row: Mapping[str, Any], tmp_path: Path) -> None:
    """With any one switch of the emulator flipped, the SDK does its job."""
    for scenario in SCENARIOS:
        await scenario(row, tmp_path)


@pytest.mark.parametrize("row", PAIRWISE, ids=name_of)
async def test_pairs_of_switches(row: Mapping[str, Any], tmp_path: Path) -> None:
    """With any two switches of the emulator flipped together, the SDK does its job."""
    for scenario in SCENARIOS:
        await scenario(row, tmp_path)


def test_every_switch_is_covered() -> None:
    """Each field of `Options` with a closed set of words is flipped here, and every pair of values has its row."""
    assert len(SWITCHES) > 20
    assert {name for name in SWITCHES if not hasattr(attrs.fields(Options), name)} == set()
    covered = set().union(*map(pairs, PAIRWISE))
    for one, two in combinations(SWITCHES, 2):
        assert {((one, a), (two, b)) for a in SWITCHES[one] for b in SWITCHES[two]} <= covered


async def test_tasks_in_flight_are_kept_beyond_the_bound() -> None:
    """`keep_tasks` forgets what is over, never a task that still holds a place and points."""
    async with Rig({"progress": "manual"}, keep_tasks=1) as rig:
        request = Img2Img(prompt="p", image="https://example.com/a.jpg")
        handles = [await rig.session.submit(request) for _ in range(3)]
        assert len(rig.emulator.tasks) == 3
        assert all([await handle for handle in handles])
        last = await rig.session.submit(request)
        assert len(rig.emulator.tasks) == 3
        assert last.task_id in rig.emulator.tasks
