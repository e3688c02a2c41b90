"""What came of the calls of a load, counted as they end: in total, by outcome, and over time."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dspex_testkit.load.histogram import Latencies
from dspex_testkit.report.timeline import ANSWERED

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ANSWERED", "NOT_MADE", "WRONG_ANSWER", "Stretch", "Tally"]

#: Outcomes that are no errors of the pool: an answer to another question, and a call that the load could not make.
WRONG_ANSWER: Final = "WrongAnswer"
NOT_MADE: Final = "NotMade"

#: Stretches of time that are told apart at the most.
_MOST: Final = 600


@dataclass(frozen=True, slots=True)
class Stretch:
    """The calls that ended in a stretch of time."""

    #: Seconds since the load began.
    begin: float
    end: float
    answered: int
    others: int
    #: Of those answered, in seconds; zero without any.
    median: float
    p99: float
    longest: float

    @property
    def rate(self) -> float:
        """Calls answered per second."""
        return self.answered / (self.end - self.begin)


class Tally:
    """Counts calls in memory that does not grow with their number.

    Args:
        seconds: How long the load is to last; what ends later belongs to the last stretch.
        on_stretch: Called with each stretch of time that is over.
    """

    def __init__(self, seconds: float, *, on_stretch: Callable[[Stretch], object] | None = None) -> None:
        #: How long answered calls took.
        self.latency = Latencies()
        #: How long the others took, by their outcome.
        self.other_latency: dict[str, Latencies] = {}
        #: How calls ended.
        self.outcomes: Counter[str] = Counter()
        #: The text of the first error of each kind.
        self.texts: dict[str, str] = {}
        #: How much later than intended calls were begun: the load's own delay, which is part of their latency.
        self.delay = Latencies(digits=2)
        self._width = max(1.0, seconds / _MOST)
        self._seconds = seconds
        self._on_stretch = on_stretch
        self._now = Latencies(digits=2)
        self._others = 0
        self._begin = 0.0
        rows = int(seconds / self._width) + 2
        self._columns = [array("d", bytes(8 * rows)) for _ in range(7)]
        self._count = 0

    def answered(self, at: float, seconds: float) -> None:
        """Count a call that was answered."""
        self.advance(at)
        self.outcomes[ANSWERED] += 1
        self.latency.record(seconds)
        self._now.record(seconds)

    def failed(self, at: float, seconds: float, outcome: str, text: str = "") -> None:
        """Count a call that ended otherwise."""
        self.advance(at)
        self.outcomes[outcome] += 1
        self.texts.setdefault(outcome, text)
        if outcome not in self.other_latency:
            self.other_latency[outcome] = Latencies(digits=2)
        self.other_latency[outcome].record(seconds)
        self._others += 1

    def advance(self, at: float) -> None:
        """Close the stretches that are over at a moment."""
        while at >= self._begin + self._width and self._begin + self._width < self._seconds:
            self._close(self._begin + self._width)

    def finish(self, at: float) -> None:
        """Close the last stretch."""
        self.advance(at)
        if at > self._begin:
            self._close(at)

    def stretches(self) -> list[Stretch]:
        """Return the stretches of time that are over, in order."""
        return [self._stretch(number) for number in range(self._count)]

    def _stretch(self, number: int) -> Stretch:
        begin, end, answered, others, median, p99, longest = (column[number] for column in self._columns)
        return Stretch(begin, end, int(answered), int(others), median, p99, longest)

    def _close(self, end: float) -> None:
        now = self._now
        row = (self._begin, end, now.count, self._others, *now.at(50, 99, 100))
        for column, value in zip(self._columns, row, strict=True):
            column[self._count] = value
        self._count += 1
        self._begin, self._others = end, 0
        now.clear()
        if self._on_stretch is not None:
            self._on_stretch(self._stretch(self._count - 1))
