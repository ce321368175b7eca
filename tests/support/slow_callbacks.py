"""A pytest plugin that makes each callback of every event loop 2 ms slower, as on a machine that is busy.

    PYTHONPATH=tests .venv/bin/pytest -p support.slow_callbacks

A test that fails with it depends on how fast the machine is.
"""

import asyncio
import time
from functools import wraps

SECONDS = 0.002

_run = asyncio.Handle._run


@wraps(_run)
def _run_slowly(handle: asyncio.Handle) -> None:
    time.sleep(SECONDS)
    _run(handle)


asyncio.Handle._run = _run_slowly  # type: ignore[method-assign]
