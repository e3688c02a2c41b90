"""A worker does not heed SIGINT any more, so that no call of it can be cancelled."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import Fault, Witness
from dspex_testkit.plan import Deed, Plan

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["IgnoreInterrupts"]


class IgnoreInterrupts(Fault, frozen=True, kw_only=True):
    """A worker does not heed SIGINT any more, so that no call of it can be cancelled."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    proof = "its table of ignored signals was read"

    def inject(self, to: Injection) -> Witness:
        """Have it ignore SIGINT when it is next asked for something; that is answered as always."""
        victim = to.victim(self.worker)
        to.order(Plan(Deed("ignore_interrupts")), worker=self.worker)
        seen: list[str] = []

        def look() -> list[str]:
            if not seen and victim.ignores(signal.SIGINT):
                seen.append("SIGINT is ignored")
            return seen

        return look
