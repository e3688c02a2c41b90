"""G: a call hangs, and its caller has half a second."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar

import trio

from benchmarks.contenders import PEERS
from benchmarks.figures import Metric
from benchmarks.traffic import Traffic
from benchmarks.workloads.workload import PoolWorkload, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["HangingCall"]


_SETTINGS: Settings = {
    "workers": 4,
    "callers": 7,
    "seconds": 0.005,
    "timeout": 0.5,
    "hang": 3.0,
    "task": "wait",
}


class HangingCall(PoolWorkload):
    """When its caller is free, when all workers serve again, whether the worker was kept, and who else was hurt.

    A deaf one heeds no interrupt, so its worker can only be killed. The call hangs for three seconds, not for ever:
    pools that cannot end it wait it out.
    """

    letter = "G"
    title = "a call hangs for 3 s, timeout 0.5 s, 7 other callers"
    metrics = (
        Metric("caller free after", has_ratio=False),
        Metric("full capacity after that", has_ratio=False),
        Metric("worker kept", "", has_ratio=False),
        Metric("other calls lost", "", has_ratio=False),
    )
    cases: ClassVar[Mapping[str, Settings]] = {
        "4 workers": _SETTINGS,
        "4 workers, deaf": {**_SETTINGS, "task": "deaf"},
    }
    quick: ClassVar[Settings] = {"workers": 2, "callers": 3}
    subjects = ("ours: WorkerPool", "ours: PythonPool", "ours: template", "ours: template, no grace", *PEERS)
    reference = None
    rounds = 3

    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Have one call hang among others."""
        workers, timeout = settings["workers"], settings["timeout"]
        traffic = Traffic(contender, callers=settings["callers"], seconds=settings["seconds"])
        async with trio.open_nursery() as nursery:
            traffic.begin(nursery)
            await traffic.until_served_by(workers, since=0.0, within=10.0)
            before, began = set(traffic.served), trio.current_time()
            with contextlib.suppress(Exception):
                await contender.call(settings["task"], settings["hang"], timeout=timeout)
            free = trio.current_time()
            back = await traffic.until_served_by(workers, since=free, within=2 * settings["hang"])
            others = await traffic.lost(within=1.0)
            nursery.cancel_scope.cancel()
        kept = float(before <= traffic.workers_since(free))
        values = {"caller free after": free - began, "worker kept": kept, "other calls lost": others}
        return values | ({} if back is None else {"full capacity after that": back - free})
