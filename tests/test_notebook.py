"""Notebooks, in a real Jupyter kernel: the tour that is shipped, and what an interrupt leaves behind."""

import time
from collections.abc import Iterator
from importlib import resources
from typing import Any

import attrs
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from piapi_async.display import INTERVAL

TOUR = resources.files("piapi_async") / "assets" / "tour.ipynb"


@pytest.fixture(scope="module", autouse=True)
def own_jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the settings and the history of whoever runs the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


class Client(NotebookClient):  # type: ignore[misc] # it comes without types
    """Runs a notebook, and keeps every display message of a kernel with the cell it is for."""

    def __init__(self, notebook: Any, **settings: Any) -> None:
        super().__init__(notebook, **settings)
        self.displays: list[tuple[int, str]] = []

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Keep it, then do with it what is always done."""
        if "display" in msg["msg_type"]:
            self.displays.append((cell_index, msg["msg_type"]))
        return super().process_message(msg, cell, cell_index)


@attrs.frozen
class Played:
    """The tour after it was run."""

    notebook: Any
    displays: list[tuple[int, str]]
    seconds: float

    def index(self, tag: str) -> int:
        """Which cell has a tag."""
        return next(n for n, cell in enumerate(self.notebook.cells) if tag in cell.metadata.get("tags", ()))

    def outputs(self, tag: str) -> list[Any]:
        """What the cell with a tag shows."""
        outputs: list[Any] = self.notebook.cells[self.index(tag)].outputs
        return outputs


@pytest.fixture(scope="module")
def played() -> Played:
    """The tour, run once in a kernel of its own."""
    notebook = nbformat.reads(TOUR.read_text(encoding="utf-8"), as_version=4)
    client = Client(notebook, timeout=60, kernel_name="python3")
    begun = time.monotonic()
    client.execute()
    return Played(notebook, client.displays, time.monotonic() - begun)


def test_tour(played: Played) -> None:
    """No cell of the tour ends with an error, nothing is written to stderr, and it takes less than 40 s."""
    outputs = [output for cell in played.notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert played.seconds < 40


def test_pictures_are_inline(played: Played) -> None:
    """The task is a card with its picture, the table has eleven of twelve; what was fetched is inside the notebook."""
    [card], [table], [saved] = (played.outputs(tag) for tag in ("pictures", "table", "saved"))
    assert card.data["text/html"].count('<img src="http://127.0.0.1:') == 1
    assert table.data["text/html"].count('<img src="http://127.0.0.1:') == 11
    assert saved.data["text/html"].startswith('<img src="data:image/png;base64,')
    assert card.data["text/plain"].startswith("<TaskInfo ")
    assert table.data["text/plain"].splitlines()[-1] == "12 tasks: 11 completed, 1 failed; 11 pictures; 0.0165 USD"


def test_progress_does_not_flood_the_cell(played: Played) -> None:
    """A dozen tasks have one output, which is updated at most four times a second and ends with the final state."""
    [output] = played.outputs("progress")
    sent = [kind for cell, kind in played.displays if cell == played.index("progress")]
    seconds = float(output.data["text/plain"].split(" s, ")[-2].split()[-1])
    assert sent == ["display_data"] + ["update_display_data"] * (len(sent) - 1)
    assert 3 < len(sent) <= seconds / INTERVAL + 3
    assert "12 of 12 tasks over, 11 completed, 1 failed" in output.data["text/plain"]


def test_failures_say_why(played: Played) -> None:
    """A failed task's reason is in the error, in its card, and in the table."""
    [told, card], [table] = played.outputs("failed"), played.outputs("table")
    assert told.text.endswith("no worker could load the model\n")
    assert "no worker could load the model" in card.data["text/html"]
    assert "the picture was refused by moderation" in table.data["text/html"]


def test_tour_is_shipped_clean() -> None:
    """The notebook that is shipped is valid, and holds no outputs."""
    notebook = nbformat.reads(TOUR.read_text(encoding="utf-8"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []


PREPARE = """
from piapi_async import Session, Txt2Img
from piapi_async.display import Progress
from piapi_async.emulator import Constant, Emulator
emulator = Emulator(durations=Constant(600.0), queue_delay=Constant(0.0))
await emulator.start()
progress = Progress()
session = Session(emulator.api_key, base_url=emulator.url, observers=[progress])
"""
WAIT = """
with progress:
    await session.run(Txt2Img(prompt="a cat"))
"""
AGAIN = """
[orphan] = emulator.tasks
emulator.set(durations=Constant(0.0))
info = await session.run(Txt2Img(prompt="a cat"))
print(info.status, (await session.get_task(orphan)).status)
await session.aclose()
await emulator.aclose()
"""


class Kernel:
    """A Jupyter kernel, run cell by cell."""

    def __init__(self) -> None:
        self._manager, self._client = start_new_kernel()

    def run(self, code: str, *, interrupt_at: str | None = None) -> list[dict[str, Any]]:
        """Run a cell, and interrupt it, as Jupyter does, when it has shown a text; what it put out."""
        told: list[dict[str, Any]] = []

        def hear(message: dict[str, Any]) -> None:
            nonlocal interrupt_at
            if message["msg_type"] != "status":
                told.append(message["content"])
            if interrupt_at is not None and interrupt_at in str(message["content"].get("data")):
                interrupt_at = None
                self._manager.interrupt_kernel()

        # After an error the kernel drops, for a moment, what is sent next, as if it had been queued: not so here.
        reply = self._client.execute_interactive(code, timeout=30, stop_on_error=False, output_hook=hear)
        assert interrupt_at is None
        assert reply["content"]["status"] != "aborted"
        return told

    def close(self) -> None:
        """End it."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A kernel of the test's own."""
    kernel = Kernel()
    yield kernel
    kernel.close()


def test_interrupt_leaves_a_usable_session(kernel: Kernel) -> None:
    """Interrupting a cell that waits ends the waiting and says that the task goes on; the next cell uses the session.

    In a cell that awaits, the kernel cancels: what is raised there is no KeyboardInterrupt but a CancelledError.
    """
    kernel.run(PREPARE)
    *_, last, error = kernel.run(WAIT, interrupt_at="1 processing")
    assert error["ename"] == "CancelledError"
    assert "1 no longer waited for" in last["data"]["text/plain"]
    assert "interrupted" in last["data"]["text/plain"]
    assert [content["text"] for content in kernel.run(AGAIN) if "text" in content] == ["completed processing\n"]
