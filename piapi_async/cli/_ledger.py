"""`piapi-async ledger`: what a batch remembers, shown, written out, and taken back."""

import csv
import datetime as dt
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from piapi_async._process import is_gone
from piapi_async._text import one_line
from piapi_async.cli import _options as options
from piapi_async.cli import _types as types
from piapi_async.cli._interrupt import Setting, run
from piapi_async.ledger import BURIED, LOST, JobState, Row, SQLiteLedger

T = TypeVar("T")

SHOWN = 20
"""How many jobs in doubt are shown."""

COLUMNS = (
    *("key", "state", "model", "task_type", "input", "service_mode", "task_id", "usd", "paths", "error"),
    *("attempts", "since", "changed_at"),
)
"""The fields of a job as `export` writes them."""

_UNSETTLED = (JobState.SUBMITTING, JobState.IN_DOUBT, JobState.SUBMITTED)

_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), shell_complete=types.files)


@click.group(invoke_without_command=True)
@click.pass_context
def ledger(ctx: click.Context) -> None:
    """Look into the ledger of a batch, write it out, or take jobs out of it."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _with(file: Path, work: Callable[[SQLiteLedger], Awaitable[T]], *, setting: Setting) -> T:
    async def opened() -> T:
        async with SQLiteLedger(file) as book:
            return await work(book)

    return run(opened(), setting=setting, say=lambda line: click.echo(line, err=True))


@ledger.command()
@_file
@options.as_json
@options.setting
def show(setting: Setting, /, *, file: Path, is_json: bool) -> None:
    """Print how many jobs of the ledger FILE stand how, what they cost, and which are in doubt."""

    async def work(book: SQLiteLedger) -> dict[str, Any]:
        counts = await book.counts()
        return {
            "ledger": str(file),
            "jobs": {str(state): number for state, number in counts.items()},
            "usd": await book.spent(),
            "unsaved": sum([1 async for _ in book.rows(JobState.COMPLETED, is_unsaved=True)]),
            "in_doubt": [
                _doubt(row) async for row in book.rows(JobState.SUBMITTING, JobState.IN_DOUBT) if _is_left(row)
            ],
        }

    told = _with(file, work, setting=setting)
    click.echo(json.dumps(told) if is_json else "\n".join(_lines(told)))


def _is_left(row: Row) -> bool:
    """Whether a submit is under way no longer; who was killed had no time to say so."""
    return row.state is JobState.IN_DOUBT or row.owner is None or is_gone(row.owner)


def _doubt(row: Row) -> dict[str, Any]:
    asked = json.loads(row.content.text)
    since = None if row.since is None else dt.datetime.fromtimestamp(row.since, dt.UTC).isoformat(timespec="seconds")
    return {
        "key": row.key,
        "since": since,
        "attempts": row.attempts,
        "why": row.error or (BURIED if row.state is JobState.SUBMITTING else LOST),
        "prompt": asked["input"].get("prompt"),
    }


def _lines(told: dict[str, Any]) -> Sequence[str]:
    counts = {state.replace("_", " "): number for state, number in told["jobs"].items() if number}
    facts = {"jobs": sum(counts.values()), **counts, "unsaved": told["unsaved"]}
    lines = [f"{name:<11} {number:,}" for name, number in facts.items() if number or name == "jobs"]
    lines.append(f"{'USD':<11} {told['usd']:,.4f}")
    doubts = told["in_doubt"]
    for it in doubts[:SHOWN]:
        lines.append(one_line(f"in doubt since {it['since']}: {it['key']} ({it['prompt']})"))
        lines.append(f"  why: {one_line(it['why'])}")
    if doubts:
        lines += [f"in doubt: and {len(doubts) - SHOWN:,} more"] if len(doubts) > SHOWN else []
        lines.append("in doubt means: a task may exist and may be billed")
    return lines


@ledger.command()
@_file
@click.option("--format", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True, help="How.")
@options.setting
def export(setting: Setting, /, *, file: Path, format: str) -> None:  # noqa: A002 - as the option is called
    """Print all jobs of the ledger FILE, one a line."""

    async def work(book: SQLiteLedger) -> None:
        await (_as_csv if format == "csv" else _as_json)(book.export())

    _with(file, work, setting=setting)


async def _as_json(jobs: AsyncIterator[dict[str, Any]]) -> None:
    async for job in jobs:
        click.echo(json.dumps({name: job[name] for name in COLUMNS}))


async def _as_csv(jobs: AsyncIterator[dict[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    async for job in jobs:
        writer.writerow({name: _cell(job[name]) for name in COLUMNS})


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


@ledger.command()
@_file
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--force", is_flag=True, help="Also jobs that are in flight or in doubt.")
@options.setting
def forget(setting: Setting, /, *, file: Path, keys: tuple[str, ...], force: bool) -> None:
    """Take the jobs KEY out of the ledger FILE.

    The same requests are new jobs then: the next batch submits them, and they are paid for again. What they cost stays
    in the sum.
    """

    async def work(book: SQLiteLedger) -> None:
        for key in keys:
            await _check(book, key, force=force)
        for key in keys:
            await book.forget(key)
            click.echo(f"forgot {one_line(key)}; the same request is a new job now, and is paid for again")

    _with(file, work, setting=setting)


async def _check(book: SQLiteLedger, key: str, *, force: bool) -> None:
    row = await book.get(key)
    if row is None:
        raise ValueError(f"the ledger has no job {key!r}")
    if row.state in _UNSETTLED and not force:
        what = "is in flight" if row.state is JobState.SUBMITTED else "is in doubt"
        counted_as = "its task may be billed, and the same request would be paid for twice"
        raise ValueError(
            f"job {key!r} {what}: {counted_as}; --force forgets it all the same, and nothing was forgotten"
        )
