"""What the figures should be, and which of them are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders import PEERS
from benchmarks.figures import Figure
from benchmarks.tables import told
from benchmarks.workloads.bookkeeping import BESIDE, EACH
from benchmarks.workloads.start_up import FIRST_ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.figures import CaseResult, Metric

__all__ = ["BEST_PEER", "REFERENCE", "TARGETS", "Of", "Target", "judge", "targets_table"]


@dataclass(frozen=True, slots=True)
class Of:
    """Another figure of the same workload, of which the limit is a multiple."""

    case: str
    subject: str
    metric: str


@dataclass(frozen=True, slots=True)
class Target:
    """One promise about one figure."""

    #: Number of the promise.
    number: str
    #: Letter and case of the workload.
    letter: str
    case: str
    subject: str
    metric: str
    #: What the figure may be at most, or must be at least where more is better; as a multiple of ``of``.
    limit: float = 1.0
    #: ``REFERENCE`` is the workload's, ``BEST_PEER`` whoever of the others ours does worst beside; round by round.
    of: Of | str = ""

    @property
    def name(self) -> str:
        """What is promised, in words."""
        return f"{self.number} {self.letter} {self.case}: {self.metric}"


BEST_PEER, REFERENCE = "best other", "raw"
_POOL, _TEMPLATE, _DEAF = "ours: PythonPool", "ours: template", "ours: template, no grace"
_READY, _FULL, _BOOKS = "until all have answered", "until full capacity", EACH

#: The promises.
TARGETS = (
    Target("D1", "A", "one processor", _POOL, "p50", 2.6, of=REFERENCE),
    Target("D2", "A", "free processors", _POOL, "p50", of=BEST_PEER),
    Target("D3", "B", "2 workers", _POOL, "calls a second", 0.9, of=REFERENCE),
    Target("D3", "B", "4 workers", _POOL, "calls a second", 0.5, of=REFERENCE),
    Target("D3", "B", "4 workers", _POOL, "CPU of the caller", 18e-6),
    Target("D4", "C", "1 MiB", _POOL, "throughput", 0.85, of=REFERENCE),
    Target("D4", "C", "16 MiB", _POOL, "throughput", of=BEST_PEER),
    Target("D5", "D", "16 workers", _POOL, "beyond the waiting", 20e-3),
    Target("D6", "E", "16 workers", _TEMPLATE, _READY, 1.3, of=Of("1 worker", _POOL, _READY)),
    Target("D6", "E", "16 workers", _TEMPLATE, "memory a worker", 12 * 2**20),
    Target("D6", "L", "1 more", _TEMPLATE, _READY, 10e-3),
    Target("D6", "L", "16 more", _TEMPLATE, _READY, 80e-3),
    Target("D7", "F", "4 workers", _POOL, "calls lost", 1),
    Target("D7", "F", "4 workers", "ours: idempotent calls", "calls lost", 0),
    Target("D7", "F", "4 workers", _TEMPLATE, _FULL, 80e-3),
    Target("D7", "F", "4 workers", _POOL, _FULL, 1.15, of=Of("4 workers", _POOL, "a cold start beside it")),
    Target("D8", "G", "4 workers", _POOL, "caller free after", 0.51),
    Target("D8", "G", "4 workers", _POOL, "full capacity after that", 40e-3),
    Target("D8", "G", "4 workers", _POOL, "other calls lost", 0),
    Target("D8", "G", "4 workers, deaf", _DEAF, "full capacity after that", 80e-3),
    Target(
        "D9",
        "H",
        "100,000 entries",
        "idle sessions",
        _BOOKS,
        1.3,
        of=Of("100,000 entries", "idle sessions", BESIDE),
    ),
    Target("D9", "H", "100,000 entries", "idle sessions", _BOOKS, 6e-6),
    Target("D10", "I", "with bytecode files", "dspex-pool --help", "elapsed", 0.15),
    Target("D10", "I", "with bytecode files", FIRST_ANSWER, "elapsed", 2.5, of=REFERENCE),
)


def judge(results: Iterable[CaseResult]) -> list[list[str]]:
    """Return for each target that was measured: what, who, the limit, ours, the best peer, and whether it holds."""
    by_case = {(each.letter, each.case): each for each in results}
    rows = []
    for target in TARGETS:
        result = by_case.get((target.letter, target.case))
        if result is not None and target.subject in result.samples:
            rows.append(_row(target, result, _base(target, by_case)))
    return rows


def _row(target: Target, result: CaseResult, base: float | None) -> list[str]:
    metric = _metric(result, target.metric)
    peers = {name: figure for name in PEERS if (figure := result.figure(name, metric)) is not None}
    figure = result.figure(target.subject, metric)
    best = _best(peers, metric)
    if target.of == BEST_PEER and figure is not None and best:
        best = _nearest(figure, peers, metric)
        figure = Figure(figure.values, peers[best].values)
    ours = _value(target, figure, base)
    sign = "≥" if metric.more_is_better else "≤"
    if (isinstance(target.of, Of) and base is None) or (target.of == BEST_PEER and not best):
        shown, holds = "nothing to compare with", ""
    elif ours is None:
        shown, holds = result.failures.get(target.subject, "never"), "no"
    else:
        is_better = ours >= target.limit if metric.more_is_better else ours <= target.limit
        shown, holds = _told(target, metric, ours), "yes" if is_better else "**no**"
    limit = f"{sign} {_told(target, metric, target.limit)}"
    beside = 1.0 if target.of == BEST_PEER else _value(target, peers.get(best), base)
    best_told = "" if not best or beside is None else f"{_told(target, metric, beside)}, {best}"
    return [target.name, target.subject, limit, shown, best_told, holds]


def _base(target: Target, by_case: Mapping[tuple[str, str], CaseResult]) -> float | None:
    """Return what the limit is a multiple of, where that is one value; ``None`` if it was not measured."""
    if isinstance(target.of, Of):
        result = by_case.get((target.letter, target.of.case))
        figure = result and result.figure(target.of.subject, _metric(result, target.of.metric))
        return figure.median if figure else None
    return None


def _metric(result: CaseResult, name: str) -> Metric:
    return next(each for each in result.metrics if each.name == name)


def _value(target: Target, figure: Figure | None, base: float | None) -> float | None:
    if figure is None:
        return None
    if isinstance(target.of, str) and target.of:
        return figure.ratio
    if not target.of:
        return figure.median
    return figure.median / base if base else None


def _told(target: Target, metric: Metric, value: float) -> str:
    if not target.of:
        return told(value, metric.unit)
    of = target.of if isinstance(target.of, str) else _short(target, target.of)
    return f"{value:.2f} of {of}"


def _short(target: Target, of: Of) -> str:
    return of.case if of.case != target.case else of.metric


def _best(peers: Mapping[str, Figure], metric: Metric) -> str:
    """Return who has the best median; empty if there is nobody."""
    choose = max if metric.more_is_better else min
    return choose(peers, key=lambda name: peers[name].median, default="")


def _nearest(ours: Figure, peers: Mapping[str, Figure], metric: Metric) -> str:
    """Return whom ours does worst beside, round by round."""
    choose = min if metric.more_is_better else max
    return choose(peers, key=lambda name: Figure(ours.values, peers[name].values).ratio or 0.0)


def targets_table(results: Sequence[CaseResult]) -> str:
    """Return the targets as a table in Markdown."""
    head = "| Figure | Of | Should be | Is | Best other | Holds |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in judge(results))
