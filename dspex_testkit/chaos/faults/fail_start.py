"""Starts fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.errors import WorkerStartError
from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["FailStart"]


class FailStart(Fault, frozen=True, kw_only=True):
    """Starts fail."""

    #: How many.
    times: int = 1
    proof = "a start ended with WorkerStartError"

    def inject(self, to: Injection) -> Witness:
        """Have the next starts fail."""
        starts = to.starts
        before = len(starts.starts)
        to.do(setattr, starts, "fail_starts", self.times)
        to.afterwards(setattr, starts, "fail_starts", 0)

        def look() -> list[str]:
            failed = [start for start in starts.starts[before:] if start.outcome == WorkerStartError.__name__]
            return [f"{start.worker_id} did not start" for start in failed]

        return look
