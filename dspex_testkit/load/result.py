"""What a load came to: latencies, outcomes, figures over time; and what can be demanded of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dspex_testkit.load.samples import FIGURES
from dspex_testkit.load.slope import FEWEST
from dspex_testkit.load.tally import ANSWERED

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from dspex_testkit.load.histogram import Latencies
    from dspex_testkit.load.profile import Profile
    from dspex_testkit.load.samples import Samples
    from dspex_testkit.load.slope import Slope
    from dspex_testkit.load.tally import Stretch, Tally

__all__ = ["LoadResult"]

#: Share of the mean by which figures of a process that is well go up and down: a few hundred of its objects are
#: there or not, depending on what the pool is at, when it is looked at.
_TREMBLING: Final = 0.001
#: Seconds from which on slopes are shown.
_TELLING: Final = 60.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load came to."""

    profile: Profile
    #: Arrivals and sessions were drawn from it.
    seed: int
    #: Seconds from the first call to the end of the last.
    seconds: float
    tally: Tally
    samples: Samples
    #: Workers that left, by reason.
    retired: Mapping[str, int]

    @property
    def latency(self) -> Latencies:
        """How long answered calls took: under an open load from the moment at which they should have begun."""
        return self.tally.latency

    @property
    def outcomes(self) -> Counter[str]:
        """How calls ended: ``answer``, or the class of their error."""
        return self.tally.outcomes

    @property
    def answered(self) -> int:
        """Calls that were answered."""
        return self.outcomes[ANSWERED]

    @property
    def others(self) -> int:
        """Calls that ended otherwise."""
        return self.outcomes.total() - self.answered

    @property
    def per_second(self) -> float:
        """Calls answered per second."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def stretches(self) -> list[Stretch]:
        """The calls by stretches of time."""
        return self.tally.stretches()

    def latency_of(self, outcome: str) -> Latencies:
        """Return how long calls took that ended otherwise: from the moment at which they were made.

        Raises:
            KeyError: No call ended like that.
        """
        return self.tally.other_latency[outcome]

    def slopes(self) -> dict[str, Slope]:
        """Return the slope of each figure, by its name; none of less than a minute, of which they tell nothing."""
        if self.seconds < _TELLING or len(self.samples) < FEWEST:
            return {}
        return {name: self.samples.slope(name) for name in FIGURES}

    def problems(self, *, allowed: frozenset[str] = frozenset()) -> list[str]:
        """Say what is not as the profile expects it.

        Args:
            allowed: Errors that calls may end with.
        """
        found = [
            f"{count} calls ended with {name}: {self.tally.texts.get(name, '')}"
            for name, count in self.outcomes.items()
            if name != ANSWERED and name not in allowed
        ]
        p95 = self.latency.percentile(95)
        if not self.answered:
            found.append("no call was answered")
        if self.profile.p95 is not None and p95 > self.profile.p95:
            found.append(f"p95 is {p95:.4g} s, above {self.profile.p95:g} s")
        if self.profile.per_second is not None and self.per_second < self.profile.per_second:
            found.append(f"{self.per_second:.4g} calls per second, below {self.profile.per_second:g}")
        return found

    def check(self, *, allowed: frozenset[str] = frozenset()) -> None:
        """Demand what the profile expects, and that no call failed.

        Args:
            allowed: Errors that calls may end with.

        Raises:
            AssertionError: Something is not as expected.
        """
        found = self.problems(allowed=allowed)
        if found:
            raise AssertionError(f"load {self.profile.name}, seed {self.seed}: " + "; ".join(found))

    def check_flat(self, name: str, *, per_hour: float = 0.01, skip: float = 0.0) -> Slope:
        """Demand that a figure does not grow by more than a share of its mean in an hour.

        A short run cannot prove a slope as small as that, only disprove it: this fails when the whole range in
        which the true slope lies, with 95 % confidence, is above; and that of the later half too, since a leak goes
        on, and what allocators take late comes to rest. What is less than a thousandth of the mean over the whole run
        is never called growth, so the bound is wider for runs of less than six minutes. The range is returned and
        says how much was proven.

        Args:
            name: ``memory``, ``blocks``, ``descriptors`` or ``processes``.
            per_hour: Share of the mean.
            skip: Share of the time that is left out at the begin.

        Raises:
            AssertionError: It grows.
            ValueError: There is no such figure; or too few looks to tell: each half needs some.
        """
        slope, later = (self.samples.slope(name, skip=share) for share in (skip, (1 + skip) / 2))
        if min(slope.low, later.low) > max(per_hour, _TREMBLING * 3600 / self.seconds):
            raise AssertionError(
                f"{name} grows: {slope}; the mean is {slope.mean:.6g} {FIGURES[name]}, "
                f"the growth {slope.absolute:.3g} {FIGURES[name]} an hour over {self.seconds:.0f} s of "
                f"{self.profile.name} with {self.outcomes.total()} calls"
            )
        return slope

    def as_json(self) -> dict[str, Any]:
        """Return what is known as plain data: durations in seconds, memory in bytes."""
        return {
            "profile": self.profile.name,
            "seed": self.seed,
            "seconds": self.seconds,
            "outcomes": dict(self.outcomes),
            "per_second": self.per_second,
            "latency_s": dict(self.latency.percentiles()),
            "delay_s": dict(self.tally.delay.percentiles()),
            "retired": dict(self.retired),
            "slopes": {
                name: {"mean": slope.mean, "per_hour": slope.per_hour, "low": slope.low, "high": slope.high}
                for name, slope in self.slopes().items()
            },
            "problems": self.problems(),
        }
