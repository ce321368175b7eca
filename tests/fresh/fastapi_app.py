"""The same with FastAPI: POST a photograph to /restyle?artist=Hokusai, and the answer is the new picture."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response

from piapi_async import Img2Img, PiAPIError, Session


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have one session for all requests."""
    async with Session() as app.state.session:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/restyle")
async def restyle(request: Request, artist: str) -> Response:
    """Answer with the picture in the artist's style."""
    session: Session = app.state.session
    try:
        photo = Img2Img(prompt=f"in the style of {artist}", image=await request.body())
        info = await session.run(photo, timeout=120)
        picture = await session.fetch(info.images[0])
    except PiAPIError as error:
        raise HTTPException(502, str(error)) from error
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return Response(picture.data, media_type=picture.media_type)
