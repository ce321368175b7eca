"""`Account`: what the service says of the account."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from piapi_async import _html


@attrs.frozen(kw_only=True)
class Account:
    """Plan and balance (https://piapi.ai/docs/account-info-api); `None` is what the service did not say.

    Attributes:
        plan: The plan's name, e.g. `"free"`, `"creator"` or `"pro"`; the service may add others.

        balance_usd: What can be spent, in US dollars.

        points_remaining: The same in points, without what is frozen; 10,000,000 are 1 US dollar.

        points_frozen: Points set aside for tasks that are not over.

        points_used: Points charged so far.

        max_concurrent_tasks: How many tasks the account may have in flight at once.
    """

    plan: str | None = None
    balance_usd: float | None = None
    points_remaining: int | None = None
    points_frozen: int | None = None
    points_used: int | None = None
    max_concurrent_tasks: int | None = None
    _json: str = attrs.field(default="{}", eq=False, repr=False, alias="raw", converter=json.dumps)

    @property
    def raw(self) -> Mapping[str, Any]:
        """All that the service sent, untouched. It may hold names and ids."""
        data: dict[str, Any] = json.loads(self._json)
        return data

    def _repr_html_(self) -> str:
        """What is known, as a table in a notebook."""
        return _html.account(self)


def parse_account(data: Mapping[str, Any]) -> Account:
    """The account in `data` of an answer; what has the wrong type counts as not said."""
    wallet = _mapping(data.get("wallet"))
    # Some samples of the documentation have the balance under `quota`.
    balance = data.get("equivalent_in_usd", _mapping(data.get("quota")).get("equivalent_in_usd"))
    plan = data.get("plan")
    return Account(
        plan=plan if isinstance(plan, str) else None,
        balance_usd=_amount(balance),
        points_remaining=_whole(wallet.get("point_remain")),
        points_frozen=_whole(wallet.get("point_frozen")),
        points_used=_whole(wallet.get("point_used")),
        max_concurrent_tasks=_whole(data.get("max_concurrent_task_count")),
        raw=data,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _amount(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return float(value) if is_number else None  # type: ignore[arg-type] # a finite number


def _whole(value: object) -> int | None:
    amount = _amount(value)
    return None if amount is None else int(amount)
