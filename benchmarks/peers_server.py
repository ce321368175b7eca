"""The server of `peers.py`: one workload behind the wire formats of several services, ours among them.

The formats are those that the SDKs' own parsers want. Every answer is held back by `LATENCY`; a task's duration follows
from its number alone, so that every client meets the same ones.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
from aiohttp import web

LATENCY = 0.03
"""Seconds that the server adds to every answer, as distance would."""

SHORTEST, LONGEST = 1.0, 3.0
"""Seconds that a task takes, evenly spread."""


@attrs.define
class Task:
    """One accepted task; times are seconds of the machine's monotonic clock, which all its processes share."""

    task_id: str
    begun: float
    ends: float
    polls: int = 0

    @property
    def is_done(self) -> bool:
        """Whether it is over now."""
        return time.monotonic() >= self.ends


class Service:
    """The tasks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.tasks: dict[str, Task] = {}

    def accept(self) -> Task:
        """A new task."""
        number = len(self.tasks)
        now = time.monotonic()
        task = Task(f"task-{number:06}", now, now + random.Random(number).uniform(SHORTEST, LONGEST))
        self.tasks[task.task_id] = task
        return task

    def poll(self, task_id: str) -> Task:
        """A task that somebody asks for."""
        task = self.tasks[task_id]
        task.polls += 1
        return task


Show = Callable[[Service, Task], dict[str, Any]]


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(time.time() + moment - time.monotonic(), UTC).isoformat().replace("+00:00", "000Z")


def piapi(_service: Service, task: Task) -> dict[str, Any]:
    """PiAPI's envelope, as its image-to-image page shows it."""
    zero = "0001-01-01T00:00:00Z"
    done = task.is_done
    return {
        "code": 200,
        "data": {
            "task_id": task.task_id,
            "model": "Qubico/flux1-schnell",
            "task_type": "img2img",
            "status": "completed" if done else "processing",
            "config": {"webhook_config": {"endpoint": "", "secret": ""}},
            "input": {"prompt": "a bear", "image": "https://example.com/a.jpg", "width": 0, "height": 0, "steps": 0},
            "output": {"image_url": f"https://img.example.com/{task.task_id}.png"} if done else None,
            "meta": {
                "created_at": _stamp(task.begun),
                "started_at": _stamp(task.begun),
                "ended_at": _stamp(task.ends) if done else zero,
                "usage": {"type": "point", "frozen": 0, "consume": 15000},
                "is_using_private_pool": False,
            },
            "detail": None,
            "logs": [],
            "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
        },
        "message": "success",
    }


def fal(service: Service, task: Task) -> dict[str, Any]:
    """Fal's queue: the answer to a submit names the further addresses."""
    base = f"{service.url}/requests/{task.task_id}"
    addresses = {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
    state: dict[str, Any] = {"status": "COMPLETED" if task.is_done else "IN_PROGRESS", "logs": None, "metrics": {}}
    return {"request_id": task.task_id, **addresses, **state}


def replicate(service: Service, task: Task) -> dict[str, Any]:
    """A prediction of Replicate's."""
    state = "succeeded" if task.is_done else "processing"
    url = f"{service.url}/v1/predictions/{task.task_id}"
    fields: dict[str, Any] = {
        "model": "o/n",
        "version": "v" * 64,
        "input": {},
        "logs": "",
        "error": None,
        "metrics": None,
    }
    times = {"created_at": _stamp(task.begun), "started_at": _stamp(task.begun), "completed_at": None}
    urls = {"get": url, "cancel": f"{url}/cancel"}
    return {
        "id": task.task_id,
        "status": state,
        "output": ["https://example.com/a.png"],
        **fields,
        **times,
        "urls": urls,
    }


def comfy(_service: Service, task: Task) -> dict[str, Any]:
    """Comfy's model requests."""
    return {"request_id": task.task_id, "status": "COMPLETED" if task.is_done else "IN_PROGRESS"}


def openai(_service: Service, task: Task) -> dict[str, Any]:
    """OpenAI's video object."""
    state = {"status": "completed" if task.is_done else "in_progress", "progress": 0, "created_at": 0}
    return {"id": task.task_id, "object": "video", "model": "m", "size": "720x1280", "seconds": "4", **state}


def runpod(_service: Service, task: Task) -> dict[str, Any]:
    """Runpod's job."""
    return {"id": task.task_id, "status": "COMPLETED" if task.is_done else "IN_PROGRESS", "output": {"ok": True}}


ROUTES: tuple[tuple[str, str, Show], ...] = (
    ("/api/v1/task", "/api/v1/task/{id}", piapi),
    ("/owner/app", "/requests/{id}{rest:(/status)?}", fal),
    ("/v1/predictions", "/v1/predictions/{id}", replicate),
    ("/v2/models/p/m/requests", "/v2/models/p/m/requests/{id}{rest:(/status)?}", comfy),
    ("/oa/videos", "/oa/videos/{id}", openai),
    ("/x/e/run", "/x/e/status/{id}", runpod),
)
"""Where tasks are submitted, where they are polled, and how they are shown."""


def application(service: Service) -> web.Application:
    """The server for all of them."""
    app = web.Application(client_max_size=2**20)

    def serve(show: Show) -> tuple[Callable[..., Any], Callable[..., Any]]:
        async def submit(request: web.Request) -> web.Response:
            await request.read()
            task = service.accept()
            await asyncio.sleep(LATENCY)
            return web.json_response(show(service, task))

        async def poll(request: web.Request) -> web.Response:
            await asyncio.sleep(LATENCY)
            return web.json_response(show(service, service.poll(request.match_info["id"])))

        return submit, poll

    for submit_path, poll_path, show in ROUTES:
        submit, poll = serve(show)
        app.router.add_post(submit_path, submit)
        app.router.add_get(poll_path, poll)
    return app


async def main() -> None:
    """Serve until the input is closed; then tell of each task when it ended, and how often it was polled."""
    service = Service("")
    runner = web.AppRunner(application(service), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=8192)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    print(service.url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({task.task_id: (task.ends, task.polls) for task in service.tasks.values()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
