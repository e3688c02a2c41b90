"""E: how long until every worker has imported DSPy and run a program, and what memory they have then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

import trio

from benchmarks.figures import Metric
from benchmarks.machine import memory_bytes
from benchmarks.workloads.workload import PoolWorkload, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["ColdStart"]


class ColdStart(PoolWorkload):
    """Each round opens a pool of its own. Memory is the proportional set size of all processes below the caller's."""

    letter = "E"
    title = "start with DSPy, to the first program run by every worker"
    metrics = (
        Metric("until all have answered", has_ratio=False),
        Metric("memory of the tree", "bytes", has_ratio=False),
        Metric("memory a worker", "bytes", has_ratio=False),
    )
    cases: ClassVar[Mapping[str, Settings]] = {
        f"{count} worker{'s' * (count > 1)}": {"workers": count} for count in (1, 4, 16)
    }
    quick: ClassVar[Settings] = {"workers": 2}
    subjects = (
        "ours: PythonPool",
        "ours: template",
        "ProcessPoolExecutor",
        "ProcessPoolExecutor, forkserver",
        "loky",
        "trio-parallel",
        "Ray actors",
        "Dask",
    )
    reference = None
    rounds = 2
    opens_each_round = True
    is_warm = False

    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Have programs run until every worker has run one."""
        workers = settings["workers"]
        seen: set[int] = set()

        async def ask() -> None:
            seen.add(await contender.call("predict", 0.02))

        while len(seen) < workers:
            async with trio.open_nursery() as nursery:
                for _ in range(workers):
                    nursery.start_soon(ask)
        taken = time.perf_counter() - settings["began"]
        memory = {pid: memory_bytes(pid) for pid in contender.worker_pids()}
        return {
            "until all have answered": taken,
            "memory of the tree": sum(memory.values()),
            "memory a worker": sum(memory.get(pid, 0) for pid in seen) / len(seen),
        }
