"""When a worker may be started: back-off after failures, and the breaker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

__all__ = ["StartPolicy"]


class StartPolicy:
    """Decides how many starts may be in flight.

    While the last start has failed, one designated start at a time is tried, after a random delay whose upper
    end doubles with each failure. The first success lifts all limits. The breaker opens when starts have failed
    for ``breaker_after`` seconds and no worker is in service; slow starts are no failures.
    """

    def __init__(
        self,
        *,
        max_starting: int,
        backoff_min: float,
        backoff_max: float,
        breaker_after: float,
        spawn_timeout: float,
        random: random.Random,
    ) -> None:
        self._max_starting = max_starting
        self._backoff_min = backoff_min
        self._backoff_max = backoff_max
        self._breaker_after = breaker_after
        self._memory = backoff_max + spawn_timeout + breaker_after
        self._random = random
        self._failed_at = float("-inf")
        self._failing_since: float | None = None
        #: Failures since the last success.
        self.failures = 0
        #: When the designated start may be tried.
        self.retry_at = float("-inf")
        #: Whether the breaker is open.
        self.is_open = False
        #: The error of the last start, if it failed.
        self.last_error: BaseException | None = None

    def failed(self, now: float, error: BaseException | None) -> float:
        """Note a failed start and return the seconds until the next may be tried."""
        self.failures += 1
        self.last_error = error or self.last_error
        # A failure long after the last one begins a new story: nothing was tried, so nothing failed, between.
        if self._failing_since is None or now - self._failed_at > self._memory:
            self._failing_since = now
            self.failures = 1
        self._failed_at = now
        # Capping the exponent keeps the power finite after thousands of failures.
        highest = min(self._backoff_max, self._backoff_min * 2.0 ** min(self.failures, 60))
        delay = self._random.uniform(self._backoff_min, highest)
        self.retry_at = now + delay
        return delay

    def succeeded(self) -> bool:
        """Note a worker that became ready; tell whether that closed the breaker."""
        was_open = self.is_open
        self.failures = 0
        self.retry_at = float("-inf")
        self.is_open = False
        self._failing_since = None
        self.last_error = None
        return was_open

    def allowance(self, now: float, starting: int) -> int:
        """Return how many more starts may begin now, with ``starting`` in flight."""
        if not self.failures:
            return self._max_starting - starting
        return 1 if starting == 0 and now >= self.retry_at else 0

    def trip(self, now: float, ready: int) -> bool:
        """Open the breaker if it is time, with ``ready`` workers in service; tell whether it opened now."""
        since = self._failing_since
        if self.is_open or ready or since is None or now - self._failed_at > self._memory:
            return False
        # From failure to failure, not until now: after one failure without another try, starts may well succeed.
        if self._failed_at - since < self._breaker_after:
            return False
        self.is_open = True
        return True
