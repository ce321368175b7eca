"""A web app: POST a photograph to /restyle?artist=Hokusai, and the answer is the new picture."""

from collections.abc import AsyncIterator

from aiohttp import web

from piapi_async import Img2Img, PiAPIError, Session

SESSION = web.AppKey("session", Session)


async def session(app: web.Application) -> AsyncIterator[None]:
    """Have one session for all requests: it bounds what is in flight, and what it learns serves everybody."""
    async with Session() as app[SESSION]:
        yield


async def restyle(request: web.Request) -> web.Response:
    """Answer with the picture in the artist's style."""
    session = request.app[SESSION]
    try:
        photo = Img2Img(prompt=f"in the style of {request.query['artist']}", image=await request.read())
        info = await session.run(photo, timeout=120)
        picture = await session.fetch(info.images[0])
    except PiAPIError as error:
        return web.Response(status=502, text=str(error))
    except (ValueError, KeyError) as error:  # an upload that is not a picture, or no artist
        return web.Response(status=400, text=str(error))
    return web.Response(body=picture.data, content_type=picture.media_type)


app = web.Application(client_max_size=10 * 2**20)
app.cleanup_ctx.append(session)
app.router.add_post("/restyle", restyle)

if __name__ == "__main__":
    web.run_app(app, port=8080)
