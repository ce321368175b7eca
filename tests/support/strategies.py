"""Hypothesis strategies: what a hostile server may send, and what a user may ask for."""

import sys
from typing import Any

from hypothesis import strategies as st

from piapi_async import Img2Img
from piapi_async._client.responses import Answer

DEEP = 600 if sys.version_info < (3, 12) else 1200
"""So many levels of JSON are read and written by `json`, which is C, and are too many for recursion in Python."""

URLS = st.sampled_from(["https://example.com/a.jpg", "http://host:8080/b?x=1", "https://i.ibb.co/J7ZNgSG/01.jpg"])

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
"""Any JSON value, with the NaN and the infinities that `json` reads and writes too."""

STATUS_WORDS = st.sampled_from(["pending", "Processing", "processing\t", " COMPLETED ", "success", "failed", "odd", ""])
TIMES = st.sampled_from(
    ["2025-06-30T07:11:30.719851187Z", "0001-01-01T00:00:00Z", "", "9999-12-31T23:59:59-23:59", "now", "2024-13-01"]
)
CODES = st.sampled_from([0, 200, 400, 429, 500, 10000, -1, "401", "x", "9" * 5000, 10**30, True, 2.5])


def _shaped(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have any of these keys, each with a plausible value or with anything at all."""
    return st.fixed_dictionaries({}, optional={name: values | JSON for name, values in fields.items()})


_FAULT = _shaped({"code": CODES, "message": st.text(max_size=20), "raw_message": st.text(max_size=20), "detail": JSON})
_META = _shaped(
    {
        "created_at": TIMES,
        "started_at": TIMES,
        "ended_at": TIMES,
        "completed_at": TIMES,
        "usage": _shaped({"type": st.text(max_size=8), "frozen": st.integers(), "consume": st.floats()}),
    }
)
_OUTPUT = _shaped(
    {"image_url": URLS, "image_urls": st.lists(URLS | JSON, max_size=4), "image_base64": st.text(max_size=9)}
)

TASKS = _shaped(
    {
        "task_id": st.text(max_size=12) | st.uuids().map(str),
        "model": st.just("Qubico/flux1-schnell"),
        "task_type": st.just("img2img"),
        "status": STATUS_WORDS,
        "output": _OUTPUT,
        "meta": _META,
        "error": _FAULT,
        "logs": st.lists(JSON, max_size=3),
        "config": _shaped({"webhook_config": _shaped({"endpoint": URLS, "secret": st.text(max_size=9)})}),
        "task_info": _META,
        "task_result": _shaped({"task_output": _OUTPUT, "error_messages": st.lists(JSON, max_size=2)}),
    }
)
"""Objects shaped like a task, today's or the older one, with wrong types in every place."""

PAYLOADS = TASKS | _shaped({"code": CODES, "message": st.text(max_size=20), "data": TASKS, "error": JSON}) | JSON

HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "retry-after": st.text(max_size=20)
        | st.floats().map(str)
        | st.sampled_from(["12", "-5", "1e999", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Foo 2015", "9" * 400]),
        "date": st.text(max_size=20) | st.just("Wed, 21 Oct 2015 07:27:00 GMT"),
        "content-type": st.text(max_size=20),
    },
)


def answers(bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[Answer]:
    """HTTP answers of any status with these bodies."""
    return st.builds(Answer, status=st.integers(100, 599), headers=HEADERS, body=bodies)


IMG2IMG = st.builds(
    Img2Img,
    prompt=st.text(min_size=1).filter(str.strip),
    image=URLS,
    negative_prompt=st.none() | st.text(),
    denoise=st.none() | st.floats(0, 1, exclude_min=True),
    guidance_scale=st.none() | st.floats(1.5, 5),
    batch_size=st.none() | st.integers(1, 4),
    service_mode=st.sampled_from([None, "public", "private"]),
)
"""Image-to-image requests for schnell, of every allowed shape."""
