"""The ways an answer can go wrong, scripted by name and endpoint.

`emulator.faults.next("create", "cut-after-accept")` spoils the next create request, and only that one. Faults of one
endpoint are used up in the order in which they were scripted, one per request; aiohttp's own client repeats a GET once
when a kept-alive connection is cut, which uses up two.

    with emulator.faults.always("get", "503"):                  # every request in this block
        ...
    emulator.faults.often("get", "slow-body", probability=0.1)  # one in ten from now on, until its end() or clear()

`Options.chaos` is the probability with which any request suffers one of the faults marked with a star below, all
equally likely; `task-fails` and `wrong-type` where they apply. The others are left out because they would make a client
wait for ever, or believe what is not so. What is drawn depends on the seed and on the number of the request among those
of its endpoint, and on nothing else. A scripted fault goes before `always` and `often`, those go before chaos.

Before anything is done, on every endpoint:

| fault               | what the client sees                                                        |
|---------------------|-----------------------------------------------------------------------------|
| `cut-before-accept` * | the connection is closed without an answer                                |
| `500` `502` `503` `504` `522` * | that status, as JSON (500) or as the page of the proxy in front |
| `429` *             | too many requests; option `retry_after`: seconds, "date" (`seconds` from now) or None |
| `404`               | not found, as a task that is not visible yet or a file that is gone         |
| `redirect-away`     | 307 to `to`, by default the same path under another name of this host       |

After it was done (the task is made, polled, canceled), on every endpoint:

| fault               | what the client sees                                                        |
|---------------------|-----------------------------------------------------------------------------|
| `cut-after-accept` * | the connection is closed without an answer                                 |
| `500-after-accept` `502-after-accept` `503-after-accept` `504-after-accept` `522-after-accept` * | that status |
| `html` *            | 200 and an HTML page                                                        |
| `empty` *           | 200 and no body                                                             |
| `garbled` *         | 200 and the right body, broken off in the middle                            |
| `slow-headers` *    | nothing for `seconds`, then the right answer                                |
| `slow-body` *       | half of the body, the other half after `seconds`                            |
| `stall`             | nothing, for as long as the client cares to wait                            |
| `truncated` *       | half of the body, less than its Content-Length says                         |
| `wrong-type` *      | the right body, called `content_type`                                       |
| `clock-skew` *      | the right answer, its `Date` and the times of the task ahead by `seconds`   |

Only on `create`, where the answer is right and the task it made is not:

| fault               | what becomes of the task                                                    |
|---------------------|-----------------------------------------------------------------------------|
| `task-fails` *      | fails in the end; options `reason`, `where` ("error" or "logs"), `code`     |
| `task-stalls`       | never leaves `processing`                                                   |

Only on `result`:

| fault               | what the client sees                                                        |
|---------------------|-----------------------------------------------------------------------------|
| `expired`           | a link that is too old; option `answer`: "404", "html" or "empty"           |
| `redirect`          | 302 to `to`, by default the same file, where no fault is left               |
| `oversized`         | the picture, with zeros behind it up to `size` bytes                        |
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import attrs

ENDPOINTS = ("create", "get", "cancel", "result", "upload", "account", "active-tasks", "history")
"""Where faults can be. Uploaded files are not among them: tasks read them too."""
_STATUSES = ("500", "502", "503", "504", "522")
_SLOW = {"seconds": 1.0}
_NUMBERS = ("seconds", "size", "code")


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
    answers: bool = False
    """Whether the client gets the right answer all the same."""


KINDS: Mapping[str, Kind] = {
    "cut-before-accept": Kind(when="before"),
    **{status: Kind(when="before") for status in _STATUSES},
    "429": Kind(when="before", options={"retry_after": 1, "seconds": 2.0}),
    "404": Kind(when="before"),
    "redirect-away": Kind(when="before", options={"to": None}),
    "cut-after-accept": Kind(when="after"),
    **{f"{status}-after-accept": Kind(when="after") for status in _STATUSES},
    "html": Kind(when="after"),
    "empty": Kind(when="after"),
    "garbled": Kind(when="after"),
    "slow-headers": Kind(when="after", options=_SLOW, answers=True),
    "slow-body": Kind(when="after", options=_SLOW, answers=True),
    "stall": Kind(when="after"),
    "truncated": Kind(when="after"),
    "wrong-type": Kind(when="after", options={"content_type": "application/octet-stream"}, answers=True),
    "clock-skew": Kind(when="after", options={"seconds": 3600.0}, answers=True),
    "task-fails": Kind(
        when="task",
        endpoints=("create",),
        options={"reason": "the worker ran out of memory", "where": "error", "code": 10000},
        choices={"where": ("error", "logs")},
        answers=True,
    ),
    "task-stalls": Kind(when="task", endpoints=("create",), answers=True),
    "expired": Kind(
        when="before",
        endpoints=("result",),
        options={"answer": "404"},
        choices={"answer": ("404", "html", "empty")},
    ),
    "redirect": Kind(when="after", endpoints=("result",), options={"to": None}),
    "oversized": Kind(when="after", endpoints=("result",), options={"size": 64 * 2**20}, answers=True),
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


def _chaotic() -> Mapping[str, tuple[Fault, ...]]:
    names = [name for name in KINDS if name not in _NOT_CHAOS]
    faults = [Fault(name, KINDS[name].options) for name in names]
    faults += [Fault("429", {**KINDS["429"].options, "retry_after": value}) for value in ("date", None)]
    return {endpoint: tuple(f for f in faults if endpoint in KINDS[f.name].endpoints) for endpoint in ENDPOINTS}


_NOT_CHAOS = {"404", "redirect-away", "stall", "task-stalls", "expired", "redirect", "oversized"}
CHAOS = _chaotic()
"""What chaos draws from, by endpoint."""


@attrs.frozen(eq=False)
class Outage:
    """A time in which requests of an endpoint go wrong. It ends with its `with` block, or when `end` is called."""

    endpoint: str
    fault: Fault
    probability: float
    _all: "list[Outage]" = attrs.field(repr=False)

    def end(self) -> None:
        """Let the requests be well again."""
        if self in self._all:
            self._all.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.end()


class Faults:
    """What goes wrong: the script, the spells, and chaos.

    Args:
        seed: Chance comes from it.

        chaos: The probability of chaos, asked for at each request.
    """

    def __init__(self, seed: int = 0, *, chaos: Callable[[], float] = lambda: 0.0) -> None:
        self._seed = seed
        self._chaos = chaos
        self._numbers: Counter[str] = Counter()
        self._outages: list[Outage] = []
        self._script: dict[str, deque[Fault]] = {endpoint: deque() for endpoint in ENDPOINTS}

    def next(self, endpoint: str, name: str, *, times: int = 1, **options: Any) -> None:
        """Let the next request of an endpoint, or the next few, go wrong.

        Args:
            endpoint: `create`, `get`, `cancel`, `result`, `upload`, `account`, `active-tasks` or `history`.

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

    def always(self, endpoint: str, name: str, **options: Any) -> Outage:
        """Let every request of an endpoint go wrong from now on; `with` ends it. Arguments and errors as for `next`."""
        return self.often(endpoint, name, probability=1.0, **options)

    def often(self, endpoint: str, name: str, *, probability: float, **options: Any) -> Outage:
        """Let requests of an endpoint go wrong by chance from now on; `with` ends it. The latest spell goes first.

        Args:
            endpoint: As for `next`.

            name: As for `next`.

            probability: From 0 to 1.

            **options: What the fault takes.

        Raises:
            ValueError: An endpoint, a name or an option that does not exist, or no probability.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability is {probability}, it must lie between 0 and 1")
        fault = Fault(name, _checked_options(endpoint, name, options))
        self._outages.append(Outage(endpoint, fault, probability, self._outages))
        return self._outages[-1]

    def take(self, endpoint: str) -> Fault | None:
        """The fault the present request suffers; it is used up by asking."""
        if endpoint not in self._script:
            return None
        self._numbers[endpoint] += 1
        script = self._script[endpoint]
        return script.popleft() if script else self._by_chance(endpoint)

    def _by_chance(self, endpoint: str) -> Fault | None:
        for spell in reversed(self._outages):
            if spell.endpoint == endpoint and self._chance(endpoint, spell.fault.name).random() < spell.probability:
                return spell.fault
        probability = self._chaos()
        if not probability:
            return None
        chance = self._chance(endpoint, "chaos")
        return chance.choice(CHAOS[endpoint]) if chance.random() < probability else None

    def _chance(self, endpoint: str, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{endpoint}/{name}/{self._numbers[endpoint]}")  # noqa: S311 - seeded on purpose

    def clear(self) -> None:
        """Forget what is still scripted, and end all spells. Chaos is an option and stays."""
        self._outages.clear()
        for script in self._script.values():
            script.clear()

    def planned(self) -> list[dict[str, Any]]:
        """What is still to come, in the words of `next` and `often`; spells have a probability."""
        script = [(endpoint, fault, None) for endpoint, faults in self._script.items() for fault in faults]
        spells = [(spell.endpoint, spell.fault, spell.probability) for spell in self._outages]
        return [
            {"endpoint": endpoint, "name": fault.name, "probability": probability}
            for endpoint, fault, probability in script + spells
        ]

    def __repr__(self) -> str:
        left = {endpoint: [fault.name for fault in script] for endpoint, script in self._script.items() if script}
        return f"<Faults next={left}, spells={[spell.fault.name for spell in self._outages]}>"


def _checked_options(endpoint: str, name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    _check_named(endpoint, among=ENDPOINTS, what="endpoint")
    _check_named(name, among=[n for n, kind in KINDS.items() if endpoint in kind.endpoints], what="fault")
    kind = KINDS[name]
    for option, value in options.items():
        _check_named(option, among=kind.options, what=f"option of {name}")
        if option in _NUMBERS and not isinstance(value, int | float):
            raise ValueError(f"{option} is {value!r}, it must be a number")
        if option in kind.choices:
            _check_named(value, among=kind.choices[option], what=option)
    return {**kind.options, **options}


def _check_named(name: object, *, among: Collection[str], what: str) -> None:
    if name not in among:
        raise ValueError(f"{name!r} is no {what}; there is {', '.join(among) or 'none'}")
