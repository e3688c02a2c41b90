"""A worker keeps memory that it does not need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import PROCESS, Fault, Witness
from dspex_testkit.plan import Deed, Plan

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["MemoryLeak"]


class MemoryLeak(Fault, frozen=True, kw_only=True):
    """A worker takes memory with an answer, and keeps it."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: How much.
    size: int = 2**24
    where = PROCESS
    proof = "its resident memory was read before and after, and had grown by so much"

    def inject(self, to: Injection) -> Witness:
        """Have it take the memory when it is next asked for something; that is answered as always."""
        victim = to.victim(self.worker)
        before = victim.resident_bytes
        to.order(Plan(Deed("leak", {"bytes": self.size})), worker=self.worker)
        seen: list[str] = []

        def look() -> list[str]:
            grown = victim.resident_bytes - before
            # Of what it had before, the system may have taken a little back.
            if not seen and grown >= 0.9 * self.size:
                seen.append(f"{grown} bytes more than before")
            return seen

        return look
