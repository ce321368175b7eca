"""The ways an answer can go wrong, scripted by name and endpoint.

`emulator.faults.next("create", "cut-after-accept")` spoils the next create request, and only that one. Faults of one
endpoint are used up in the order in which they were scripted, one per request; aiohttp's own client repeats a GET once
when a kept-alive connection is cut, which uses up two.

Before anything is done, on every endpoint:

| fault               | what the client sees                                                        |
|---------------------|-----------------------------------------------------------------------------|
| `cut-before-accept` | the connection is closed without an answer                                  |
| `500` `502` `503` `504` `522` | that status, as JSON (500) or as the page of the proxy in front   |
| `429`               | too many requests; option `retry_after`: seconds, "date" or None            |
| `404`               | not found, as a task that is not visible yet or a file that is gone         |

After it was done (the task is made, looked at, canceled), on every endpoint:

| fault               | what the client sees                                                        |
|---------------------|-----------------------------------------------------------------------------|
| `cut-after-accept`  | the connection is closed without an answer                                  |
| `500-after-accept` `502-after-accept` `503-after-accept` `504-after-accept` `522-after-accept` | that status |
| `html`              | 200 and an HTML page                                                        |
| `empty`             | 200 and no body                                                             |
| `garbled`           | 200 and the right body, broken off in the middle                            |
| `slow-headers`      | nothing for `seconds`, then the right answer                                |
| `slow-body`         | half of the body, the other half after `seconds`                            |
| `stall`             | nothing, for as long as the client cares to wait                            |
| `truncated`         | half of the body, less than its Content-Length says                         |

Only on `create`, where the answer is right and the task it made is not:

| fault               | what becomes of the task                                                    |
|---------------------|-----------------------------------------------------------------------------|
| `task-fails`        | fails in the end; options `reason`, `where` ("error" or "logs"), `code`     |
| `task-stalls`       | never leaves `processing`                                                   |

Only on `result`:

| fault               | what the client sees                                                        |
|---------------------|-----------------------------------------------------------------------------|
| `wrong-type`        | the picture, called `content_type`                                          |
| `redirect`          | 302 to `to`, by default the same file, where no fault is left               |
| `oversized`         | the picture, with zeros behind it up to `size` bytes                        |
"""

from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, Literal

import attrs

ENDPOINTS = ("create", "get", "cancel", "result")
_STATUSES = ("500", "502", "503", "504", "522")
_SLOW = {"seconds": 1.0}


@attrs.frozen(kw_only=True)
class Kind:
    """What is known of all faults of one name."""

    when: Literal["before", "after", "task"]
    """Before anything is done, after it was done, or later, to the task that was made."""
    endpoints: tuple[str, ...] = ENDPOINTS
    options: Mapping[str, Any] = attrs.field(factory=dict)
    """The options it takes, with their defaults."""
    choices: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """The values of an option, where not any will do."""


KINDS: Mapping[str, Kind] = {
    "cut-before-accept": Kind(when="before"),
    **{status: Kind(when="before") for status in _STATUSES},
    "429": Kind(when="before", options={"retry_after": 1, "seconds": 2.0}),
    "404": Kind(when="before"),
    "cut-after-accept": Kind(when="after"),
    **{f"{status}-after-accept": Kind(when="after") for status in _STATUSES},
    "html": Kind(when="after"),
    "empty": Kind(when="after"),
    "garbled": Kind(when="after"),
    "slow-headers": Kind(when="after", options=_SLOW),
    "slow-body": Kind(when="after", options=_SLOW),
    "stall": Kind(when="after"),
    "truncated": Kind(when="after"),
    "task-fails": Kind(
        when="task",
        endpoints=("create",),
        options={"reason": "the worker ran out of memory", "where": "error", "code": 10000},
        choices={"where": ("error", "logs")},
    ),
    "task-stalls": Kind(when="task", endpoints=("create",)),
    "wrong-type": Kind(when="after", endpoints=("result",), options={"content_type": "application/octet-stream"}),
    "redirect": Kind(when="after", endpoints=("result",), options={"to": None}),
    "oversized": Kind(when="after", endpoints=("result",), options={"size": 64 * 2**20}),
}
"""All faults, by name."""


@attrs.frozen
class Fault:
    """One scripted fault."""

    name: str
    options: Mapping[str, Any]

    @property
    def when(self) -> str:
        """See `Kind.when`."""
        return KINDS[self.name].when


class Faults:
    """The script: for each endpoint, the faults its next requests will suffer."""

    def __init__(self) -> None:
        self._script: dict[str, deque[Fault]] = {endpoint: deque() for endpoint in ENDPOINTS}

    def next(self, endpoint: str, name: str, *, times: int = 1, **options: Any) -> None:
        """Let the next request of an endpoint, or the next few, go wrong.

        Args:
            endpoint: `create`, `get`, `cancel` or `result`.

            name: A fault of the table above.

            times: How many requests in a row, 1 or more.

            **options: What the fault takes.

        Raises:
            ValueError: An endpoint, a name or an option that does not exist.
        """
        if times < 1:
            raise ValueError(f"times is {times}, it must be 1 or more")
        fault = Fault(name, _checked_options(endpoint, name, options))
        self._script[endpoint].extend([fault] * times)

    def take(self, endpoint: str) -> Fault | None:
        """The fault the present request suffers; it is used up by asking."""
        script = self._script.get(endpoint)
        return script.popleft() if script else None

    def clear(self) -> None:
        """Forget what is still scripted."""
        for script in self._script.values():
            script.clear()

    def __repr__(self) -> str:
        left = {endpoint: [fault.name for fault in script] for endpoint, script in self._script.items()}
        return f"<Faults {left}>"


def _checked_options(endpoint: str, name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    _check_named(endpoint, among=ENDPOINTS, what="endpoint")
    _check_named(name, among=[n for n, kind in KINDS.items() if endpoint in kind.endpoints], what="fault")
    kind = KINDS[name]
    for option, value in options.items():
        _check_named(option, among=kind.options, what=f"option of {name}")
        if option in kind.choices:
            _check_named(value, among=kind.choices[option], what=option)
    return {**kind.options, **options}


def _check_named(name: str, *, among: Collection[str], what: str) -> None:
    if name not in among:
        raise ValueError(f"{name!r} is no {what}; there is {', '.join(among) or 'none'}")
