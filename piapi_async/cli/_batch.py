"""`piapi-async batch`: all jobs of a file, with a ledger, so that the same command goes on after whatever ended it."""

import asyncio
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, get_args

import attrs
import click
from rich.console import Console

from piapi_async import _session_options
from piapi_async._asyncio import Clock
from piapi_async._images import sources
from piapi_async._session_options import LocalImages
from piapi_async._text import counted
from piapi_async.batch import Batch
from piapi_async.batch._runner import OnDoubt
from piapi_async.cli import _options as options
from piapi_async.cli import _types as types
from piapi_async.cli._batch_progress import Tally
from piapi_async.cli._batch_report import state_of, write
from piapi_async.cli._errors import FAILED, MISUSED, spoken
from piapi_async.cli._interrupt import Interrupted, Setting, run
from piapi_async.cli._jobs_file import FORMATS, JobsFile, MistakeError, Order
from piapi_async.cli._runtime import opened
from piapi_async.errors import LedgerError, SpendLimitError
from piapi_async.ledger import JobState, SQLiteLedger
from piapi_async.prices import POINTS_PER_USD, PRICES
from piapi_async.session import Session
from piapi_async.task import Submittable, WebhookConfig

SHOWN = 20
"""How many mistakes of the file are shown."""

_BEGUN = (JobState.SUBMITTING, JobState.IN_DOUBT, JobState.SUBMITTED)

FRESH = 2.0
"""Seconds between two looks into the ledger for the display."""

Check = Callable[[Submittable], None]

_CONTINUES = "it continues from here, and pays for nothing twice"
_FACTS = (
    *("jobs", "completed", "failed", "in_doubt", "in_flight", "not_sent"),
    *("pictures", "usd", "seconds", "ledger", "report"),
)


@attrs.frozen(kw_only=True)
class Survey:
    """What a file of jobs holds.

    Attributes:
        jobs: How many.

        points: What they cost, if all of them are new.

        mistakes: The first lines that are no job.

        hidden: How many more there are.
    """

    jobs: int
    points: int
    mistakes: tuple[MistakeError, ...]
    hidden: int


@attrs.define(kw_only=True)
class Plan:
    """What the command is to do."""

    jobs: JobsFile
    total: int
    ledger: Path
    session: dict[str, Any]
    batch: dict[str, Any]
    report: Path | None
    stopped_by: Exception | None = None

    @property
    def stopped(self) -> str:
        """Why the batch stopped, if it did."""
        return "" if self.stopped_by is None else spoken(self.stopped_by)

    def stream(self) -> Iterator[Submittable | tuple[Submittable, str]]:
        """The jobs, as a batch takes them."""
        for order in self.jobs.orders():
            yield order.request if order.key is None else (order.request, order.key)


@click.command(
    epilog="Exit codes: 0 all jobs completed and saved; 1 some failed, are in doubt or in flight, or were not sent, as"
    " with --max-spend reached; 2 JOBS or an option is wrong, and nothing was sent; 130 Ctrl-C, 143 SIGTERM, 129"
    " SIGHUP. After all but 0 and 2 the same command resumes."
)
@click.argument("jobs", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), shell_complete=types.files)
@options.out(".", about="Where the pictures go.")
@options.naming
@options.sidecar
@click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What remembers the jobs.  [default: ledger.db in DIR]",
)
@click.option("--format", type=click.Choice(["jsonl", "csv"]), help="What JOBS is.  [default: by its ending]")
@click.option(
    "--dry-run", is_flag=True, help="Look at every line and picture, say what it would cost, and send nothing."
)
@click.option(
    "--max-in-flight", type=click.IntRange(1), default=8, show_default=True, help="How many jobs to work on at once."
)
@click.option(
    "--on-doubt",
    type=click.Choice(get_args(OnDoubt)),
    default="reconcile",
    show_default=True,
    help="When the answer to a submit was lost: look for its task; or stop, skip it, or look and then pay again. Only"
    " 'resubmit' may ever pay twice.",
)
@click.option("--max-spend", type=types.number, metavar="USD", help="The most that all jobs of the ledger may cost.")
@click.option("--deadline", type=types.seconds, metavar="SECONDS", help="When to begin no more, and to wait no longer.")
@click.option("--webhook", metavar="URL", help="Where the service is to report the tasks as well.")
@options.local_images
@options.max_pixels
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with every job, input beside output.",
)
@options.as_json
@options.setting
def batch(
    setting: Setting,
    /,
    *,
    jobs: Path,
    out: Path,
    name: str | None,
    sidecar: bool,
    ledger: Path | None,
    format: str | None,  # noqa: A002 - as the option is called
    dry_run: bool,
    max_in_flight: int,
    on_doubt: OnDoubt,
    max_spend: float | None,
    deadline: float | None,
    webhook: str | None,
    local_images: LocalImages,
    max_pixels: int | None,
    report: Path | None,
    is_json: bool,
) -> int:
    """Do all jobs of JOBS, a file of JSON lines or CSV, or - for stdin.

    A line has the fields of a request: prompt, image (a file beside JOBS, a URL, or a pattern such as 'photos/*.jpg',
    which makes a job of each file), task_type, model, lora (NAME:STRENGTH), control_net (TYPE:IMAGE), denoise and the
    like, and perhaps a key, the job's name in the ledger. All lines are looked at before anything is paid for.

    Killed, or stopped by Ctrl-C, the same command goes on where it was, and pays for nothing twice. The first Ctrl-C
    waits for what is in flight, the second one does not.

    To try it without a key run 'piapi-async emulator' in another window.
    """
    with _opened(jobs, format=format, out=out, depth=(name or "").count("/")) as file, _warned_once():
        survey = look_through(file)
        if survey.mistakes:
            return _refuse(survey)
        told = None if webhook is None else WebhookConfig(webhook)
        plan = Plan(
            jobs=file,
            total=survey.jobs,
            ledger=ledger or out / "ledger.db",
            session={"local_images": local_images, "max_pixels": max_pixels},
            batch={
                "max_in_flight": max_in_flight,
                "on_doubt": on_doubt,
                "max_spend_usd": max_spend,
                "save_to": out,
                "name": name,
                "sidecar": sidecar,
                "deadline": deadline,
                "webhook": told,
            },
            report=report,
        )
        return _rehearse(plan, is_json=is_json) if dry_run else _carry_out(plan, setting=setting, is_json=is_json)


# The file, looked through before anything else.


@contextmanager
def _opened(path: Path, *, format: str | None, **more: Any) -> Iterator[JobsFile]:  # noqa: A002 - as above
    is_stdin = str(path) == "-"
    known = format or FORMATS.get(path.suffix.lower())
    if known is None:
        raise ValueError(f"--format must be given for {path}; endings that tell are {', '.join(FORMATS)}")
    with click.open_file(str(path), "rb") as given, _seekable(given) as file:
        folder = Path() if is_stdin else path.parent
        yield JobsFile(file=file, name="stdin" if is_stdin else str(path), format=known, folder=folder, **more)


@contextmanager
def _seekable(given: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file, or a copy of what comes through a pipe, as it is read more than once."""
    if given.seekable():
        yield given
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(given, copy)
        yield copy


def look_through(jobs: JobsFile, *, check: Check | None = None) -> Survey:
    """Read the whole file, and sum up.

    Args:
        jobs: The file.

        check: Called with each request; a `TypeError`, `ValueError` or `OSError` makes a mistake of its line.
    """
    found = points = hidden = 0
    mistakes: list[MistakeError] = []
    keys: dict[str, int] = {}
    for item in jobs.read():
        problem = item if isinstance(item, MistakeError) else _wrong(item, keys=keys, jobs=jobs, check=check)
        if isinstance(item, Order) and problem is None:
            found += 1
            points += PRICES.points(item.request) or 0
        elif len(mistakes) < SHOWN and problem is not None:
            mistakes.append(problem)
        else:
            hidden += 1
    if not found and not mistakes:
        mistakes.append(MistakeError(jobs.name, 1, "it holds no jobs"))
    return Survey(jobs=found, points=points, mistakes=tuple(mistakes), hidden=hidden)


def _wrong(order: Order, *, keys: dict[str, int], jobs: JobsFile, check: Check | None) -> MistakeError | None:
    first = order.number if order.key is None else keys.setdefault(order.key, order.number)
    if first != order.number:
        return MistakeError(jobs.name, order.number, f"key {order.key!r} is that of line {first} already")
    try:
        if check is not None:
            check(order.request)
    except (TypeError, ValueError, OSError) as error:
        return jobs.mistake(order.number, error)
    return None


def _refuse(survey: Survey) -> int:
    for mistake in survey.mistakes:
        click.echo(f"error: {mistake}", err=True)
    if survey.hidden:
        click.echo(f"error: and {survey.hidden:,} more", err=True)
    return MISUSED


def _rehearse(plan: Plan, *, is_json: bool) -> int:
    """Look at everything that the batch would look at before it sends anything, its pictures included."""
    Batch(Session("no-key", **plan.session), ledger=plan.ledger, **plan.batch)  # for what these refuse
    rules = _session_options.rules(max_bytes=sources.IMAGE_MAX, max_pixels=plan.session["max_pixels"])
    with asyncio.Runner() as runner:

        def encode(request: Submittable) -> None:
            runner.run(sources.encode_submit(request, webhook=None, rules=rules, upload=None))

        survey = look_through(plan.jobs, check=encode)
    return _refuse(survey) if survey.mistakes else _say_price(survey, is_json=is_json)


def _say_price(survey: Survey, *, is_json: bool) -> int:
    usd = survey.points / POINTS_PER_USD
    words = f"{counted(survey.jobs, 'job')}, about {usd:,.4f} USD if all are new, by the prices of {PRICES.as_of}"
    click.echo(json.dumps({"jobs": survey.jobs, "usd": usd}) if is_json else words)
    return 0


@contextmanager
def _warned_once() -> Iterator[None]:
    """A warning that ten thousand lines give is shown once."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def once(message: Warning | str, *where: Any, **more: Any) -> None:
            if str(message) not in shown:
                shown.add(str(message))
                show(message, *where, **more)

        warnings.showwarning = once
        yield


# The batch itself.


def _carry_out(plan: Plan, *, setting: Setting, is_json: bool) -> int:
    plan.ledger.parent.mkdir(parents=True, exist_ok=True)
    tally = Tally(Console(stderr=True), total=plan.total)
    stopping = _Stopping(tally)

    def sum_up() -> dict[str, Any]:
        summary = _summary(plan, tally)
        click.echo(json.dumps(summary) if is_json else _as_text(summary))
        return summary

    try:
        with tally:
            work = _work(plan, tally=tally, stopping=stopping)
            run(work, setting=setting, say=tally.say, on_interrupt=stopping)
    except Interrupted as interrupted:
        plan.report = None
        raise Interrupted(_left(plan, sum_up()), leave=interrupted.leave, number=interrupted.number) from None
    summary = sum_up()
    if plan.report is not None:
        click.echo("writing the report", err=True)
        write(plan.jobs, report=plan.report, ledger=plan.ledger, stopped=plan.stopped, tally=tally)
    return _verdict(plan, summary, stopping=stopping)


class _Stopping:
    """What the first Ctrl-C does."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self.batch: Batch | None = None
        self.was_asked = False

    def __call__(self) -> None:
        self.was_asked = True
        self._tally.say("stopping: no more jobs are begun; waiting for what is in flight, Ctrl-C again lets it go")
        assert self.batch is not None  # it is made in the first step of the work
        self.batch.stop()


async def _work(plan: Plan, *, tally: Tally, stopping: _Stopping) -> None:
    async with (
        SQLiteLedger(plan.ledger) as ledger,
        _fresh(tally, ledger=ledger),
        opened(observers=[tally], **plan.session) as session,
        Batch(session, ledger=ledger, **plan.batch) as batch,
    ):
        stopping.batch = batch
        batch.add_many(plan.stream())
        try:
            async for outcome in batch:
                tally.take(outcome)
        except Exception as error:  # noqa: BLE001 - whatever stopped it, what was done is summed up
            plan.stopped_by = error


@asynccontextmanager
async def _fresh(tally: Tally, *, ledger: SQLiteLedger) -> AsyncIterator[None]:
    """Show what the ledger says, from time to time, and when the batch has left it, also where that was cancelled."""
    begun = Clock().now()

    async def look() -> None:
        with suppress(LedgerError):
            in_doubt = sum([1 async for row in ledger.rows(JobState.IN_DOUBT) if (row.since or 0.0) >= begun])
            tally.refresh(usd=await ledger.spent(), in_doubt=in_doubt)

    async def watch() -> None:
        while True:
            await look()
            await asyncio.sleep(FRESH)

    async def settle() -> None:
        with suppress(LedgerError):
            rows = [row async for row in ledger.rows(*_BEGUN)]
            unsaved = ledger.rows(JobState.COMPLETED, is_unsaved=True)
            rows += [row async for row in unsaved if row.key not in tally.states]
            # A doubt of an earlier run may be another file's, and says nothing of this run.
            states = {row.key: state_of(row) for row in rows if row.task_id or (row.since or 0.0) >= begun}
            tally.settle(states)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await look()
        await settle()


def _summary(plan: Plan, tally: Tally) -> dict[str, Any]:
    return {
        "jobs": plan.total,
        **tally.standing(at_work=plan.batch["max_in_flight"]),
        "pictures": tally.pictures,
        "usd": tally.usd,
        "seconds": round(tally.now, 3),
        "stopped": plan.stopped or None,
        "ledger": str(plan.ledger),
        "report": plan.report and str(plan.report),
    }


def _as_text(summary: dict[str, Any]) -> str:
    """The summary for people, one fact a line; what is none is left out."""
    shown = {**summary, "usd": f"{summary['usd']:,.4f} by the ledger, in all", "seconds": f"{summary['seconds']:,.1f}"}
    always = ("jobs", "completed", "pictures")
    lines = [f"{name.replace('_', ' '):<10} {shown[name]}" for name in _FACTS if shown[name] or name in always]
    return "\n".join(lines)


def _verdict(plan: Plan, summary: dict[str, Any], *, stopping: _Stopping) -> int:
    """The exit code, and what is to be said with it."""
    if summary["completed"] == plan.total:
        return 0
    said = list(_left(plan, summary))
    if stopping.was_asked:
        raise Interrupted(said, leave=sys.exit)
    for line in said:
        click.echo(line, err=True)
    return FAILED


def _left(plan: Plan, summary: dict[str, Any]) -> Iterator[str]:
    if plan.stopped:
        yield f"error: the batch stopped: {plan.stopped}"
    again = f"the same command, 'piapi-async batch {plan.jobs.name} ...',"
    if in_flight := summary["in_flight"]:
        may = "it may go on and be billed" if in_flight == 1 else "they may go on and be billed"
        picks = "picks it up" if in_flight == 1 else "picks them up"
        yield f"{counted(in_flight, 'task')} in flight at the service: {may}; {again} {picks}"
    if summary["not_sent"]:
        is_limited = isinstance(plan.stopped_by, SpendLimitError)
        run_again = f"run {again[:-1]} with a higher --max-spend" if is_limited else f"run {again[:-1]} again"
        yield f"{summary['not_sent']:,} of {counted(plan.total, 'job')} not sent; {run_again}: {_CONTINUES}"
    if summary["in_doubt"]:
        yield (
            f"{counted(summary['in_doubt'], 'job')} in doubt, each may have a task that is billed;"
            f" 'piapi-async ledger show {plan.ledger}' tells which"
        )
