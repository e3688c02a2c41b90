"""What a run comes to: counts, percentiles and the exit status. Pure bookkeeping."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dspex_pool.cli.problems import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspex_pool.cli.journal import Mark
    from dspex_pool.cli.records import Entry

__all__ = ["Summary", "Tally", "exit_code_of_run", "percentile"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers at the end of a run."""

    #: Rows of the input.
    total: int
    #: Rows with an answer or an error, those of earlier runs included.
    done: int
    #: Rows of them that an earlier run had done.
    earlier: int
    #: Rows of them that failed.
    failed: int
    #: Rows that needed more than one attempt.
    retried: int
    #: Rows of this run a second.
    rows_per_second: float
    #: Seconds a row of this run took: the median, the 95th and the 99th percentile; ``None`` without rows.
    p50: float | None
    p95: float | None
    p99: float | None
    #: Workers replaced in this run, by reason.
    restarts: dict[str, int]
    #: Answers that match what was expected.
    matched: int
    #: Answers for which something was expected.
    compared: int

    @property
    def missing(self) -> int:
        """Rows that were not run."""
        return self.total - self.done


@dataclass
class Tally:
    """Counts while the rows come in."""

    #: Rows of the input.
    total: int
    earlier: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    matched: int = 0
    compared: int = 0
    #: Seconds a row, of this run alone.
    durations: array[float] = field(default_factory=lambda: array("d"))
    #: Workers replaced, by reason.
    restarts: Counter[str] = field(default_factory=Counter)

    def recall(self, mark: Mark) -> None:
        """Count a row that an earlier run has done and that is not run again."""
        self.earlier += 1
        self._count(failed=mark.failed, attempts=mark.attempts, match=mark.match)

    def add(self, entry: Entry) -> None:
        """Count a row that has just finished."""
        self.durations.append(entry.row.duration_s)
        self._count(failed=entry.row.error is not None, attempts=entry.row.attempts, match=entry.match)

    def _count(self, *, failed: bool, attempts: int, match: bool | None) -> None:
        self.done += 1
        self.failed += failed
        self.retried += attempts > 1
        self.compared += match is not None
        self.matched += match is True

    def rate(self, elapsed: float) -> float:
        """Return rows of this run a second, ``elapsed`` seconds after it began."""
        return len(self.durations) / elapsed if elapsed > 0 else 0.0

    def summary(self, elapsed: float) -> Summary:
        """Close the books ``elapsed`` seconds after the first row was handed out."""
        ordered = sorted(self.durations)
        return Summary(
            total=self.total,
            done=self.done,
            earlier=self.earlier,
            failed=self.failed,
            retried=self.retried,
            rows_per_second=self.rate(elapsed),
            p50=percentile(ordered, 50),
            p95=percentile(ordered, 95),
            p99=percentile(ordered, 99),
            restarts=dict(sorted(self.restarts.items())),
            matched=self.matched,
            compared=self.compared,
        )


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that ``percent`` per cent of ``ordered`` do not exceed (nearest rank)."""
    if not ordered:
        return None
    rank = max(1, math.ceil(len(ordered) * percent / 100))
    return ordered[rank - 1]


def exit_code_of_run(summary: Summary, *, stopped_by: ExitCode | None = None) -> ExitCode:
    """Choose the exit status of a run that came to its end.

    Args:
        summary: What the run came to.
        stopped_by: The status of the signal that stopped it, if one did.
    """
    if stopped_by is not None:
        return stopped_by
    return ExitCode.FAILED if summary.failed or summary.missing else ExitCode.OK
