"""The page to watch, at the emulator's root: one HTML document with its style and its script inside.

It needs nothing from outside, and its Content-Security-Policy lets it ask nobody but the emulator. What it shows, it
gets from `/_emulator/`; here it is only told what can be chosen. Files of `page/` are put together as they are:
`page.js` writes what clients sent as text, and the policy forbids it to do otherwise.
"""

import functools
import json
import secrets
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs
from aiohttp import web

from piapi_async.emulator._http.state import options_as_json
from piapi_async.emulator._service.settings import FIXED
from piapi_async.emulator.faults import ENDPOINTS, KINDS
from piapi_async.emulator.options import Options

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}


def for_browsers(otherwise: _Handler) -> _Handler:
    """A handler that gives the page to whoever accepts HTML by name, as browsers do.

    Args:
        otherwise: Answers all others; API clients and `curl` accept anything, or JSON.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        if "text/html" in request.headers.get("Accept", ""):
            return _page()
        return await otherwise(request)

    return handle


def _page() -> web.Response:
    nonce = secrets.token_urlsafe(16)
    headers = {**_HEADERS, "Content-Security-Policy": _POLICY.format(nonce=nonce)}
    return web.Response(text=_document().replace("{nonce}", nonce), content_type="text/html", headers=headers)


@functools.cache
def _document() -> str:
    here = resources.files("piapi_async.emulator") / "page"
    html, css, js = ((here / f"{name}").read_text("utf-8") for name in ("index.html", "page.css", "page.js"))
    # In a script element only "<" could mean anything but itself.
    choices = json.dumps(_choices()).replace("<", "\\u003c")
    return html.replace("{css}", css).replace("{choices}", choices).replace("{js}", js)


def _choices() -> dict[str, Any]:
    """What there is to choose from: each option that can change, and the faults of each endpoint."""
    usual = options_as_json(Options())
    hints = get_type_hints(Options)
    return {
        "options": [
            {"name": name, "usual": usual[name], "about": field.metadata["about"], **_kind(name, hints[name])}
            for name, field in attrs.fields_dict(Options).items()
            if name not in FIXED
        ],
        "faults": {
            endpoint: [name for name, kind in KINDS.items() if endpoint in kind.endpoints] for endpoint in ENDPOINTS
        },
    }


def _kind(name: str, hint: Any) -> dict[str, Any]:
    parts = (hint, *get_args(hint))
    for part in parts:
        if get_origin(part) is Literal:
            return {"kind": "choice", "words": get_args(part)}
    if name in ("durations", "queue_delay"):
        return {"kind": "seconds"}
    if name == "chaos":
        return {"kind": "chance"}
    if int in parts or float in parts:
        return {"kind": "number", "whole": int in parts, "optional": type(None) in parts}
    return {"kind": "text"}
