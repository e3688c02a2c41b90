"""Starts never end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["HangStart"]


class HangStart(Fault, frozen=True, kw_only=True):
    """Starts never end."""

    #: How many.
    times: int = 1
    #: Seconds after which a start counts as hanging.
    seconds: float = 1.0
    proof = "a start went on for so long, or was given up after so long"

    def inject(self, to: Injection) -> Witness:
        """Have the next starts hang."""
        starts = to.starts
        before = len(starts.starts)
        to.do(setattr, starts, "hang_starts", self.times)
        to.afterwards(starts.release)
        to.afterwards(setattr, starts, "hang_starts", 0)

        def look() -> list[str]:
            hanging = starts.starts[before:]
            return [
                f"{start.worker_id} hung for {start.held_for:.3g} s"
                for start in hanging
                if start.passed_at is None and start.held_for >= 0.999 * self.seconds
            ]

        return look
