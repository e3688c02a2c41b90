"""A: one caller sends 200 bytes and waits for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders import OURS, PEERS, RAW
from benchmarks.figures import Metric, percentile
from benchmarks.machine import cpu_seconds, pin_tree, processors
from benchmarks.workloads.workload import PoolWorkload, Settings, affordable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["OneCaller"]


class OneCaller(PoolWorkload):
    """The time of a call that does nothing. On one processor the two processes take turns, which is steadier.

    On a busy machine the processor time of both sides is steadier still: it leaves out what others took.
    """

    letter = "A"
    title = "200-byte echo, one caller"
    metrics = (Metric("p50"), Metric("p99"), Metric("CPU of both"))
    cases: ClassVar[Mapping[str, Settings]] = {
        "one processor": {"workers": 1, "is_pinned": True, "count": 2000},
        "free processors": {"workers": 1, "is_pinned": False, "count": 2000},
    }
    quick: ClassVar[Settings] = {"count": 200}
    subjects = (RAW, *OURS, *PEERS)
    rounds = 5

    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Call one after the other."""
        allowed = processors()
        if settings["is_pinned"]:
            pin_tree(allowed[-1:])
        try:
            first = await contender.one_by_one("echo", "x" * 200, 40)
            count = affordable(sum(first) / len(first), 0.2, most=settings["count"], least=100)
            pids = (os.getpid(), *contender.worker_pids())
            before = sum(map(cpu_seconds, pids))
            taken = await contender.one_by_one("echo", "x" * 200, count)
            cpu = sum(map(cpu_seconds, pids)) - before
        finally:
            pin_tree(allowed)
        return {"p50": percentile(taken, 0.5), "p99": percentile(taken, 0.99), "CPU of both": cpu / count}
