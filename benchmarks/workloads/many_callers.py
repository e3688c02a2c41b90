"""B: many callers share a few workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from benchmarks.figures import Metric
from benchmarks.machine import cpu_seconds
from benchmarks.workloads.workload import PoolWorkload, Settings, affordable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["ManyCallers"]


class ManyCallers(PoolWorkload):
    """Throughput of calls that do nothing, and what each costs on either side."""

    letter = "B"
    title = "200-byte echo, 64 callers"
    metrics = (
        Metric("calls a second", "/s", more_is_better=True),
        Metric("CPU of the caller"),
        Metric("CPU of the worker"),
    )
    cases: ClassVar[Mapping[str, Settings]] = {
        "2 workers": {"workers": 2, "callers": 64, "count": 20_000},
        "4 workers": {"workers": 4, "callers": 64, "count": 20_000},
    }
    quick: ClassVar[Settings] = {"count": 640}

    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Call all together, once to warm up."""
        callers = settings["callers"]
        first = await contender.together("echo", "x" * 200, count=4 * callers, callers=callers)
        count = affordable(first / (4 * callers), 0.3, most=settings["count"], least=4 * callers)
        pids = contender.worker_pids()
        own, theirs = cpu_seconds(os.getpid()), sum(map(cpu_seconds, pids))
        seconds = await contender.together("echo", "x" * 200, count=count, callers=callers)
        return {
            "calls a second": count / seconds,
            "CPU of the caller": (cpu_seconds(os.getpid()) - own) / count,
            "CPU of the worker": (sum(map(cpu_seconds, pids)) - theirs) / count,
        }
