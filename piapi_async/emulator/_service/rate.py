"""How many requests a second are answered, if there is a limit: a bucket that holds what one second brings."""

from math import ceil

from piapi_async.emulator._service.settings import Settings
from piapi_async.emulator._service.validation import Refusal


class Rate:
    """The limit on the requests of the account.

    Args:
        settings: Has it, as `requests_per_second`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._full_at = 0.0

    def take(self, now: float) -> None:
        """Count a request.

        Raises:
            Refusal: It is one too many. It asks to wait until there is room again, in whole seconds.
        """
        rate = self._settings.current.requests_per_second
        if rate is None:
            return
        full_at = max(self._full_at, now) + 1.0 / rate
        # A bucket of less than one request would let nothing through.
        over = full_at - now - max(1.0, 1.0 / rate)
        if over > 1e-9:  # noqa: PLR2004 - what rounding leaves
            raise Refusal(429, "rate limit exceeded", headers={"Retry-After": str(max(1, ceil(over)))})
        self._full_at = full_at
