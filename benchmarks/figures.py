"""Samples of repeated rounds, and the figures that are told of them: medians, quartiles, ratios."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CaseResult", "Figure", "Metric", "percentile"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing that is measured."""

    #: Its name in tables.
    name: str
    #: ``s``, ``bytes``, ``/s``, ``B/s``, or empty for a plain number.
    unit: str = "s"
    #: Whether more is better.
    more_is_better: bool = False
    #: Whether its ratio to the reference means something.
    has_ratio: bool = True
    #: What the table says where a subject was measured and has no value.
    absent: str = "never"


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one subject over all rounds."""

    #: The values of the rounds, in their order.
    values: tuple[float, ...]
    #: The values of the reference in the same rounds, or none.
    reference: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The values between which half of the rounds lie."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def ratio(self) -> float | None:
        """The median of the ratios to the reference, each taken within one round: what disturbs hits both."""
        pairs = zip(self.values, self.reference, strict=False)
        ratios = [own / raw for own, raw in pairs if raw > 0]
        return statistics.median(ratios) if ratios else None


@dataclass(slots=True)
class CaseResult:
    """What came out of one case of one workload."""

    #: Letter of the workload.
    letter: str
    #: What the workload does.
    title: str
    #: What is special about this case.
    case: str
    metrics: tuple[Metric, ...]
    #: The subject that the others are compared with, or none.
    reference: str | None
    #: By subject, for each round its values by metric.
    samples: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    #: By subject, why it has no figures.
    failures: dict[str, str] = field(default_factory=dict)

    def figure(self, subject: str, metric: Metric) -> Figure | None:
        """Return the figure of a subject, if it was measured."""
        values = _values(self.samples.get(subject, ()), metric)
        if not values or subject in self.failures:
            return None
        has_ratio = metric.has_ratio and self.reference is not None and self.reference not in self.failures
        reference = _values(self.samples.get(self.reference or "", ()), metric) if has_ratio else ()
        return Figure(values, reference)


def _values(samples: Sequence[dict[str, float]], metric: Metric) -> tuple[float, ...]:
    return tuple(sample[metric.name] for sample in samples if metric.name in sample)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
