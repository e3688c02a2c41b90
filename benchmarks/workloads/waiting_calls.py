"""D: calls that wait, as those to a language model do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from benchmarks.figures import Metric
from benchmarks.workloads.workload import PoolWorkload, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["WaitingCalls"]


class WaitingCalls(PoolWorkload):
    """What a pool adds to the time that its workers need in any case."""

    letter = "D"
    title = "200 calls of 50 ms each, 200 callers"
    metrics = (
        Metric("beyond the waiting"),
        Metric("efficiency", "", more_is_better=True, has_ratio=False),
    )
    cases: ClassVar[Mapping[str, Settings]] = {"16 workers": {"workers": 16, "count": 200, "seconds": 0.05}}
    quick: ClassVar[Settings] = {"workers": 2, "count": 10}
    rounds = 3

    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Call all together; the least time is that of as many waves as it takes."""
        count, seconds = settings["count"], settings["seconds"]
        least = math.ceil(count / settings["workers"]) * seconds
        taken = await contender.together("wait", seconds, count=count, callers=count)
        return {"beyond the waiting": taken - least, "efficiency": least / taken}
