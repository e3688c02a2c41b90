"""A worker starts, and refuses the handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import Fault, Witness
from dspex_testkit.plan import Plan
from dspex_testkit.ports.orders import HANDSHAKE

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["FailHandshake"]


class FailHandshake(Fault, frozen=True, kw_only=True):
    """A worker starts, and refuses the handshake."""

    #: How many.
    times: int = 1
    proof = "the pool was sent a failure in answer to a handshake"

    def inject(self, to: Injection) -> Witness:
        """Have the next workers refuse it."""
        tap = to.tap(None)
        plan = Plan().fail("no handshake today", type="Refused")
        to.order(plan, worker=None, times=self.times, command=HANDSHAKE)
        return lambda: ["a handshake was refused" for each in tap.passages if b"no handshake" in each.frame]
