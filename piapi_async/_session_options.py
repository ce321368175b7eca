"""The arguments of a `Session`, checked before anything is sent, and what stands in for those not given."""

import inspect
import ipaddress
import math
import os
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import urlsplit

from piapi_async import _media, _text, _validators, errors, events
from piapi_async._client.api import OnCancel
from piapi_async._client.transport import is_loopback
from piapi_async._images import pillow
from piapi_async._images.sources import Rules
from piapi_async.handle import TaskHandle
from piapi_async.limits import Governor
from piapi_async.prices import POINTS_PER_USD
from piapi_async.task import WebhookConfig

BASE_URL = "https://api.piapi.ai"
"""Where the service is (https://piapi.ai/docs/flux-api/image-to-image)."""


UPLOAD_URL = "https://upload.theapi.app"
"""Where its upload is (https://piapi.ai/docs/tools/file-upload)."""

PRIVATE_NAMES = (".internal", ".local", ".home.arpa", ".test", ".example", ".invalid")
"""Endings of names that public DNS never resolves (RFC 2606, 6761, 6762, 8375; ICANN on `.internal`)."""

LocalImages = Literal["data-uri", "upload"]


def kind(name: str, value: object, allowed: Any) -> None:
    """Refuse a value that is not of the kind, a `bool` included."""
    if not isinstance(value, allowed) or isinstance(value, bool):
        words = f"of type {allowed.__name__ if isinstance(allowed, type) else allowed}"
        if isinstance(value, type) and issubclass(value, allowed):
            words += _validators.instead(value)
        raise _validators.refuse(TypeError, name=name, allowed=words, value=value)


def submit(request: object, *, webhook: object) -> None:
    """Refuse what `Session.submit` cannot take."""
    if isinstance(request, type) or not all(_has(request, name) for name in ("model", "task_type", "service_mode")):
        allowed = f"a request{_validators.instead(request) or ' such as Img2Img or TaskRequest'}"
        raise _validators.refuse(TypeError, name="request", allowed=allowed, value=request)
    kind("webhook", webhook, WebhookConfig | None)


def _has(request: object, name: str) -> bool:
    try:
        return hasattr(request, name)
    except Exception:  # noqa: BLE001 - a property that raises is there; what it raises is for whoever reads it
        return True


def api_key(given: str | None) -> str:
    """The key to use: the one given, else the environment's."""
    key: object = _text.masked(os.environ.get("PIAPI_API_KEY", "") if given is None else given)
    if not isinstance(key, str):
        raise errors.ConfigurationError(f"api_key must be a string, got {type(key).__name__}")
    if not key:
        raise errors.ConfigurationError(
            "no API key: pass api_key= or set PIAPI_API_KEY; keys are made at https://piapi.ai/workspace"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise errors.ConfigurationError(
            "the API key must be printable ASCII without blanks; the one given is not (and is not shown here)"
        )
    return key


def observers(given: object) -> tuple[events.Observer, ...]:
    """Those who are told of events: plain functions, as what a coroutine function gives would not be awaited."""
    allowed = "a list of plain functions that take one event"
    if isinstance(given, str) or callable(given) or not isinstance(given, Iterable):
        also = _validators.instead(given) or (", also for a single one: observers=[...]" if callable(given) else "")
        raise _validators.refuse(TypeError, name="observers", allowed=allowed + also, value=given)
    found = tuple(given)
    for one in found:
        if isinstance(one, type) or not callable(one) or _is_asynchronous(one):
            also = _validators.instead(one) or (", not of coroutine functions" if callable(one) else "")
            raise _validators.refuse(TypeError, name="observers", allowed=allowed + also, value=one)
    return found


def _is_asynchronous(one: Any) -> bool:
    return any(inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call) for call in (one, one.__call__))


def base_url(given: object, *, allow_http: bool) -> str:
    """Where the service is: what is given, else what the environment says, else the real one."""
    url = given or os.environ.get("PIAPI_BASE_URL") or BASE_URL
    return _url(url, name="base_url", allow_http=allow_http)


def upload_url(given: object, *, base_url: str, allow_http: bool) -> str:
    """Where the upload is.

    What is given, else what the environment says; else the real one for the real service and the same host for any
    other, so that no key goes where it does not belong.
    """
    real = UPLOAD_URL if base_url == BASE_URL else base_url
    return _url(given or os.environ.get("PIAPI_UPLOAD_URL") or real, name="upload_url", allow_http=allow_http)


def _url(url: object, *, name: str, allow_http: bool) -> str:
    if not isinstance(url, str) or not _validators.is_http_url(url) or set("?#@") & set(url):
        shown = "one with a user, which is not shown here" if "@" in str(url) else repr(url)
        raise errors.ConfigurationError(f"{name} must be an http(s) URL without user, query and fragment, got {shown}")
    host = urlsplit(url).hostname or ""
    if urlsplit(url).scheme == "http" and not (allow_http or is_loopback(host)):
        fact = f"{name} {url!r} sends the API key unencrypted; use https://, or pass allow_http=True if that is meant"
        if not _is_private(host):
            raise errors.ConfigurationError(fact)
        events.logger.warning(fact)
    return url.rstrip("/")


def _is_private(host: str) -> bool:
    """Whether a host can only be in a network of one's own, by its name or address."""
    name = host.rstrip(".")
    if not {".", ":"} & set(name) or name.endswith(PRIVATE_NAMES):
        return True
    try:
        return ipaddress.ip_address(name).is_private
    except ValueError:
        return False


def local_images(given: LocalImages) -> LocalImages:
    """How local pictures travel."""
    if given not in ("data-uri", "upload"):
        raise errors.ConfigurationError(f"local_images must be 'data-uri' or 'upload', got {given!r}")
    return given


def rules(*, max_bytes: int, max_pixels: int | None) -> Rules:
    """What holds for local pictures."""
    max_bytes, max_pixels = _media.python_scalar(max_bytes), _media.python_scalar(max_pixels)
    kind("max_image_bytes", max_bytes, int)
    if max_bytes < 1:
        raise _validators.refuse(ValueError, name="max_image_bytes", allowed="a whole number >= 1", value=max_bytes)
    kind("max_pixels", max_pixels, int | None)
    made = Rules(max_bytes=max_bytes, max_pixels=max_pixels)
    if max_pixels is not None:
        pillow.need("max_pixels")
    return made


def governor(given: Governor | None, *, max_in_flight: int | Literal["account"] | None) -> Governor:
    """The governor to use."""
    if given is not None and max_in_flight is not None:
        raise errors.ConfigurationError("pass governor= or max_in_flight=, not both")
    return given or Governor(max_in_flight=max_in_flight)


def points(usd: object) -> int | None:
    """A spend limit in whole points."""
    if usd is None:
        return None
    allowed = "US dollars >= 0, or None for no limit"
    usd = _media.python_scalar(usd)
    if isinstance(usd, bool) or not isinstance(usd, int | float):
        raise _validators.refuse(TypeError, name="max_spend_usd", allowed=allowed, value=usd)
    if not 0 <= usd < math.inf:
        raise _validators.refuse(ValueError, name="max_spend_usd", allowed=allowed, value=usd)
    return math.floor(Decimal(str(usd)) * POINTS_PER_USD)


def on_cancel(given: OnCancel) -> OnCancel:
    """What becomes of a task whose waiter is cancelled."""
    if given not in ("detach", "cancel"):
        raise errors.ConfigurationError(f"on_cancel must be 'detach' or 'cancel', got {given!r}")
    return given


def task_id(given: object) -> str:
    """What can be a task's id."""
    if not isinstance(given, str):
        known = ", a string; you already have the handle" if isinstance(given, TaskHandle) else ", a string"
        raise _validators.refuse(TypeError, name="task_id", allowed=f"a task's id{known}", value=given)
    if not given.strip(". \t\r\n"):
        raise _validators.refuse(ValueError, name="task_id", allowed="a task's id", value=given)
    return given
