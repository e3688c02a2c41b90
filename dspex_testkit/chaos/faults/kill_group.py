"""A worker is killed with everything that it started."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from dspex_pool.transport.port import ExitStatus
from dspex_testkit.chaos.fault import PROCESS, Fault, Witness
from dspex_testkit.chaos.system import living_in_group, soon

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["KillGroup"]


class KillGroup(Fault, frozen=True, kw_only=True):
    """A worker is killed with everything that it started."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    where = PROCESS
    proof = "its exit by SIGKILL was seen, and no process of its group lives"

    def inject(self, to: Injection) -> Witness:
        """Kill its process group."""
        victim = to.victim(self.worker)
        group = victim.pid
        to.do(os.killpg, group, signal.SIGKILL)
        to.do(victim.expect_end)

        def look() -> list[str]:
            seen = victim.exits(ExitStatus(signal=signal.SIGKILL))
            return seen if seen and soon(lambda: not living_in_group(group)) else []

        return look
