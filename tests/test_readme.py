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
WEB_APP = (Path(__file__).parent / "fresh" / "web_app.py").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
BLOCKS = [block for block in SHOWN if block not in (*EXAMPLE, WEB_APP)]
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
    """The README shows each of its chapters for programmers in Python."""
    assert len(BLOCKS) == 7


def test_the_plugins_example_is_shown() -> None:
    """The chapter on testing has the two files that `test_pytest_plugin` runs, as they are."""
    assert [block for block in SHOWN if block in EXAMPLE] == EXAMPLE


def test_the_web_app_is_shown() -> None:
    """The chapter on web apps has the file that `fresh/test_web_app_fresh` runs, as it is."""
    assert WEB_APP in SHOWN


def run_block(mark: str, directory: Path) -> tuple[str, str]:
    """The block of that mark, and what it prints as it stands, but for the port and the way to the programs."""
    block = re.search(rf"<!-- {mark} -->\n```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert block is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = block[1].replace("8123", str(port)).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(["bash", "-c", script], cwd=directory, capture_output=True, text=True, check=False)
    return block[1], done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_refusals(tmp_path: Path) -> None:
    """Each documented refusal is provoked by the command that the emulator's chapter gives for it."""
    block, told = run_block("refusals", tmp_path)
    answers = re.findall(r" -> (\d+)$", told, re.MULTILINE)
    assert answers == re.findall(r"# (\d{3})\b", block.replace("# accepted", "# 200"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_batch_survives(tmp_path: Path) -> None:
    """The batch that is killed and started again has its forty pictures, and was charged once for each."""
    _, told = run_block("batch", tmp_path)
    assert re.search(r"^submitted +20$", told, re.MULTILINE)
    assert len(re.findall(r"^completed +40$", told, re.MULTILINE)) == 2
    assert re.findall(r'^"charges": *(\d+)$', told, re.MULTILINE) == ["40"]
    pictures = sorted((tmp_path / "bears").glob("*.png"))
    assert len(pictures) == 40
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert (tmp_path / "bears.html").read_text(encoding="utf-8").count('"completed"') >= 40
