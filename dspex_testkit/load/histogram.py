"""Durations in a fixed amount of memory, however many there are, and their percentiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hdrh.histogram import HdrHistogram

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PERCENTILES", "Latencies"]

#: The percentiles that are shown; the last is the longest of all.
PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)

#: Durations are kept as whole microseconds.
_IN_A_SECOND: Final = 1_000_000
#: The longest duration that is told apart from longer ones: an hour.
_LONGEST: Final = 3600 * _IN_A_SECOND


class Latencies:
    """A histogram of durations in seconds, from a microsecond to an hour.

    Args:
        digits: Significant digits that are kept. A histogram of three has 0.2 MB, one of two 0.03 MB.
    """

    def __init__(self, *, digits: int = 3) -> None:
        self._histogram = HdrHistogram(1, _LONGEST, digits)

    def record(self, seconds: float) -> None:
        """Count a duration."""
        self._histogram.record_value(min(_LONGEST, max(1, round(seconds * _IN_A_SECOND))))

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return int(self._histogram.get_total_count())

    @property
    def mean(self) -> float:
        """Their mean, in seconds; zero of none."""
        return self._histogram.get_mean_value() / _IN_A_SECOND if self.count else 0.0

    @property
    def longest(self) -> float:
        """The longest, in seconds; zero of none."""
        return self.percentile(100)

    def percentile(self, percent: float) -> float:
        """Return the duration in seconds that ``percent`` of them do not exceed; zero of none."""
        return self.at(percent)[0]

    def at(self, *percents: float) -> list[float]:
        """Return several percentiles in seconds, in one walk over the histogram; zeros of none."""
        if not self.count:
            return [0.0] * len(percents)
        found = self._histogram.get_percentile_to_value_dict(percents)
        return [found[percent] / _IN_A_SECOND for percent in percents]

    def percentiles(self) -> Mapping[str, float]:
        """Return those that are shown, by name: ``p50``, …, ``longest``."""
        names = [f"p{p:g}" if p < 100 else "longest" for p in PERCENTILES]
        return dict(zip(names, self.at(*PERCENTILES), strict=True))

    def clear(self) -> None:
        """Forget all of them."""
        self._histogram.reset()
