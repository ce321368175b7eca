"""A web app: POST a photograph to /restyle?artist=Hokusai, and the answer is the new picture."""

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from piapi_async import Img2Img, PiAPIError, Session

LOGGER = logging.getLogger(__name__)
SESSION = web.AppKey("session", Session)


async def session(app: web.Application) -> AsyncIterator[None]:
    """Have one session for all requests: it bounds what is in flight, and what it learns serves everybody."""
    async with Session() as app[SESSION]:
        yield


async def restyle(request: web.Request) -> web.Response:
    """Answer with the picture in the artist's style, or say in plain words why there is none."""
    session, artist = request.app[SESSION], request.query.get("artist", "").strip()
    if not artist:
        return web.Response(status=400, text="Please name an artist, as in /restyle?artist=Hokusai.")
    try:
        photo = Img2Img(prompt=f"in the style of {artist}", image=await request.read())
        info = await session.run(photo, timeout=120)
        picture = await session.fetch(info.images[0])
    except web.HTTPRequestEntityTooLarge:
        return web.Response(status=413, text="The photograph is too large: at most 10 MB, please.")
    except PiAPIError as error:
        LOGGER.exception("no picture")  # what went wrong is for you to read, not for the visitor
        if isinstance(error, TimeoutError):
            return web.Response(status=504, text="This takes too long, please try again later.")
        return web.Response(status=502, text="The picture could not be made, please try again later.")
    except ValueError:
        return web.Response(status=400, text="Please send a photograph, such as a JPEG, PNG or WebP of at most 10 MB.")
    return web.Response(body=picture.data, content_type=picture.media_type)


app = web.Application(client_max_size=10 * 2**20)
app.cleanup_ctx.append(session)
app.router.add_post("/restyle", restyle)

if __name__ == "__main__":
    web.run_app(app, port=8080)
