"""What `import piapi_async` costs beside the import of its three dependencies.

    python benchmarks/import_time.py [--runs 25]

The package's root imports its parts on first use, so that the figure that counts is the second: the import with a first
session and request. The third adds what saves pictures, for those who save some. Exits with 1 if the second is above
the design's limit.

The sides take turns, each in a fresh process that reads its own CPU time, which other programs disturb less than the
wall clock. All bytecode is written beforehand, as it is for installed packages.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

MOST = 1.25
"""The most that importing the package may cost, beside importing its dependencies."""

BARE = "import aiohttp, attrs, tenacity"
OURS = {
    "import piapi_async": "import piapi_async",
    "... and the first session and request": (
        "from piapi_async import Img2Img, Session; Session('k'), Img2Img(prompt='a', image='https://example.com/a.jpg')"
    ),
    "... and the saving of pictures": "from piapi_async import Img2Img, Session, files; Session('k')",
}


def milliseconds(statement: str, *, bytecode: str) -> float:
    """The CPU time of a statement in a fresh interpreter that keeps its bytecode in a directory."""
    code = f"import time\nstart = time.process_time()\n{statement}\nprint(1000 * (time.process_time() - start))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> int:
    """Alternate the sides and print, for each, the medians and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as bytecode:
        rounds = [[milliseconds(it, bytecode=bytecode) for it in (BARE, *OURS.values())] for _ in range(runs + 1)]
    bare, *ours = zip(*rounds[1:], strict=True)  # the first round wrote the bytecode
    print(f"{BARE}: {statistics.median(bare):.0f} ms (medians of {runs} rounds)")
    ratios = [statistics.median(a / b for a, b in zip(side, bare, strict=True)) for side in ours]
    for name, side, ratio in zip(OURS, ours, ratios, strict=True):
        print(f"{name}: {statistics.median(side):.0f} ms, {ratio:.2f} times")
    return int(ratios[1] > MOST)


if __name__ == "__main__":
    sys.exit(main())
