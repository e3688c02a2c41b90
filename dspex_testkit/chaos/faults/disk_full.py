"""The disk is full that the stderr of a worker goes to."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import PROCESS, Fault, Witness
from dspex_testkit.chaos.system import error_of_writing
from dspex_testkit.plan import Deed, Plan

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["DiskFull"]


class DiskFull(Fault, frozen=True, kw_only=True):
    """The disk is full that the stderr of a worker goes to."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    where = PROCESS
    proof = "writing to the file that its stderr leads to returned ENOSPC"

    def inject(self, to: Injection) -> Witness:
        """Have its stderr lead to a full device when it is next asked for something."""
        victim = to.victim(self.worker)
        to.order(Plan(Deed("fill_stderr")), worker=self.worker)
        seen: list[str] = []

        def look() -> list[str]:
            if not seen and error_of_writing(victim.pid, descriptor=2) == errno.ENOSPC:
                seen.append("ENOSPC")
            return seen

        return look
