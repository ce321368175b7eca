"""The README's Python runs as it stands."""

import asyncio
import re
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import piapi_async
from piapi_async.emulator import Emulator
from piapi_async.testing import run_in_virtual_time

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
CAT = Path(piapi_async.__file__).parent / "assets" / "cat.jpg"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[-1])
def test_python_block_runs(block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each Python block of the README runs against the emulator, in a directory with a `photo.jpg`."""

    def run(main: Coroutine[Any, Any, Any]) -> None:
        run_in_virtual_time(beside_emulator(main))

    async def beside_emulator(main: Coroutine[Any, Any, Any]) -> None:
        async with Emulator() as emulator:
            monkeypatch.setenv("PIAPI_BASE_URL", emulator.url)
            monkeypatch.setenv("PIAPI_API_KEY", emulator.api_key)
            await main

    shutil.copy(CAT, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asyncio, "run", run)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_blocks_were_found() -> None:
    """The README shows the main job, the requests, the errors and the emulator in Python."""
    assert len(BLOCKS) == 4
