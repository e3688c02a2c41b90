"""What the figures should be, and which of them are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders import PEERS
from benchmarks.tables import told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.figures import CaseResult, Figure, Metric

__all__ = ["TARGETS", "Target", "judge", "targets_table"]


@dataclass(frozen=True, slots=True)
class Target:
    """One promise about one figure."""

    #: Letter and case of the workload.
    letter: str
    case: str
    subject: str
    metric: str
    #: What the figure may be at most, or must be at least where more is better.
    limit: float
    #: Whether the limit is one of the ratio to the raw limit.
    is_ratio: bool = False

    @property
    def name(self) -> str:
        """What is promised, in words."""
        return f"{self.letter} {self.case}: {self.metric}"


_POOL, _TEMPLATE = "ours: PythonPool", "ours: template"

#: The promises.
TARGETS = (
    Target("A", "one processor", _POOL, "p50", 2.4, is_ratio=True),
    Target("B", "4 workers", _POOL, "calls a second", 0.5, is_ratio=True),
    Target("B", "4 workers", _POOL, "CPU of the caller", 16e-6),
    Target("C", "1 MiB", _POOL, "throughput", 0.85, is_ratio=True),
    Target("D", "16 workers", _POOL, "beyond the waiting", 15e-3),
    Target("E", "16 workers", _TEMPLATE, "until all have answered", 0.8),
    Target("E", "16 workers", _TEMPLATE, "memory a worker", 10 * 2**20),
    Target("F", "4 workers", _POOL, "calls lost", 1),
    Target("F", "4 workers", "ours: idempotent calls", "calls lost", 0),
    Target("F", "4 workers", _TEMPLATE, "until full capacity", 0.1),
    Target("G", "4 workers", _POOL, "other calls lost", 0),
    Target("G", "4 workers", _POOL, "full capacity after that", 0.06),
    Target("H", "100,000 entries", "idle sessions", "a checkout and check-in", 2e-6),
)


def judge(results: Iterable[CaseResult]) -> list[list[str]]:
    """Return for each target that was measured: what, who, the limit, ours, the best peer, and whether it holds."""
    by_case = {(each.letter, each.case): each for each in results}
    rows = []
    for target in TARGETS:
        result = by_case.get((target.letter, target.case))
        if result is not None and target.subject in result.samples:
            rows.append(_row(target, result))
    return rows


def _row(target: Target, result: CaseResult) -> list[str]:
    metric = next(each for each in result.metrics if each.name == target.metric)
    ours = _value(target, result.figure(target.subject, metric))
    sign = "≥" if metric.more_is_better else "≤"
    if ours is None:
        shown, holds = result.failures.get(target.subject, "never"), "no"
    else:
        is_better = ours >= target.limit if metric.more_is_better else ours <= target.limit
        shown, holds = _told(target, metric, ours), "yes" if is_better else "**no**"
    limit = f"{sign} {_told(target, metric, target.limit)}"
    return [target.name, target.subject, limit, shown, _best_peer(target, metric, result), holds]


def _value(target: Target, figure: Figure | None) -> float | None:
    if figure is None:
        return None
    return figure.ratio if target.is_ratio else figure.median


def _told(target: Target, metric: Metric, value: float) -> str:
    return f"{value:.2f} of raw" if target.is_ratio else told(value, metric.unit)


def _best_peer(target: Target, metric: Metric, result: CaseResult) -> str:
    measured = [(_value(target, result.figure(name, metric)), name) for name in PEERS]
    values = [(value, name) for value, name in measured if value is not None]
    if not values:
        return ""
    value, name = (max if metric.more_is_better else min)(values)
    return f"{_told(target, metric, value)}, {name}"


def targets_table(results: Sequence[CaseResult]) -> str:
    """Return the targets as a table in Markdown."""
    head = "| Figure | Of | Should be | Is | Best other | Holds |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in judge(results))
