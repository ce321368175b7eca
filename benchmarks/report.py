"""How soon the report page of a large batch is there, and how quickly it filters.

    python benchmarks/report.py [--rows 10000] [--runs 7]

A page of that many rows, each with an input and an output of its own, is opened from disk in headless Chromium, in turn
with one of 100 rows, each time in a new tab. Printed are the medians of the first contentful paint, of the load event,
and of the longest of ten keystrokes in the search box: from the event to the page having been laid out again.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps

from piapi_async.display._report import ReportRow, write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "emulator"))

from browser import Browser, browser  # type: ignore[import-not-found]

CAT = Path(__file__).parents[1] / "piapi_async" / "assets" / "cat.jpg"
STATES = ("completed",) * 8 + ("failed", "in_doubt")
MODELS = ("Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced")
PROMPT = "a cat by the window in the style of an old engraving, seen from below, with long light from the left"

PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
LOAD = "performance.getEntriesByType('navigation')[0].loadEventEnd"
TYPING = """[..."engraving "].map((_letter, at, all) => {
  const find = document.querySelector('#find');
  const begun = performance.now();
  find.value = all.slice(0, at + 1).join('');
  find.dispatchEvent(new Event('input'));
  document.body.offsetHeight;
  return performance.now() - begun;
})"""


def pictures(number: int, directory: Path) -> list[Path]:
    """That many small pictures, no two alike, for their small copies to be of the usual size."""
    with Image.open(CAT) as opened:
        cat = opened.convert("L").resize((160, 107))
    paths = [directory / f"{index}.jpg" for index in range(number)]
    for index, path in enumerate(paths):
        colour = f"hsl({index * 7 % 360}, 60%, {30 + index % 40}%)"
        ImageOps.colorize(cat, colour, "white").save(path, quality=80)
    return paths


def rows(number: int, files: list[Path]) -> Iterator[ReportRow]:
    """A batch as it may be."""
    for index in range(number):
        yield ReportRow(
            key=f"row-{index:05}",
            state=STATES[index % 10],
            prompt=PROMPT[index % 7 :],
            model=MODELS[index % 3],
            task_type="img2img",
            settings={"denoise": 0.7, "guidance_scale": 3.5},
            task_id=f"{index:08x}-2352-4add-95cc-360fc52d5f89",
            seconds=2 + index * 7919 % 1000 / 100,
            usd=0.0015,
            reason="" if index % 10 < 8 else "the answer was lost",
            inputs=[files[2 * index]],
            outputs=[files[2 * index + 1]],
        )


async def look(page: Path, *, chromium: Browser) -> tuple[float, float, float]:
    """First paint, load and longest keystroke, in milliseconds."""
    async with chromium.tab(page.as_uri()) as tab:
        await tab.until(f"performance.getEntriesByName('first-contentful-paint').length && {LOAD} > 0")
        return await tab.js(PAINT), await tab.js(LOAD), max(await tab.js(TYPING))


async def measure(pages: list[Path], *, runs: int) -> list[list[float]]:
    """The medians of each page, which take turns."""
    seen: dict[Path, list[tuple[float, float, float]]] = {page: [] for page in pages}
    for run in range(runs + 1):
        with browser() as chromium:
            for page in pages:
                figures = await look(page, chromium=chromium)
                seen[page] += [figures] if run else []  # the first run brings the files into memory
    return [[statistics.median(column) for column in zip(*seen[page], strict=True)] for page in pages]


def write(number: int, *, directory: Path, files: list[Path]) -> Path:
    """Write a page and say how long that took and how large it is."""
    page = directory / f"report-{number}.html"
    begun = time.perf_counter()
    write_report(rows(number, files), page, title="A batch")
    took = time.perf_counter() - begun
    print(f"{number:,} rows: written in {took:.1f} s, {page.stat().st_size / 2**20:.1f} MiB")
    return page


def main() -> None:
    """Write the pages, look at them, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        files = pictures(2 * max(given.rows, 100), directory)
        pages = [write(number, directory=directory, files=files) for number in (given.rows, 100)]
        medians = asyncio.run(measure(pages, runs=given.runs))
    for number, (paint, load, key) in zip((given.rows, 100), medians, strict=True):
        times = json.dumps({"first paint": round(paint), "load": round(load), "longest keystroke": round(key, 1)})
        print(f"{number:,} rows, medians of {given.runs} runs in ms: {times}")


if __name__ == "__main__":
    main()
