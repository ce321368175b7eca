"""Long strings, held once however many tasks carry them."""

from collections import OrderedDict
from typing import Any

_LONG = 1024
_REMEMBERED = 64


class Texts:
    """The last 64 different long strings.

    A batch sends the same few pictures as data URIs thousands of times; PiAPI echoes them, so every task must keep
    what it was sent, but all of them can keep the same object.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, str] = OrderedDict()

    def shared(self, value: Any) -> Any:
        """The same JSON value, its long strings replaced by equal ones that were seen before."""
        if isinstance(value, dict):
            return {name: self.shared(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.shared(item) for item in value]
        return self._same(value) if isinstance(value, str) and len(value) >= _LONG else value

    def _same(self, text: str) -> str:
        first = self._seen.setdefault(text, text)
        self._seen.move_to_end(text)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return first
