"""Images served on this machine, fetched for real; nothing else is ever contacted."""

import aiohttp

from piapi_async.emulator._service.sources import is_loopback

_MOST_BYTES = 20 * 2**20
_TIMEOUT = aiohttp.ClientTimeout(total=5)


async def fetch(url: str) -> bytes | None:
    """The bytes behind a loopback link.

    Returns:
        None for another link, for any answer but 200 (redirects are not followed), for more than 20 MiB, and when
        it takes more than 5 seconds.
    """
    if not is_loopback(url):
        return None
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as http,
            http.get(url, allow_redirects=False) as response,
        ):
            return await _body(response)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    body = bytearray()
    async for chunk in response.content.iter_chunked(2**16):
        body += chunk
        if len(body) > _MOST_BYTES:
            return None
    return bytes(body) if response.status == 200 else None  # noqa: PLR2004 - HTTP's OK
