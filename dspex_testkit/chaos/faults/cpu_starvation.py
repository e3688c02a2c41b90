"""A worker gets one processor, behind others that never rest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import PROCESS, Fault, Witness
from dspex_testkit.chaos.system import end_burners, feed, has_burnt, is_starved, soon, start_burner, starve

if TYPE_CHECKING:
    import subprocess

    from dspex_testkit.chaos.injection import Injection

__all__ = ["CpuStarvation"]


class CpuStarvation(Fault, frozen=True, kw_only=True):
    """A worker gets one processor, behind others that never rest."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: How many others.
    burners: int = 1
    where = PROCESS
    proof = "its only processor and its niceness were read from the system, and the others had used that processor"

    def inject(self, to: Injection) -> Witness:
        """Bind it to a processor with busy processes that come first."""
        victim = to.victim(self.worker)
        processor = min(os.sched_getaffinity(0))
        before = to.do(starve, victim.pid, processor)
        if before is not None:
            to.afterwards(feed, victim.pid, before)
        others: list[subprocess.Popen[bytes]] = []
        # Before the first is started: the next may not be.
        to.afterwards(end_burners, others)
        for _ in range(self.burners):
            others.append(to.do(start_burner, processor))
        seen: list[str] = []

        def look() -> list[str]:
            if not seen and is_starved(victim.pid, processor) and soon(lambda: all(map(has_burnt, others))):
                seen.append(f"bound to processor {processor} behind {len(others)} others")
            return seen

        return look
