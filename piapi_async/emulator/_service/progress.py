"""How a task gets from `pending` to its end, decided when it is accepted."""

import math
import random

import attrs

from piapi_async.emulator.durations import duration_for
from piapi_async.emulator.options import Options


@attrs.frozen(kw_only=True)
class Pace:
    """The seconds that pass, or do not: infinite ones wait for a poll, or for a word."""

    queue_seconds: float
    work_seconds: float
    last_poll: int | None = None
    """The poll that shows the task at its end, 1 being the first."""


def pace_for(options: Options, *, model: str, task_type: str, rng: random.Random, stalls: bool) -> Pace:
    """What `Options.progress` means for one task.

    Args:
        options: Those of the moment.

        model: The task's.

        task_type: The task's.

        rng: The task's own; the same draws are made whatever the progress.

        stalls: Whether the work is never done.
    """
    queue = options.queue_delay(rng)
    work = duration_for(options.durations, model=model, task_type=task_type)(rng)
    if options.progress == "manual":
        return Pace(queue_seconds=math.inf, work_seconds=math.inf)
    if options.progress == "polls" and not stalls:
        return Pace(queue_seconds=math.inf, work_seconds=math.inf, last_poll=options.polls)
    if options.progress != "time":
        queue = work = 0.0
    return Pace(queue_seconds=queue, work_seconds=math.inf if stalls else work)
