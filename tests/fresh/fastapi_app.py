"""The same with FastAPI: POST a photograph to /restyle?artist=Hokusai, and the answer is the new picture."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response

from piapi_async import Img2Img, PiAPIError, Session

LOGGER = logging.getLogger(__name__)
UPLOAD_MAX = 10 * 2**20


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have one session for all requests."""
    async with Session() as app.state.session:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/restyle")
async def restyle(request: Request, artist: str = "") -> Response:
    """Answer with the picture in the artist's style, or say in plain words why there is none."""
    session: Session = app.state.session
    if not artist.strip():
        raise HTTPException(400, "Please name an artist, as in /restyle?artist=Hokusai.")
    data = await request.body()  # all of it; what is in front of the app bounds how much that may be
    if len(data) > UPLOAD_MAX:
        raise HTTPException(413, "The photograph is too large: at most 10 MB, please.")
    try:
        photo = Img2Img(prompt=f"in the style of {artist}", image=data)
        info = await session.run(photo, timeout=120)
        picture = await session.fetch(info.images[0])
    except PiAPIError as error:
        LOGGER.exception("no picture")
        if isinstance(error, TimeoutError):
            raise HTTPException(504, "This takes too long, please try again later.") from error
        raise HTTPException(502, "The picture could not be made, please try again later.") from error
    except ValueError as error:
        words = "Please send a photograph, such as a JPEG, PNG or WebP of at most 10 MB."
        raise HTTPException(400, words) from error
    return Response(picture.data, media_type=picture.media_type)
