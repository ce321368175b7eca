"""What an emulator looks like from outside: flat JSON, for the page and for tools; `admin` documents it."""

import math
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

import attrs

from piapi_async.emulator._http.journal import Journal
from piapi_async.emulator._service.lifecycle import Task
from piapi_async.emulator._service.service import Service
from piapi_async.emulator.faults import Faults
from piapi_async.emulator.options import Options
from piapi_async.emulator.records import RequestRecord


def state(service: Service, *, journal: Journal, faults: Faults, now: float, most: int) -> dict[str, Any]:
    """Everything at this moment, at most so many tasks and requests of it."""
    service.advance(now)
    charges = service.wallet.charges
    return {
        "now": round(now, 3),
        "credits": service.wallet.free,
        "charged": sum(charge.points for charge in charges),
        "charges": len(charges),
        "counts": counts(service),
        "asked": dict(journal.counts),
        "faults": faults.planned(),
        "options": options_as_json(service.options),
        "tasks": [task_as_json(task) for task in islice(reversed(service.tasks.values()), most)],
        "requests": [_request(record) for record in islice(reversed(journal.requests), most)],
    }


def counts(service: Service) -> dict[str, int]:
    """How many of the tasks held stand how."""
    found = Counter(task.status for task in service.tasks.values())
    return {status: found[status] for status in ("pending", "processing", "completed", "failed", "canceled")}


def options_as_json(options: Options) -> dict[str, Any]:
    """Each option; what JSON cannot hold, as Python writes it."""
    return {field.name: _plain(getattr(options, field.name)) for field in attrs.fields(Options)}


def task_as_json(task: Task) -> dict[str, Any]:
    """One task, and where its pictures can be seen without leaving a trace in the ledger."""
    done = task.status == "completed"
    return {
        "task_id": task.task_id,
        "model": task.model,
        "task_type": task.task_type,
        "status": task.status,
        "prompt": task.input["prompt"][:200],
        "created_at": round(task.created_at, 3),
        "started_at": _rounded(task.started_at),
        "ended_at": _rounded(task.ended_at),
        "cost": task.cost,
        "polls": task.polls,
        "reason": task.failure.reason if task.failure and task.status == "failed" else None,
        "pictures": [f"/_emulator/picture/{task.task_id}/{item}" for item in range(done * len(task.result_ids))],
    }


def _request(record: RequestRecord) -> dict[str, Any]:
    shown = ("method", "path", "endpoint", "task_id", "status", "outcome", "fault", "refusal", "fingerprint")
    return {"time": round(record.time, 3), **{name: getattr(record, name) for name in shown}}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _plain(value: object) -> Any:
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else "/".join(key): _plain(item) for key, item in value.items()}
    return repr(value)
