"""What can be counted in a timeline: latencies and their percentiles, and how many calls ended when."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dspex_testkit.report.timeline import ANSWERED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dspex_testkit.report.timeline import Call, Timeline

__all__ = ["PERCENTILES", "Bucket", "buckets_of", "percentile"]

#: The percentiles that are shown.
PERCENTILES: Final = (50.0, 90.0, 99.0, 100.0)

#: Stretches of time that are counted, at the most.
_BUCKETS: Final = 40


@dataclass(frozen=True, slots=True)
class Bucket:
    """The calls that ended in a stretch of time."""

    begin: float
    end: float
    #: How many were answered, and how many ended otherwise.
    answered: int
    others: int
    #: Median and longest latency of all of them, in seconds; zero without any.
    median: float
    longest: float

    @property
    def rate(self) -> float:
        """Calls answered per second."""
        return self.answered / (self.end - self.begin)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of ``values`` that at least ``percent`` of them do not exceed; zero of none."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def buckets_of(timeline: Timeline, edges: Sequence[float]) -> list[Bucket]:
    """Count the calls by stretches of time, each of which has about as many of ``edges`` within it as the others."""
    every = max(1, math.ceil((len(edges) - 1) / _BUCKETS))
    edges = sorted({*edges[::every], edges[-1]})
    calls = sorted(timeline.calls, key=lambda call: call.ended)
    buckets, taken = [], 0
    for begin, end in itertools.pairwise(edges):
        first = taken
        while taken < len(calls) and calls[taken].ended <= end:
            taken += 1
        buckets.append(_bucket(begin, end, calls[first:taken]))
    return buckets


def _bucket(begin: float, end: float, calls: Iterable[Call]) -> Bucket:
    ended = list(calls)
    answered = sum(call.outcome == ANSWERED for call in ended)
    latencies = [call.seconds for call in ended]
    return Bucket(
        begin,
        end,
        answered,
        len(ended) - answered,
        percentile(latencies, 50),
        max(latencies, default=0.0),
    )
