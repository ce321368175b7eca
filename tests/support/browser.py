"""A real browser, by the DevTools protocol over a web socket: just enough to look at one page and to click on it."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
_PATIENCE = 20.0  # seconds


class Tab:
    """One open page.

    Attributes:
        errors: What its console complained about, and every dialog it opened.

        urls: Everything it asked for.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.errors: list[str] = []
        self.urls: list[str] = []

    async def call(self, method: str, **params: Any) -> Any:
        """One command of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await asyncio.wait_for(answer, _PATIENCE)

    async def js(self, expression: str) -> Any:
        """The value of an expression on the page; promises are awaited."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true on the page."""
        end = time.monotonic() + _PATIENCE
        while not await self.js(expression):
            assert time.monotonic() < end, f"never true: {expression}\n{await self.js('document.body.innerText')}"
            await asyncio.sleep(0.05)

    async def screenshot(self, path: Path, *, width: int, height: int, dark: bool = False) -> None:
        """What it looks like on a screen of that size."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height}
        await self.call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)
        await asyncio.sleep(0.5)
        shot = await self.call("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def listen(self) -> None:
        """Sort what the browser sends, until the tab is closed."""
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event.get("result", event))
            else:
                self._note(event["method"], event["params"])

    def _note(self, method: str, params: Any) -> None:
        entry = params.get("entry", params)
        loud = entry.get("level", entry.get("type")) in ("error", "warning")
        if method == "Network.requestWillBeSent":
            self.urls.append(params["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
            self.errors.append(json.dumps(params))
        elif loud and method in ("Runtime.consoleAPICalled", "Log.entryAdded"):
            self.errors.append(json.dumps(entry))


class Browser:
    """A browser that runs.

    Args:
        port: Where its DevTools listen.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    @asynccontextmanager
    async def tab(self, url: str, *, width: int = 1280, height: int = 800) -> AsyncIterator[Tab]:
        """Open a page; it is closed in the end."""
        devtools = f"http://127.0.0.1:{self._port}/json"
        async with aiohttp.ClientSession() as http:
            async with http.put(f"{devtools}/new") as answer:
                target = await answer.json()
            async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                await tab.call("Emulation.setDeviceMetricsOverride", **size)
                await tab.call("Page.navigate", url=url)
                await tab.until(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")
                yield tab
                listening.cancel()
            async with http.get(f"{devtools}/close/{target['id']}"):
                pass


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    assert PROGRAM is not None
    profile = Path(tempfile.mkdtemp(prefix="emulator-page-"))
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([PROGRAM, *_FLAGS, f"--user-data-dir={profile}"], stdout=quiet, stderr=quiet)
    try:
        yield Browser(_port(profile, process))
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError, IndexError):
            return int((profile / "DevToolsActivePort").read_text().splitlines()[0])
        time.sleep(0.05)
    raise AssertionError(f"{PROGRAM} did not start; exit code {process.poll()}")
