"""Local pictures, many at once, in a fresh interpreter: nothing is imported yet when the first hundred meet it."""

import io
from pathlib import Path

import pytest
from PIL import Image, features
from support.fresh import ROUNDS, run_fresh, succeeds

GATHER = """
import asyncio, sys
from pathlib import Path
from piapi_async import Img2Img, Session

async def main():
    async with Session() as session:
        photos = sorted(Path(sys.argv[1]).iterdir())
        infos = await asyncio.gather(
            *(session.run(Img2Img(prompt="a bear", image=photo)) for photo in photos)
        )
        paths = await asyncio.gather(*(session.save(info, sys.argv[2]) for info in infos))
        print(len(infos), len({path for several in paths for path in several}))

asyncio.run(main())
"""

MIXED = """
import asyncio, io, sys
from pathlib import Path
from piapi_async import Img2Img, Session

def opened(path):
    from PIL import Image
    return Image.open(io.BytesIO(path.read_bytes()))

def array(path):
    import numpy
    return numpy.full((30, 40, 3), 7, numpy.uint8)

MAKERS = [lambda path: path, Path.read_bytes, lambda path: bytearray(path.read_bytes()), opened, array]

async def main():
    async with Session(max_pixels=10_000) as session:
        async def one(number, photo):
            # A thread for each: the user's imports, ours, and our looks at the values all happen at once.
            image = await asyncio.to_thread(MAKERS[number % len(MAKERS)], photo)
            return await session.run(Img2Img(prompt="a bear", image=image))

        photos = sorted(Path(sys.argv[1]).iterdir())
        print(len(await asyncio.gather(*(one(number, photo) for number, photo in enumerate(photos)))))

asyncio.run(main())
"""

LINKS = """
import asyncio, sys
from piapi_async import Img2Img, Session

async def main():
    async with Session() as session:
        requests = [Img2Img(prompt="a bear", image="https://example.com/a.jpg") for _ in range(20)]
        print(len(await asyncio.gather(*map(session.run, requests))))
        print(sorted({"PIL", "numpy", "pillow_heif", "sqlite3"} & set(sys.modules)))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred photographs of several formats, half of the JPEGs on their side."""
    directory = tmp_path_factory.mktemp("photos")
    kinds = ["JPEG", "PNG", "WEBP", *(["AVIF"] if features.check("avif") else []), "BMP", "GIF"]
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    noise = Image.effect_noise((160, 120), 40).convert("RGB")
    files = {}
    for kind in kinds:
        for exif in (Image.Exif(), on_its_side):
            file = io.BytesIO()
            noise.save(file, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "AVIF") else {}))
            files[kind, len(files) % 2] = file.getvalue()
    several = list(files.items())
    for number in range(100):
        (kind, _), data = several[number % len(several)]
        (directory / f"{number:03}.{kind.lower()}").write_bytes(data)
    return directory


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_gather_over_a_hundred_photographs(emulator: dict[str, str], photos: Path, tmp_path: Path, _round: int) -> None:
    """The README's gather, over a hundred local files at once: every task is made, and every picture saved."""
    assert succeeds(GATHER, emulator, str(photos), str(tmp_path / "out")) == "100 100\n"


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_sources_of_all_kinds_made_by_threads(emulator: dict[str, str], photos: Path, _round: int) -> None:
    """Paths, bytes, Pillow images and arrays that threads make, while these import Pillow and NumPy: none is lost."""
    assert succeeds(MIXED, emulator, str(photos)) == "100\n"


def test_session_without_local_pictures_loads_neither_pillow_nor_numpy(emulator: dict[str, str]) -> None:
    """Links need no decoder: whoever sends nothing else does not pay for loading one."""
    assert succeeds(LINKS, emulator) == "20\n[]\n"


def test_failed_program_is_told() -> None:
    """A scenario that ends in a traceback is seen as one, here and by its exit code."""
    done = run_fresh("raise ValueError('no bears')")
    assert done.returncode == 1
    assert "no bears" in done.stderr
    with pytest.raises(AssertionError, match="no bears"):
        succeeds("raise ValueError('no bears')")
