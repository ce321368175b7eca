"""The README's Python runs as it stands."""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import piapi_async
from piapi_async.emulator import Emulator
from piapi_async.testing import run_in_virtual_time

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLE = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("plugin_example/*app.py"))]
SHOWN = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
BLOCKS = [block for block in SHOWN if block not in EXAMPLE]
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
    """The README shows the main job, the requests, pictures out, the errors and the emulator in Python."""
    assert len(BLOCKS) == 5


def test_the_plugins_example_is_shown() -> None:
    """The chapter on testing has the two files that `test_pytest_plugin` runs, as they are."""
    assert [block for block in SHOWN if block in EXAMPLE] == EXAMPLE


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_refusals(tmp_path: Path) -> None:
    """Each documented refusal is provoked by the command that the emulator's chapter gives for it."""
    block = re.search(r"<!-- refusals -->\n```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert block is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = block[1].replace("8123", str(port)).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    told = re.findall(r" -> (\d+)$", done.stdout, re.MULTILINE)
    assert told == re.findall(r"# (\d{3})\b", block[1].replace("# accepted", "# 200"))
