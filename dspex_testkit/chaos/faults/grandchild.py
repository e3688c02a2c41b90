"""A worker leaves a process of its own behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import PROCESS, Fault, Witness
from dspex_testkit.chaos.system import children_of
from dspex_testkit.plan import Deed, Plan

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["Grandchild"]


class Grandchild(Fault, frozen=True, kw_only=True):
    """A worker leaves a process of its own behind."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: Seconds that it lives unless it is ended.
    seconds: float = 60.0
    where = PROCESS
    proof = "a living child of the worker was seen in the process table"

    def inject(self, to: Injection) -> Witness:
        """Have it start one when it is next asked for something; that is answered as always."""
        victim = to.victim(self.worker)
        known = set(children_of(victim.pid))
        to.order(Plan(Deed("grandchild", {"seconds": self.seconds})), worker=self.worker)
        seen: list[str] = []

        def look() -> list[str]:
            if not seen:
                seen.extend(f"process {pid}" for pid in children_of(victim.pid) if pid not in known)
            return seen

        return look
