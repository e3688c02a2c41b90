"""A worker ends by itself instead of answering."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.transport.port import ExitStatus
from dspex_testkit.chaos.fault import Fault, Witness
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["ExitWith"]


class ExitWith(Fault, frozen=True, kw_only=True):
    """A worker ends by itself instead of answering."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: Its exit status.
    code: int = 3
    proof = "its exit with this status was seen"

    def inject(self, to: Injection) -> Witness:
        """Have it leave when it is next asked for something."""
        victim = to.victim(self.worker)
        to.order(Plan().die(code=self.code), worker=self.worker)
        return lambda: victim.exits(ExitStatus(code=self.code))
