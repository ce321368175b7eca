"""The page at the emulator's root: how it is served, and what a real browser makes of it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import attrs
import pytest
from support.browser import PROGRAM, Browser, Tab, browser
from support.rig import Api, MakeApi, img2img

from piapi_async.emulator import Emulator, Options
from piapi_async.emulator.faults import ENDPOINTS, KINDS

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HOSTILE = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "</script></style><svg onload=alert(1)>",
    "safe \u202egnp.exe",
    "x" * 10_000,
]
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium on this machine")


# The browser needs the ordinary flow of time, and these emulators the ordinary clock.


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    with browser() as running:
        yield running


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator whose tasks stay as they are until somebody moves them."""
    async with Emulator(progress="manual", max_pixels=4000) as running:
        yield running


@pytest.fixture
async def tab(chromium: Browser, emulator: Emulator) -> AsyncIterator[Tab]:
    """Its page, open, and without a complaint in the end."""
    async with chromium.tab(f"{emulator.url}/") as opened:
        await opened.until("document.querySelector('#link').textContent === 'live'")
        yield opened
        assert opened.errors == []
        assert [url for url in opened.urls if not url.startswith((emulator.url, "data:"))] == []


async def ask(emulator: Emulator, method: str, path: str, body: Any = None) -> bytes:
    """What an API client gets."""
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": emulator.api_key}) as http,
        http.request(method, emulator.url + path, json=body) as answer,
    ):
        return await answer.read()


async def create(emulator: Emulator, **given: Any) -> str:
    """Create a task; its id."""
    answer = json.loads(await ask(emulator, "POST", "/api/v1/task", img2img(**given)))
    return str(answer["data"]["task_id"])


async def eventually(tab: Tab, condition: Any) -> None:
    """Wait until what the page did has come to the emulator."""
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(await tab.js("document.body.innerText"))


def row(task_id: str) -> str:
    """The row of a task, in JavaScript."""
    return f"document.querySelector('[data-task=\"{task_id}\"]')"


async def test_a_browser_gets_the_page(api: Api) -> None:
    """HTML, not kept anywhere, and not in the ledger."""
    reply = await api.send("GET", "/", headers=BROWSER)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert reply.body.startswith(b"<!doctype html>")
    assert (reply.headers["Cache-Control"], reply.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert api.emulator.requests == ()


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
async def test_an_api_client_gets_the_404_of_before(api: Api, accept: str | None) -> None:
    """Plain text, and a line in the ledger."""
    reply = await api.send("GET", "/", headers={"Accept": accept} if accept else {})
    assert (reply.status, reply.body) == (404, b"404 page not found\n")
    assert [record.endpoint for record in api.emulator.requests] == ["unknown"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/"), ("HEAD", "/"), ("GET", "/index.html"), ("GET", "//")])
async def test_the_page_is_nowhere_else(api: Api, method: str, path: str) -> None:
    """Only GET of the root."""
    assert (await api.send(method, path, headers=BROWSER)).status == 404


async def test_the_policy_forbids_all_that_is_not_ours(api: Api) -> None:
    """Each answer has another nonce, which exactly its own style and script carry; there are no inline handlers."""
    replies = [await api.send("GET", "/", headers=BROWSER) for _ in range(2)]
    nonces = [re.findall(r"'nonce-([\w-]{22})'", reply.headers["Content-Security-Policy"]) for reply in replies]
    assert len({nonce for pair in nonces for nonce in pair}) == 2
    policy, text = replies[0].headers["Content-Security-Policy"], replies[0].body.decode()
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert re.findall(r'<(\w+)[^>]* nonce="([^"]*)"', text) == [("style", nonces[0][0]), ("script", nonces[0][0])]
    assert re.findall(r"<[^>]*\s(?:on\w+|style)=", text.partition("<script")[0]) == []


async def test_the_page_needs_nothing_from_outside(api: Api) -> None:
    """No address is in it but that of the SVG name space, which nobody fetches."""
    text = (await api.send("GET", "/", headers=BROWSER)).body.decode()
    assert re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s'\"]*", text) == ["http://www.w3.org/2000/svg"]


async def test_the_page_knows_what_can_be_chosen(api: Api) -> None:
    """Every option that can change, with its words; every fault of every endpoint."""
    text = (await api.send("GET", "/", headers=BROWSER)).body.decode()
    found = re.search(r'<script type="application/json" id="choices">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    choices = json.loads(found[1])
    options = {option["name"]: option for option in choices["options"]}
    fixed = {"host", "port", "seed", "credits", "keep_requests"}
    assert options.keys() == attrs.fields_dict(Options).keys() - fixed
    assert options["plan"]["words"] == ["pro", "creator", "free"]
    kinds = {name: options[name]["kind"] for name in ("status_words", "chaos", "queue_delay", "polls", "api_key")}
    assert list(kinds.values()) == ["choice", "chance", "seconds", "number", "text"]
    assert options["concurrency"]["optional"]
    assert list(choices["faults"]) == list(ENDPOINTS)
    assert {name for names in choices["faults"].values() for name in names} == set(KINDS)


async def test_the_page_survives_every_fault(make_api: MakeApi) -> None:
    """Chaos is for API clients."""
    api = await make_api(chaos=1.0)
    assert {(await api.send("GET", "/", headers=BROWSER)).status for _ in range(20)} == {200}


@needs_browser
async def test_tasks_are_shown_as_they_change(tab: Tab, emulator: Emulator) -> None:
    """In the same row, which keeps its pictures; the newest comes first."""
    first, second = await create(emulator, prompt="a bear"), await create(emulator, prompt="a fox")
    await tab.until("document.querySelectorAll('#task-rows tr').length === 2")
    assert await tab.js("document.querySelector('#task-rows .prompt').textContent") == "a fox"
    await tab.js(f"window.kept = {row(first)}; window.image = kept.querySelector('img')")
    await tab.until("image.complete && image.naturalWidth > 0")
    emulator.start_task(first)
    await tab.until("kept.className === 'processing'")
    emulator.finish(first)
    emulator.fail(second, reason="no luck")
    await tab.until("kept.querySelectorAll('img').length === 2")
    await tab.until("[...kept.querySelectorAll('img')].every((one) => one.naturalWidth > 0)")
    assert await tab.js(f"kept === {row(first)} && image === kept.querySelector('img')")
    await tab.until(f"{row(second)}.innerText.includes('no luck')")
    assert await tab.js("document.querySelector('.completed dd').textContent") == "1"
    await create(emulator, prompt="a hare")
    await tab.until("document.querySelectorAll('#task-rows tr').length === 3")
    assert len([url for url in tab.urls if first in url]) == 2  # each picture once


@needs_browser
async def test_a_hostile_prompt_stays_text(tab: Tab, emulator: Emulator) -> None:
    """No element is made of it, nothing runs, and the page does not grow sideways."""
    for prompt in HOSTILE:
        emulator.fail(await create(emulator, prompt=prompt), reason=prompt)
    await ask(emulator, "GET", "/<img src=x onerror=alert(1)>")
    await tab.until(f"document.querySelectorAll('#task-rows tr.failed').length === {len(HOSTILE)}")
    shown = await tab.js("[...document.querySelectorAll('#task-rows .prompt')].map((one) => one.textContent)")
    assert shown == [prompt[:200] for prompt in reversed(HOSTILE)]
    assert await tab.js("document.querySelectorAll('.prompt *, .reason *, bdi *').length") == 0
    assert await tab.js("document.querySelectorAll('script').length") == 2
    for width in (1280, 390):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        await tab.call("Emulation.setDeviceMetricsOverride", **size)
        assert await tab.js("[document.documentElement, ...document.querySelectorAll('.scroll')]"
                            ".every((one) => one.scrollWidth <= one.clientWidth)")  # fmt: skip


@needs_browser
async def test_markup_cannot_be_made_of_text(tab: Tab) -> None:
    """The policy stops what the script does not do: no innerHTML, no handler, no foreign address."""
    made = "try { document.body.innerHTML = '<b>'; 'made' } catch (error) { error.name }"
    assert await tab.js(made) == "TypeError"
    assert "TrustedHTML" in tab.errors.pop()


@needs_browser
async def test_a_switch_changes_the_emulator(tab: Tab, emulator: Emulator) -> None:
    """A choice, a number, a pair of seconds and chaos; the emulator's word comes back to the page."""
    for name, value in (("plan", "free"), ("polls", "7"), ("queue_delay", "1 to 4"), ("chaos", "0.25")):
        await tab.js(f"{{ const one = document.querySelector('#option-{name}'); one.value = '{value}';"
                     "one.dispatchEvent(new Event('change', {bubbles: true})) }")  # fmt: skip
    await tab.until("document.querySelector('#switches-changed').textContent.startsWith('6 ')")
    options = emulator.options
    assert (options.plan, options.polls, repr(options.queue_delay)) == ("free", 7, "Uniform(low=1, high=4)")
    assert options.chaos == 0.25
    emulator.set(plan="creator", status_words={"pending": "waiting"})
    await tab.until("document.querySelector('#option-plan').value === 'creator'")
    await tab.until("document.querySelector('#option-status_words').selectedOptions[0].text === 'other words'")


@needs_browser
async def test_a_switch_says_what_is_wrong(tab: Tab, emulator: Emulator) -> None:
    """The emulator's sentence stands beside the control."""
    await tab.js("{ const one = document.querySelector('#option-queue_delay'); one.value = 'long';"
                 "one.dispatchEvent(new Event('change')) }")  # fmt: skip
    await tab.until("document.querySelector('.error:not([hidden])')?.textContent.includes('must be seconds')")
    assert "400" in tab.errors.pop()  # Chromium notes every 4xx
    assert emulator.options == attrs.evolve(Options(), progress="manual", max_pixels=4000)


@needs_browser
async def test_a_scripted_fault_is_marked(tab: Tab, emulator: Emulator) -> None:
    """Chosen and sent with the keyboard alone; announced until it happens, then marked in the log."""
    await tab.js("document.querySelector('#fault-endpoint').focus()")
    for text in ("get", "\t", "503", "\t", "\t", "\t", "\r"):
        for key in [text] if text == "\t" else text:
            await press(tab, key)
    await tab.until("document.querySelector('#planned').innerText.trim() === 'get 503'")
    task_id = await create(emulator)
    await ask(emulator, "GET", f"/api/v1/task/{task_id}")
    await tab.until("document.querySelectorAll('#request-rows tr').length === 2")
    seen = await tab.js(
        "[...document.querySelectorAll('#request-rows tr')].map((one) => [one.className, one.innerText])"
    )
    assert [name for name, _text in seen] == ["faulty", ""]
    assert seen[0][1].split()[1:] == ["get", task_id[:8], "503", "503", "not", "done"]
    await tab.until("document.querySelector('#planned').children.length === 0")


async def press(tab: Tab, key: str) -> None:
    """One key, down and up."""
    code = {"\t": 9, "\r": 13}.get(key, ord(key.upper()))
    name = {"\t": "Tab", "\r": "Enter"}.get(key, key)
    text = {} if key == "\t" else {"text": key}
    await tab.call("Input.dispatchKeyEvent", type="keyDown", key=name, windowsVirtualKeyCode=code, **text)
    await tab.call("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)


@needs_browser
async def test_faults_by_chance_can_be_cleared(tab: Tab, emulator: Emulator) -> None:
    """Added in per cent, gone with one click."""
    await tab.js("{ const one = document.querySelector('#fault-when'); one.value = 'probability';"
                 "one.dispatchEvent(new Event('change')) }")  # fmt: skip
    await tab.js("document.querySelector('#fault button').click()")
    await tab.until("document.querySelector('#planned').innerText.includes('create cut-before-accept, 20 % of them')")
    await tab.js("document.querySelector('#fault-clear').click()")
    await tab.until("document.querySelector('#planned').children.length === 0")
    assert emulator.faults.planned() == []


@needs_browser
async def test_a_task_can_be_moved(tab: Tab, emulator: Emulator) -> None:
    """Started, finished, failed; what is over has no buttons."""
    first, second = await create(emulator), await create(emulator)
    await tab.until("document.querySelectorAll('#task-rows tr').length === 2")
    for task_id, number in ((first, 0), (second, 2)):
        await tab.js(f"{row(task_id)}.querySelectorAll('button')[{number}].click()")
    await tab.until(f"{row(first)}.className === 'processing' && {row(second)}.className === 'failed'")
    await tab.js(f"{row(first)}.querySelectorAll('button')[1].click()")
    await eventually(tab, lambda: emulator.tasks[first].status == "completed")
    await tab.until("[...document.querySelectorAll('.actions')].every((one) => one.hidden)")


@needs_browser
async def test_rows_have_a_bound(tab: Tab, emulator: Emulator) -> None:
    """The newest fifty of each, and how many there are."""
    for _ in range(60):
        await create(emulator)
    await tab.until("document.querySelector('#tasks-held').textContent === 'the newest 50 of 60'")
    assert await tab.js("document.querySelectorAll('#task-rows tr').length") == 50
    assert await tab.js("document.querySelectorAll('#request-rows tr').length") == 50
    assert len({url for url in tab.urls if "/input/" in url}) < 50  # what nobody sees is not loaded


@needs_browser
async def test_the_page_waits_for_an_emulator_that_went_away(chromium: Browser) -> None:
    """It says so, tries again, and shows what the next one on that port has, and nothing else."""
    async with Emulator(progress="manual") as emulator:
        await create(emulator, prompt="before")
        port = int(emulator.url.rpartition(":")[2])
        async with chromium.tab(f"{emulator.url}/") as tab:
            await tab.until("document.querySelector('.prompt')?.textContent === 'before'")
            await emulator.aclose()
            await tab.until("document.querySelector('#link').textContent === 'disconnected, trying again'")
            async with Emulator(progress="manual", port=port) as another:
                task_id = await create(another, prompt="after")
                await tab.until("document.querySelector('#link').textContent === 'live'")
                assert await tab.js("[...document.querySelectorAll('.prompt')].map((one) => one.textContent)") == [
                    "after"
                ]
                # The same seed gives the same id: its picture must not be that of the task before.
                assert task_id in emulator.tasks
                await tab.until(f"{row(task_id)}.querySelector('img').naturalWidth > 0")
            assert len({url for url in tab.urls if f"/input/{task_id}" in url}) == 2
