"""Starts take longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["SlowStart"]


class SlowStart(Fault, frozen=True, kw_only=True):
    """Starts take longer."""

    #: Seconds that each takes longer while the fault lasts.
    seconds: float
    proof = "a start that began meanwhile was held back for so long"

    def inject(self, to: Injection) -> Witness:
        """Delay starts."""
        starts = to.starts
        before = len(starts.starts)
        to.do(setattr, starts, "start_delay", self.seconds)
        to.afterwards(setattr, starts, "start_delay", 0.0)

        def look() -> list[str]:
            held = (start.held_for for start in starts.starts[before:])
            return [
                f"a start was held for {seconds:.3g} s" for seconds in held if seconds >= 0.999 * self.seconds
            ]

        return look
