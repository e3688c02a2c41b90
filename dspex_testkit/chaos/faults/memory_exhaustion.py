"""A worker gets no more memory."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import PROCESS, Fault, Witness
from dspex_testkit.chaos.system import address_space_of, lift_limit, set_limit

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["MemoryExhaustion"]


class MemoryExhaustion(Fault, frozen=True, kw_only=True):
    """A worker gets no more memory."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: Bytes that it may still get.
    size: int = 2**22
    where = PROCESS
    proof = "an answer with MemoryError was read, with the limit in force"

    def inject(self, to: Injection) -> Witness:
        """Limit its address space to what it has."""
        victim = to.victim(self.worker)
        tap = to.tap(self.worker)
        limit = address_space_of(victim.pid) + self.size
        to.do(set_limit, victim.pid, resource.RLIMIT_AS, limit)
        to.afterwards(lift_limit, victim.pid, resource.RLIMIT_AS)
        return lambda: ["MemoryError" for each in tap.passages if b'"MemoryError"' in each.frame]
