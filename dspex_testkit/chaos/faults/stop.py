"""A worker is stopped, and goes on after a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["Stop"]


class Stop(Fault, frozen=True, kw_only=True):
    """A worker is stopped, and goes on after a while."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: Seconds until it goes on, if the block has not ended before.
    seconds: float
    proof = "its state was seen to be T"

    def inject(self, to: Injection) -> Witness:
        """Stop it."""
        victim = to.victim(self.worker)
        to.do(victim.stop)
        to.later(self.seconds, victim.go_on)
        to.afterwards(victim.go_on)
        to.do(victim.comes_to, "T")
        state = victim.state()
        return lambda: [f"state {state}"] if state == "T" else []
