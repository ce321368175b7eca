"""The rows of a batch's report: what JOBS asks for beside what the ledger knows of it, a few at a time."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from piapi_async._fingerprint import content_of
from piapi_async.cli._batch_progress import Tally
from piapi_async.cli._jobs_file import JobsFile, MistakeError, Order
from piapi_async.display._report import ReportRow, write_report
from piapi_async.ledger import LOST, JobState, Row, SQLiteLedger
from piapi_async.prices import POINTS_PER_USD
from piapi_async.task import Submittable


def write(jobs: JobsFile, *, report: Path, ledger: Path, stopped: str, tally: Tally) -> None:
    """Write the report; the arguments are those of `report_rows`, and why the batch stopped, if it did."""
    about = {"jobs": jobs.name, "ledger": str(ledger), "stopped": stopped}
    given = {name: value for name, value in about.items() if value}
    rows = report_rows(jobs, ledger=ledger, reasons=tally.reasons, states=tally.states)
    write_report(rows, report, title=f"Batch {jobs.name}", about=given)


def state_of(row: Row | None) -> str:
    """Where a job stands, in the words of the summary: `in_flight` also while its pictures can still be fetched."""
    if row is None or row.state is JobState.PLANNED:
        return "not_sent"
    if row.state in (JobState.SUBMITTING, JobState.IN_DOUBT):
        return "in_doubt"
    if row.state is JobState.SUBMITTED or row.is_unsaved:
        return "in_flight"
    return "completed" if row.state is JobState.COMPLETED and row.error is None else "failed"


def report_rows(
    jobs: JobsFile, *, ledger: Path, reasons: Mapping[str, str], states: Mapping[str, str] = MappingProxyType({})
) -> Iterator[ReportRow]:
    """A row for each job, in the order of the file.

    Args:
        jobs: The file.

        ledger: That of the batch.

        reasons: Why jobs failed in this run, by their keys; of what failed before, the ledger knows.

        states: Where jobs stand by this run, by their keys; of all others, the ledger knows.
    """
    asked: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        book = SQLiteLedger(ledger)
        try:
            for item in jobs.read():
                if isinstance(item, MistakeError):
                    yield ReportRow(key="", state="refused", reason=str(item))  # the file is not what it was
                else:
                    yield runner.run(_row(item, book=book, asked=asked, reasons=reasons, states=states))
        finally:
            runner.run(book.aclose())


async def _row(
    order: Order, *, book: SQLiteLedger, asked: Counter[str], reasons: Mapping[str, str], states: Mapping[str, str]
) -> ReportRow:
    key = order.key or await _next_key(order.request, asked=asked)
    row = await book.get(key)
    return _report_row(key, row, order.request, state=states.get(key) or state_of(row), reason=reasons.get(key, ""))


async def _next_key(request: Submittable, *, asked: Counter[str]) -> str:
    content = await content_of(request)
    asked[content.fingerprint] += 1
    return content.key(nth=asked[content.fingerprint])


def _report_row(key: str, row: Row | None, request: Submittable, *, state: str, reason: str) -> ReportRow:
    info = None if row is None else row.info
    settings, pictures = _settings(request.input)
    return ReportRow(
        key=key,
        state=state,
        prompt=str(request.input["prompt"]),
        model=request.model,
        task_type=request.task_type,
        settings=settings,
        task_id=None if row is None else row.task_id,
        seconds=None if info is None or info.seconds is None else max(0.0, info.seconds),
        usd=row.points / POINTS_PER_USD if row is not None and row.points else None,
        reason=reason or _reason(row),
        inputs=pictures,
        outputs=(row and row.paths) or (),
    )


def _reason(row: Row | None) -> str:
    """What the ledger knows of why there are no pictures."""
    if row is None or row.state in (JobState.PLANNED, JobState.SUBMITTED):
        return ""
    return row.error or "" if row.info is not None else f"{row.error or LOST}: a task may exist and may be billed"


def _settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """A request's fields but for the prompt, and its pictures apart."""
    settings: dict[str, Any] = {}
    pictures = [given["image"]] if "image" in given else []
    for name, value in given.items():
        if isinstance(value, list):
            settings[name] = [{key: item for key, item in part.items() if key not in _PICTURES} for part in value]
            pictures += [part[key] for part in value for key in _PICTURES if key in part]
        elif name not in ("prompt", "image"):
            settings[name] = value
    return settings, pictures


_PICTURES = ("control_image", "lora_image")
