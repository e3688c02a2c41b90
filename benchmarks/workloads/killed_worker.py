"""F: a busy worker is killed under eight callers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, ClassVar

import trio

from benchmarks.contenders import PEERS
from benchmarks.figures import Metric
from benchmarks.traffic import Traffic
from benchmarks.workloads.start_up import ask_worker
from benchmarks.workloads.workload import PoolWorkload, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["KilledWorker"]


class KilledWorker(PoolWorkload):
    """Calls that fail or are never answered, and the time until as many workers serve as before.

    Each round opens a pool of its own, because some do not survive.
    """

    letter = "F"
    title = "SIGKILL of a busy worker, 8 callers with calls of 10 ms"
    metrics = (
        Metric("calls lost", "", has_ratio=False),
        Metric("until full capacity", has_ratio=False),
        Metric("a cold start beside it", has_ratio=False),
    )
    cases: ClassVar[Mapping[str, Settings]] = {"4 workers": {"workers": 4, "callers": 8, "seconds": 0.01}}
    quick: ClassVar[Settings] = {"workers": 2, "callers": 4}
    subjects = (
        "ours: WorkerPool",
        "ours: PythonPool",
        "ours: idempotent calls",
        "ours: template",
        *PEERS,
    )
    reference = None
    rounds = 3
    opens_each_round = True

    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Kill one, and look on."""
        workers = settings["workers"]
        traffic = Traffic(contender, callers=settings["callers"], seconds=settings["seconds"])
        async with trio.open_nursery() as nursery:
            traffic.begin(nursery)
            await traffic.until_served_by(workers, since=0.0, within=10.0)
            busy = max(traffic.served, key=traffic.served.__getitem__)
            # There are more callers than workers, so this one has begun its next call: now it is in the midst of it.
            await trio.sleep(settings["seconds"] / 2)
            killed = trio.current_time()
            os.kill(busy, signal.SIGKILL)
            back = await traffic.until_served_by(workers, since=killed, within=3.0)
            lost = await traffic.lost(within=1.0)
            cold = await trio.to_thread.run_sync(ask_worker, "hold", settings["seconds"])
            nursery.cancel_scope.cancel()
        return {"calls lost": lost, "a cold start beside it": cold} | (
            {} if back is None else {"until full capacity": back - killed}
        )
