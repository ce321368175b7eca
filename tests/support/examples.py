"""The documented examples, and the question whether an answer looks like one."""

import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "emulator" / "fixtures"


def example(name: str) -> Any:
    """The body of a documented example."""
    return json.loads((FIXTURES / f"{name}.json").read_text())["body"]


def shape(value: Any) -> Any:
    """Keys and types of a JSON value; of a list those of its first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__
