"""L: how long until workers that are added to a running pool have answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import trio

from benchmarks.figures import Metric
from benchmarks.traffic import Traffic
from benchmarks.workloads.workload import PoolWorkload, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["FurtherWorkers"]


class _Growing(Protocol):
    """A contender that can be made bigger."""

    def resize(self, workers: int) -> None:
        """Have so many workers from now on."""


class FurtherWorkers(PoolWorkload):
    """From the order to grow until each of the new workers has answered a call, in a pool of one that is busy.

    With a template that is what a fork costs: it stands. Otherwise it is a cold start, without DSPy.
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
        """Add workers under calls of a millisecond, of which there is one for each worker."""
        workers = 1 + settings["more"]
        traffic = Traffic(contender, callers=workers, seconds=0.001)
        async with trio.open_nursery() as nursery:
            traffic.begin(nursery)
            await traffic.until_served_by(1, since=0.0, within=10.0)
            began = trio.current_time()
            cast("_Growing", contender).resize(workers)
            ended = await traffic.until_served_by(workers, since=0.0, within=30.0)
            nursery.cancel_scope.cancel()
        return {} if ended is None else {"until all have answered": ended - began}
