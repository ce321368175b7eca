"""A notebook's first cell: a kernel that has imported nothing, top-level `await`, and local photographs."""

import io
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image
from support.fresh import ROUNDS

CELL = """
import asyncio
from pathlib import Path

from piapi_async import Img2Img, Session

async with Session() as session:
    infos = await asyncio.gather(
        *(session.run(Img2Img(prompt="a bear", image=photo)) for photo in sorted(Path({folder!r}).iterdir()))
    )
    paths = [path for info in infos for path in await session.save(info, {out!r})]
print(len(infos), len(paths))
"""


@pytest.fixture(scope="module", autouse=True)
def own_jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the settings and the history of whoever runs the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_first_cell(emulator: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _round: int) -> None:
    """Twenty photographs of several formats go through a gather in the first cell that a kernel runs."""
    for name, value in emulator.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        file = io.BytesIO()
        kind = ("PNG", "JPEG", "WEBP", "BMP")[number % 4]
        Image.effect_noise((160, 120), 40 + number).convert("RGB").save(file, kind)
        (folder / f"{number:02}.{kind.lower()}").write_bytes(file.getvalue())
    code = CELL.format(folder=str(folder), out=str(tmp_path / "out"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert [output.get("text") for output in notebook.cells[0].outputs] == ["20 20\n"]
