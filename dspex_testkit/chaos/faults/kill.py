"""A worker is killed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from dspex_pool.transport.port import ExitStatus
from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["Kill"]


class Kill(Fault, frozen=True, kw_only=True):
    """A worker is killed."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    proof = "its exit by SIGKILL was seen"

    def inject(self, to: Injection) -> Witness:
        """Kill it."""
        victim = to.victim(self.worker)
        to.do(victim.end, signal.SIGKILL)
        return lambda: victim.exits(ExitStatus(signal=signal.SIGKILL))
