"""What `import piapi_async` costs beside the import of its three dependencies.

    python benchmarks/import_time.py [--runs 15]

Both sides take turns, each in a fresh process with `-X importtime`; the figure of a side is the sum of its top-level
cumulative times.
"""

import argparse
import re
import statistics
import subprocess
import sys

OURS = "import piapi_async"
BARE = "import aiohttp, attrs, tenacity"
TOP_LEVEL = re.compile(r"import time: +\d+ \| +(\d+) \| (\w+)$", re.MULTILINE)


def milliseconds(statement: str) -> float:
    """What the modules named in a statement took to import, with all they import themselves."""
    names = set(re.findall(r"\w+", statement.removeprefix("import")))
    command = [sys.executable, "-X", "importtime", "-c", statement]
    trace = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return sum(int(micros) for micros, name in TOP_LEVEL.findall(trace) if name in names) / 1000


def main() -> None:
    """Alternate the two sides and print the medians and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    milliseconds(OURS)  # writes the bytecode, as an installed package has it
    pairs = [(milliseconds(OURS), milliseconds(BARE)) for _ in range(runs)]
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    print(f"{OURS}: {ours:.0f} ms; {BARE}: {bare:.0f} ms; ratio {ratio:.2f} (medians of {runs} pairs)")


if __name__ == "__main__":
    main()
