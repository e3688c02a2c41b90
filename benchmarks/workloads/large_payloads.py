"""C: one caller sends a long text and gets it back."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders import OURS, PEERS, RAW
from benchmarks.figures import Metric
from benchmarks.workloads.workload import PoolWorkload, Settings, affordable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender

__all__ = ["LargePayloads"]


class LargePayloads(PoolWorkload):
    """Bytes that go there and back in a second; each counts once."""

    letter = "C"
    title = "long texts, one caller"
    metrics = (Metric("throughput", "B/s", more_is_better=True),)
    cases: ClassVar[Mapping[str, Settings]] = {
        "1 MiB": {"workers": 1, "bytes": 2**20},
        "16 MiB": {"workers": 1, "bytes": 2**24},
    }
    rounds = 3
    subjects = (RAW, *(name for name in OURS if "telemetry" not in name), *PEERS)

    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Call one after the other."""
        text = "x" * settings["bytes"]
        (first,) = await contender.one_by_one("echo", text, 1)
        taken = await contender.one_by_one("echo", text, affordable(first, 0.2, most=50, least=2))
        return {"throughput": settings["bytes"] / statistics.median(taken)}
