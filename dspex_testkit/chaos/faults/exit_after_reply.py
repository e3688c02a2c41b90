"""A worker dies between its answer and the moment at which the pool hears of its end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from dspex_pool.transport.port import ExitStatus
from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["ExitAfterReply"]


class ExitAfterReply(Fault, frozen=True, kw_only=True):
    """A worker dies between its answer and the moment at which the pool hears of its end."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    proof = "its exit by SIGKILL was seen, and it had written an answer just before"

    def inject(self, to: Injection) -> Witness:
        """Kill it when its next answer is on the line."""
        victim = to.victim(self.worker)
        tap = to.tap(self.worker)

        def change(frame: bytes | None) -> list[tuple[float, bytes | None]]:
            if frame is None:
                return []
            victim.end(signal.SIGKILL)
            return [(0.0, frame)]

        to.do(tap.set_change, lambda: change, 1)
        return lambda: victim.exits(ExitStatus(signal=signal.SIGKILL)) if tap.passages else []
