"""A worker is asked to leave by SIGTERM, and not by the pool."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from dspex_pool.transport.port import ExitStatus
from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["Terminate"]


class Terminate(Fault, frozen=True, kw_only=True):
    """A worker is asked to leave by SIGTERM, and not by the pool."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    proof = "its exit with status 0 was seen, and the pool had sent no signal"

    def inject(self, to: Injection) -> Witness:
        """Send it SIGTERM."""
        victim = to.victim(self.worker)
        to.do(victim.end, signal.SIGTERM)
        return lambda: victim.exits(ExitStatus(code=0)) if victim.is_left_alone else []
