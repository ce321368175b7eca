"""The time of an emulator: seconds since it was started, standing still while it does not run."""

from piapi_async._asyncio import Clock


class Stopwatch:
    """Starts at 0, and goes on from where it stopped.

    Args:
        clock: What it reads while it runs; it is left alone otherwise, as a stopped emulator has no loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stopped_at = 0.0
        self._origin: float | None = None
        self.epoch = 0.0
        """What second 0 is, in seconds since 1970; known from the first start on."""

    def start(self) -> None:
        """Let it run."""
        self.epoch = self._clock.now() - self._stopped_at
        self._origin = self._clock.monotonic() - self._stopped_at

    def stop(self) -> None:
        """Let it stand still."""
        self._stopped_at, self._origin = self.now(), None

    def now(self) -> float:
        """Seconds since the first start, without the pauses."""
        return self._stopped_at if self._origin is None else self._clock.monotonic() - self._origin
