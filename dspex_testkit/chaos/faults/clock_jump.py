"""The clock jumps ahead, and all deadlines on the way come at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.testing import MockClock

from dspex_testkit.chaos.fault import SIM, Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["ClockJump"]


class ClockJump(Fault, frozen=True, kw_only=True):
    """The clock jumps ahead, and all deadlines on the way come at once."""

    #: How far.
    seconds: float
    where = SIM
    proof = "the clock was read before and after, while nothing else could run"

    def inject(self, to: Injection) -> Witness:
        """Jump."""
        before = trio.current_time()
        to.do(jump, self.seconds)
        jumped = trio.current_time() - before
        return lambda: [f"the clock jumped {jumped:g} s"] if jumped >= self.seconds else []


def jump(seconds: float) -> None:
    """Have the simulated clock of this run jump."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock), "only a simulated clock can jump"
    clock.jump(seconds)
