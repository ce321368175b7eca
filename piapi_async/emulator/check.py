"""Assertions about what an emulator saw: `emulator.check.exactly(1, "create")`.

Each method of `Check` does nothing when it holds and raises AssertionError with one sentence when it does not. Those
about single requests see the last `Options.keep_requests` of them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from piapi_async.emulator.faults import ENDPOINTS
from piapi_async.emulator.records import Charge, RequestRecord, TaskView

_REFUSED = range(400, 500)


@attrs.frozen(kw_only=True)
class Check:
    """What happened until it was made, to be asserted about. `Emulator.check` makes a new one each time.

    Args:
        requests: The ledger.

        counts: How many requests there were, by endpoint.

        tasks: Those that are held.

        charges: All of them.
    """

    requests: Sequence[RequestRecord] = attrs.field(repr=False)
    counts: Mapping[str, int]
    tasks: Mapping[str, TaskView] = attrs.field(repr=False)
    charges: Sequence[Charge] = attrs.field(repr=False)

    def exactly(self, count: int, endpoint: str) -> None:
        """So many requests came to an endpoint (`create`, `get`, ...), well or not."""
        seen = self._count(endpoint)
        if seen != count:
            raise AssertionError(f"{seen} {endpoint} requests came, not {count}")

    def at_most(self, count: int, endpoint: str) -> None:
        """Not more than so many requests came to an endpoint, well or not."""
        seen = self._count(endpoint)
        if seen > count:
            raise AssertionError(f"{seen} {endpoint} requests came, more than {count}")

    def _count(self, endpoint: str) -> int:
        known = (*ENDPOINTS, "file", "unknown")
        if endpoint not in known:
            raise ValueError(f"endpoint must be one of {', '.join(known)}, got {endpoint!r}")
        return self.counts.get(endpoint, 0)

    def exactly_tasks(self, count: int) -> None:
        """So many tasks were made and are still held."""
        if len(self.tasks) != count:
            raise AssertionError(f"there are {len(self.tasks)} tasks, not {count}")

    def no_submit_repeated(self) -> None:
        """No create was sent again after one that may have made a task: only a 4xx says that it has not.

        Two requests for the same count as one that was sent again, so give each its own prompt.
        """
        doubtful: dict[str, RequestRecord] = {}
        for record in self._at("create"):
            first = doubtful.get(record.fingerprint)
            if first is not None:
                raise AssertionError(
                    f"the create of {first.time:g} s ({_fate(first)}) was sent again at {record.time:g} s, "
                    "and may be paid for twice"
                )
            if record.outcome != "refused" and record.status not in _REFUSED:
                doubtful[record.fingerprint] = record

    def polls_apart(self, seconds: float) -> None:
        """No task was polled twice within less than so many seconds.

        aiohttp's own client repeats a poll at once when a kept-alive connection is cut.
        """
        last: dict[str, float] = {}
        for record in self._at("get"):
            gap = record.time - last.get(record.path, -seconds)
            if gap < seconds:
                raise AssertionError(
                    f"the polls at {record.path} at {record.time - gap:g} s and {record.time:g} s are {gap:g} s apart, "
                    f"less than {seconds:g} s"
                )
            last[record.path] = record.time

    def key_only_on(self, *endpoints: str) -> None:
        """The key came to these endpoints, and to no other."""
        self._no_key_beside(endpoints, [(record, record.endpoint) for record in self.requests])

    def key_only_for(self, *hosts: str) -> None:
        """The key came under these host names, and under no other: `127.0.0.1`, without a port."""
        hosted = [(record, record.host.rpartition(":")[0] or record.host) for record in self.requests]
        self._no_key_beside(hosts, hosted)

    def charged_once_each(self) -> None:
        """No task was charged twice, and every completed one that is still held was charged."""
        charged = Counter(charge.task_id for charge in self.charges)
        for task_id, times in charged.items():
            if times > 1:
                raise AssertionError(f"task {task_id} was charged {times} times")
        for task_id, view in self.tasks.items():
            if view.status == "completed" and task_id not in charged:
                raise AssertionError(f"task {task_id} completed and was not charged")

    def all_known(self, task_ids: Iterable[str], *, in_doubt: int = 0) -> None:
        """Nothing that was paid for is lost.

        Args:
            task_ids: The tasks that the client reported, as completed, failed or otherwise.

            in_doubt: How many submits it reported as perhaps accepted. Each may stand for one more task.
        """
        known = set(task_ids)
        strange, lost = known - self.tasks.keys(), self.tasks.keys() - known
        if strange:
            raise AssertionError(f"{_some(strange)} was never made here")
        if len(lost) > in_doubt:
            raise AssertionError(
                f"{len(lost)} of {len(self.tasks)} tasks were not reported, and {in_doubt} submits are in doubt: "
                f"{_some(lost)}"
            )

    def _at(self, endpoint: str) -> list[RequestRecord]:
        return [record for record in self.requests if record.endpoint == endpoint]

    def _no_key_beside(self, allowed: Collection[str], seen: Iterable[tuple[RequestRecord, str]]) -> None:
        for record, where in seen:
            if record.had_key and where not in allowed:
                raise AssertionError(
                    f"{record.method} {record.path} brought a key to {where}, not only to {', '.join(allowed)}"
                )


def _fate(record: RequestRecord) -> str:
    return record.outcome if record.fault is None else f"{record.outcome}, {record.fault}"


def _some(task_ids: Collection[str]) -> str:
    shown = sorted(task_ids)[:3]
    return ", ".join(shown) + ", ..." * (len(task_ids) > len(shown))
