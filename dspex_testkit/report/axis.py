"""The axis of time in a picture: long pauses are cut short, and what happens at one moment is drawn side by side."""

from __future__ import annotations

import bisect
import itertools
from statistics import median
from typing import TYPE_CHECKING, Final

from dspex_testkit.report.timeline import MOMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dspex_testkit.report.timeline import Timeline

__all__ = ["Axis"]

#: A pause is drawn at most so many times as long as the median of all pauses.
_LONGEST: Final = 4.0
#: Of the longest pause: what a further thing at the same moment takes, and what all of them together may take.
_STEP, _CROWD = 0.12, 1.5


class Axis:
    """Where each moment is drawn, from 0 to 1.

    Args:
        moments: Every moment at which something happens, in order, each once.
    """

    def __init__(self, moments: Sequence[float]) -> None:
        self.moments = list(moments) or [0.0]
        gaps = [after - before for before, after in itertools.pairwise(self.moments)]
        pauses = [gap for gap in gaps if gap > MOMENT]
        #: A pause that is longer than this is cut.
        self.longest = _LONGEST * median(pauses) if pauses else 1.0
        places = [0.0, *itertools.accumulate(self._widths(gaps))]
        self._places = [place / (places[-1] or 1.0) for place in places]
        #: The pauses that are cut: between which moments.
        self.cuts = [
            (before, after)
            for before, after in itertools.pairwise(self.moments)
            if after - before > self.longest
        ]

    @classmethod
    def of(cls, timeline: Timeline) -> Axis:
        """Return the axis for a whole timeline."""
        moments = {at for span in timeline.spans for at in (span.begin, span.end)}
        return cls(sorted(moments | {mark.at for mark in timeline.marks} | {timeline.verdict.at}))

    @classmethod
    def even(cls, begin: float, end: float, count: int = 200) -> Axis:
        """Return an axis on which time is as long as it was."""
        step = (end - begin) / count
        return cls([begin + number * step for number in range(count + 1)])

    def _widths(self, gaps: Sequence[float]) -> Iterator[float]:
        """Return how wide each pause is drawn."""
        for is_pause, group in itertools.groupby(gaps, key=lambda gap: gap > MOMENT):
            together = list(group)
            step = self.longest * min(_STEP, _CROWD / len(together))
            yield from (min(gap, self.longest) if is_pause else step for gap in together)

    def place(self, at: float) -> float:
        """Return where a moment is drawn; between those that the axis knows, in proportion."""
        right = bisect.bisect_left(self.moments, at)
        if right >= len(self.moments):
            return 1.0
        if right == 0 or self.moments[right] == at:
            return self._places[right]
        before, after = self.moments[right - 1], self.moments[right]
        share = (at - before) / (after - before)
        return self._places[right - 1] + share * (self._places[right] - self._places[right - 1])

    def edges(self) -> list[float]:
        """Return where stretches of time end that can be measured: the begin, and the last thing of each moment."""
        edges = [self.moments[0]]
        for at, after in itertools.zip_longest(self.moments, self.moments[1:], fillvalue=float("inf")):
            if after - at > MOMENT and at - edges[0] > MOMENT:
                edges.append(at)
        return edges

    def ticks(self, count: int) -> list[float]:
        """Return at most ``count`` moments to be labelled, spread over the axis; of what is one moment, the first."""
        ticks: list[float] = []
        last, moment = -1.0, -1.0
        for at, place in zip(self.moments, self._places, strict=True):
            if place - last >= 1.0 / count and at - moment > MOMENT:
                ticks.append(at)
                last = place
            moment = at
        return ticks
