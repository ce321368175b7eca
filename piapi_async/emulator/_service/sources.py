"""Which bytes an `image` value stands for, as far as that can be told without asking anybody."""

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from typing import Any

from yarl import URL

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")


def image_values(given: Mapping[str, Any]) -> list[str]:
    """The images of an input: the source first, the control image behind it; absent ones left out."""
    controls = [item["control_image"] for item in given.get("control_net_settings", ())]
    return [value for value in (given["image"], *controls) if value]


def problem(given: Mapping[str, Any], *, unreachable: str, inline_images: str = "accepted") -> str | None:
    """Why the task cannot get its images, None when it can; see `Options` for the two words."""
    for value in image_values(given):
        if is_url(value):
            if unreachable == "fail" and not is_loopback(value):
                return f"image download failed: {value[:200]}"
        elif inline_images == "fail" or (inline_images == "data-uri-only" and "," not in value):
            return "image download failed: unsupported protocol scheme"
        elif inline(value) is None:
            return "image download failed: neither a URL nor a base64 picture"
    return None


def is_url(value: str) -> bool:
    """Whether an image value is a link."""
    return value.startswith(("http://", "https://"))


def is_loopback(url: str) -> bool:
    """Whether a link leads to this machine, by its spelling."""
    try:
        host = URL(url).host or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def inline(value: str) -> bytes | None:
    """The picture inside a data URI or bare base64; None when there is none."""
    head, comma, data = value.partition(",")
    if comma and not (head.startswith("data:") and head.endswith(";base64")):
        return None
    try:
        raw = base64.b64decode(data if comma else value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if raw.startswith(_MAGIC) else None
