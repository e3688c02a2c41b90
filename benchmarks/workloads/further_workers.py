"""L: how long until workers that are added to a running pool have answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import trio

from benchmarks.figures import Metric
from benchmarks.workloads.workload import PoolWorkload, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["FurtherWorkers"]


class _Growing(Protocol):
    """A contender that can be made bigger."""

    async def grow(self, workers: int) -> None:
        """Have so many workers from now on; return when each has answered a call."""


class FurtherWorkers(PoolWorkload):
    """From the order to grow until each worker, the first too, has answered a call, in a pool of one that is idle.

    Who calls keeps his worker until all are there, so nothing is measured but the new ones. With a template that is
    what a fork costs: it stands. Otherwise it is a cold start, without DSPy.
    """

    letter = "L"
    title = "workers added to a pool of one"
    metrics = (Metric("until all have answered", has_ratio=False),)
    cases: ClassVar[Mapping[str, Settings]] = {
        "1 more": {"workers": 1, "more": 1},
        "16 more": {"workers": 1, "more": 16},
    }
    quick: ClassVar[Settings] = {"more": 1}
    subjects = ("ours: PythonPool", "ours: template")
    reference = None
    opens_each_round = True

    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Have one caller for each worker."""
        began = trio.current_time()
        with trio.move_on_after(30.0):
            await cast("_Growing", contender).grow(1 + settings["more"])
            return {"until all have answered": trio.current_time() - began}
        return {}
