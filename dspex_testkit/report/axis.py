"""The axis of time in a picture: long pauses are cut short, and a moment in which much happens is given room."""

from __future__ import annotations

import bisect
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dspex_testkit.report.timeline import Mark, Timeline

__all__ = ["Axis"]

#: A pause is drawn at most so many times as long as the median of all pauses.
_LONGEST: Final = 4.0
#: Of the longest pause, what a further thing at the same moment takes.
_STEP: Final = 0.06
#: Things at one moment that are given room at the most.
_CROWD: Final = 8


class Axis:
    """Where each moment is drawn, from 0 to 1.

    Args:
        moments: Every moment at which something happens, in order, each once.
        crowds: Of moments at which several things happen in one lane, how many.
    """

    def __init__(self, moments: Sequence[float], crowds: dict[float, int] | None = None) -> None:
        self.moments = list(moments) or [0.0]
        gaps = [after - before for before, after in zip(self.moments, self.moments[1:], strict=False)]
        #: A pause that is longer than this is cut.
        self.longest = _LONGEST * median(gaps) if gaps else 0.0
        step = _STEP * (self.longest or 1.0)
        places = [0.0]
        for at, gap in zip(self.moments, [*gaps, 0.0], strict=True):
            room = step * (min((crowds or {}).get(at, 1), _CROWD) - 1)
            places.append(places[-1] + min(gap, self.longest) + room)
        whole = places.pop() or 1.0
        self._places = [place / whole for place in places]
        self._step = step / whole
        #: The pauses that are cut: between which moments.
        self.cuts = [
            (before, before + gap)
            for before, gap in zip(self.moments, gaps, strict=False)
            if gap > self.longest > 0
        ]

    @classmethod
    def of(cls, timeline: Timeline) -> Axis:
        """Return the axis for a whole timeline."""
        spans, marks = timeline.spans, timeline.marks
        moments = {round(at, 6) for span in spans for at in (span.begin, span.end)}
        moments |= {round(mark.at, 6) for mark in marks} | {round(timeline.verdict.at, 6)}
        crowds: dict[float, int] = {}
        for (at, _), count in Counter((round(mark.at, 6), mark.lane) for mark in marks).items():
            crowds[at] = max(count, crowds.get(at, 0))
        return cls(sorted(moments), crowds)

    def place(self, at: float, rank: int = 0) -> float:
        """Return where a moment is drawn; between those that the axis knows, in proportion.

        Args:
            at: The moment.
            rank: How many things happen in the same lane before, at the same moment.
        """
        right = bisect.bisect_left(self.moments, at - 1e-6)
        if right >= len(self.moments):
            return 1.0
        if right == 0 or abs(self.moments[right] - at) < 2e-6:
            return min(1.0, self._places[right] + min(rank, _CROWD - 1) * self._step)
        before, after = self.moments[right - 1], self.moments[right]
        share = (at - before) / (after - before)
        return self._places[right - 1] + share * (self._places[right] - self._places[right - 1])

    def ticks(self, count: int) -> list[float]:
        """Return about ``count`` moments to be labelled, spread over the axis."""
        ticks: list[float] = []
        last = -1.0
        for at, place in zip(self.moments, self._places, strict=True):
            if place - last >= 1.0 / count:
                ticks.append(at)
                last = place
        return ticks


def ranked(marks: Iterable[Mark]) -> list[tuple[Mark, int]]:
    """Return each mark with how many marks of its lane come before it at the same moment."""
    seen: Counter[tuple[float, str]] = Counter()
    found = []
    for mark in marks:
        where = round(mark.at, 6), mark.lane
        found.append((mark, seen[where]))
        seen[where] += 1
    return found
