"""Whether a figure grows: its slope over time, with the range in which the true one lies."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist, fmean, median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FEWEST", "Slope", "slope_of"]

#: Stretches into which a series is cut. What a process holds at one moment says much of the next, and many samples
#: of the same plateau are no evidence of it; medians of stretches are nearly independent.
STRETCHES: Final = 20
#: Fewer points have no slope.
FEWEST: Final = 4
_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Slope:
    """How a figure changes, as a share of its mean: 0.01 is one per cent of the mean in an hour."""

    #: The mean of the figure, in its unit.
    mean: float
    #: The change in an hour, as a share of the mean.
    per_hour: float
    #: With the confidence asked for, the true one is not below, and not above.
    low: float
    high: float

    @property
    def absolute(self) -> float:
        """The change in an hour, in the unit of the figure."""
        return self.per_hour * self.mean

    def __str__(self) -> str:
        return f"{self.per_hour:+.2%} of the mean an hour (95 %: {self.low:+.2%} to {self.high:+.2%})"


def slope_of(times: Sequence[float], values: Sequence[float], *, confidence: float = 0.95) -> Slope:
    """Return the slope of a series.

    It is the median of the slopes between all pairs of stretches, which a few odd stretches do not move, with the
    range that the signs of those slopes leave.

    Args:
        times: When each value was seen, in seconds, in order.
        values: As many values.
        confidence: How sure the range is to hold the true slope.

    Raises:
        ValueError: There are too few values to tell.

    Source:
        Sen, Estimates of the regression coefficient based on Kendall's tau (1968).
    """
    points = list(_stretches(times, values))
    if len(points) < FEWEST:
        raise ValueError(f"{len(values)} samples have no slope: at least {FEWEST} are needed")
    slopes = sorted(
        (after - before) / (then - at) for (at, before), (then, after) in itertools.combinations(points, 2)
    )
    count, pairs = len(points), len(slopes)
    spread = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * spread
    first = max(0, math.floor((pairs - reach) / 2))
    last = min(pairs - 1, math.ceil((pairs + reach) / 2))
    mean = fmean(values)
    share = _HOUR / mean if mean else 0.0
    return Slope(mean, median(slopes) * share, slopes[first] * share, slopes[last] * share)


def _stretches(times: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """Return a middle moment and the median value of each stretch."""
    every = max(1, math.ceil(len(values) / STRETCHES))
    return [
        (median(times[first : first + every]), median(values[first : first + every]))
        for first in range(0, len(values), every)
    ]
