"""When calls arrive: schedules in seconds, drawn from a seed, one arrival at a time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["Arrivals", "Constant", "Poisson", "Ramp", "Spike"]


class Arrivals(Protocol):
    """A schedule of arrivals."""

    @property
    def peak(self) -> float:
        """The highest rate in calls per second that the schedule has at any moment, on average."""

    def times(self, seconds: float, random: random.Random) -> Iterator[float]:
        """Yield the moments of arrival in seconds since the begin, in order, up to ``seconds``."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Calls at even distances. Nobody's users come like this; it shows what a pool does without any bursts."""

    #: Calls per second.
    rate: float

    @property
    def peak(self) -> float:
        """The rate."""
        return self.rate

    def times(self, seconds: float, random: random.Random) -> Iterator[float]:
        """Yield the moments of arrival; nothing is drawn."""
        # Each by itself, not added up: errors of rounding would become a drift.
        return itertools.takewhile(
            lambda at: at < seconds, (number / self.rate for number in itertools.count())
        )


@dataclass(frozen=True, slots=True)
class Poisson:
    """Calls of many callers who know nothing of each other."""

    #: Calls per second, on average.
    rate: float

    @property
    def peak(self) -> float:
        """The rate."""
        return self.rate

    def times(self, seconds: float, random: random.Random) -> Iterator[float]:
        """Yield the moments of arrival."""
        at = random.expovariate(self.rate)
        while at < seconds:
            yield at
            at += random.expovariate(self.rate)


@dataclass(frozen=True, slots=True)
class Spike:
    """Callers as of ``Poisson``, and for a while many more of them."""

    #: Calls per second, on average, before and after.
    rate: float
    #: Calls per second, on average, during the spike.
    peak: float
    #: When the spike begins, in seconds.
    at: float
    #: Seconds that it lasts.
    lasting: float

    def rate_at(self, moment: float) -> float:
        """Return the average rate at a moment."""
        return self.peak if self.at <= moment < self.at + self.lasting else self.rate

    def times(self, seconds: float, random: random.Random) -> Iterator[float]:
        """Yield the moments of arrival."""
        return _thinned(self, seconds, random)


@dataclass(frozen=True, slots=True)
class Ramp:
    """Callers as of ``Poisson`` whose rate rises, or falls, evenly."""

    #: Calls per second, on average, in the beginning.
    begin: float
    #: Calls per second, on average, after ``lasting`` seconds and later.
    end: float
    #: Seconds from the one rate to the other.
    lasting: float

    @property
    def peak(self) -> float:
        """The higher rate."""
        return max(self.begin, self.end)

    def rate_at(self, moment: float) -> float:
        """Return the average rate at a moment."""
        share = min(1.0, moment / self.lasting)
        return self.begin + share * (self.end - self.begin)

    def times(self, seconds: float, random: random.Random) -> Iterator[float]:
        """Yield the moments of arrival."""
        return _thinned(self, seconds, random)


def _thinned(changing: Spike | Ramp, seconds: float, random: random.Random) -> Iterator[float]:
    """Draw arrivals at the peak rate, and keep of them as many as the rate of the moment is of it.

    Source:
        Lewis and Shedler, Simulation of nonhomogeneous Poisson processes by thinning (1979).
    """
    for at in Poisson(changing.peak).times(seconds, random):
        if random.random() * changing.peak < changing.rate_at(at):
            yield at
