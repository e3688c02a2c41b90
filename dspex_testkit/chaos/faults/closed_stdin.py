"""The stdin of a worker is closed behind the back of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.transport.port import ExitStatus
from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["ClosedStdin"]


class ClosedStdin(Fault, frozen=True, kw_only=True):
    """The stdin of a worker is closed behind the back of the pool."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    proof = "it left with status 0, and the pool had asked for nothing of the kind"

    def inject(self, to: Injection) -> Witness:
        """Close it."""
        victim = to.victim(self.worker)
        to.do(victim.close_stdin)
        return lambda: victim.exits(ExitStatus(code=0)) if victim.is_left_alone else []
