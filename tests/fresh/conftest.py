"""What the scenarios share: an emulator that lives in another process."""

from collections.abc import Iterator

import pytest
from support.fresh import emulator_process

OPTIONS = "--seconds 0 --queue-delay 0 --concurrency 1000 --max-pixels 1024 --credits 10000000000"


@pytest.fixture(scope="module")
def emulator() -> Iterator[dict[str, str]]:
    """The variables that lead to an emulator in another process, whose tasks take no time and make small pictures."""
    with emulator_process(*OPTIONS.split()) as variables:
        yield variables
