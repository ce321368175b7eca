"""The app: makes an artist's version of a photograph."""

from pathlib import Path

from piapi_async import Img2Img, Session


async def restyle(photo: str, artist: str, directory: Path) -> Path:
    """Return the file with the new picture."""
    async with Session() as session:  # PIAPI_API_KEY, PIAPI_BASE_URL
        info = await session.run(Img2Img(prompt=f"in the style of {artist}", image=photo))
        (path,) = await session.save(info, directory)
        return path
