"""Shedding load by the time spent in line: controlled delay, as databases' pools use it."""

from __future__ import annotations

__all__ = ["ControlledDelay"]


class ControlledDelay:
    """Decides which waiters to turn away when the line is slow.

    If in one whole interval everybody waited longer than the target, the pool is overloaded; then whoever has waited
    for twice the target is turned away when its turn comes, until an interval sees a short wait again. So a
    burst passes, and a standing queue does not make everybody late.

    Args:
        target: Acceptable wait, in seconds.
        interval: Seconds over which the shortest wait is judged.
    """

    def __init__(self, *, target: float, interval: float) -> None:
        self._target = target
        self._interval = interval
        self._ends_at = float("-inf")
        self._shortest = 0.0
        #: Whether the last whole interval was slow throughout.
        self.is_overloaded = False

    def sheds(self, waited: float, now: float) -> bool:
        """Note a waiter whose turn has come after ``waited`` seconds; tell whether to turn it away.

        A worker that comes free for nobody is noted as a wait of none.
        """
        if now >= self._ends_at:
            self.is_overloaded = self._shortest > self._target
            self._ends_at = now + self._interval
            self._shortest = waited
        else:
            self._shortest = min(self._shortest, waited)
        return self.is_overloaded and waited > 2 * self._target
