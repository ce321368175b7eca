"""What the account endpoints tell: plan, balance, and how many tasks are under way.

Sources: piapi.ai/docs/account-info-api and .../task-list-api for the keys; what stands in `active_tasks` is not shown
there.
"""

from collections import Counter
from typing import Any

from piapi_async.emulator._http.responses import Renderer
from piapi_async.emulator._service.lifecycle import Task
from piapi_async.emulator._service.service import Service

_POINTS_PER_USD = 10_000_000
_PACK_SECONDS = 180 * 24 * 3600.0  # piapi.ai/workspace/billing: credits are valid for 180 days
_PROVIDERS = ("flux", "kling", "luma", "midjourney", "music-s", "music-u")
_OTHER_BALANCES = ("mj_remain", "llm_remain", "suno_remain", "luma_remain", "gpts_remain")


def account_info(service: Service, render: Renderer) -> dict[str, Any]:
    """`data` of `GET /account/info`."""
    wallet, options = service.wallet, service.options
    return {
        "id": 1,
        "name": "emulator",
        "plan": options.plan,
        "type": "user",
        "platform": "piapi",
        "is_enable": True,
        "max_concurrent_task_count": options.places,
        "equivalent_in_usd": wallet.free / _POINTS_PER_USD,
        "wallet": {
            "point_remain": wallet.free,
            "point_frozen": wallet.frozen,
            "point_used": wallet.used,
            **dict.fromkeys(_OTHER_BALANCES, 0),
            "credit_packs": [_pack(service, render)],
        },
        "credit_pack_info": {
            "available_credits": wallet.free,
            "used_credits": wallet.used,
            "total_credits": wallet.free + wallet.frozen + wallet.used,
            "frozen_credits": wallet.frozen,
            "expired_credits": 0,
            "inactive_credits": 0,
        },
    }


def active_tasks(service: Service) -> dict[str, Any]:
    """`data` of `GET /account/active_tasks`: all is Flux here, the other providers are idle."""
    return {name: _active(list(service.alive.values()) if name == "flux" else []) for name in _PROVIDERS}


def _pack(service: Service, render: Renderer) -> dict[str, Any]:
    wallet = service.wallet
    return {
        "active": True,
        "capacity": wallet.free + wallet.frozen + wallet.used,
        "frozen": wallet.frozen,
        "used": wallet.used,
        "effective_at": render.time(0.0),
        "expired_at": render.time(_PACK_SECONDS),
    }


def _active(tasks: list[Task]) -> dict[str, Any]:
    counts = Counter(task.shown_status for task in tasks)
    return {
        **{f"{status}_count": counts[status] for status in ("staged", "pending", "processing")},
        "active_tasks": [{"task_id": task.task_id, "status": task.shown_status} for task in tasks],
    }
