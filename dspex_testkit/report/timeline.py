"""The picture of a run as plain records: lanes, what fills them, what happened at moments, and what failed.

Times are seconds since the begin of the recording. Nothing here waits, reads a clock or writes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ANSWERED",
    "CALLERS",
    "MOMENT",
    "WORKERS",
    "Call",
    "Lane",
    "Mark",
    "Series",
    "Span",
    "Table",
    "Timeline",
    "Verdict",
]

#: The groups of lanes.
WORKERS, CALLERS = "workers", "callers"

#: What happens within so many seconds counts as one moment.
MOMENT: Final = 1e-4

#: How a call ends that is answered; every other outcome is the name of what it met instead.
ANSWERED: Final = "answer"


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of the picture: a worker's process or a caller."""

    #: Unique in the timeline.
    key: str
    #: For people.
    title: str
    #: ``workers`` or ``callers``.
    group: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a lane: the state of a worker, or what a caller was doing."""

    lane: str
    begin: float
    end: float
    #: State of a worker (``idle``, ``leased``, …); of a caller ``waiting``, ``holding`` or ``call``.
    kind: str
    #: Who is at the other end: the caller that holds the worker, the worker that the caller holds.
    label: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment. Kinds are ``fault``, ``to``, ``from`` (frames), ``died``, ``end`` (of a call), ``told``, ``turn``."""

    at: float
    #: Key of its lane; empty if it is nobody's own.
    lane: str
    kind: str
    #: In a word or two.
    label: str
    #: Whatever else is known.
    detail: str = ""
    #: Of a fault: what its worker was doing, and in whose hands it was, if in anybody's.
    state: str = ""
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """How one call went."""

    caller: str
    began: float
    ended: float
    #: ``answer``, or what it met instead.
    outcome: str

    @property
    def seconds(self) -> float:
        """How long it took, waiting for a worker included."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Series:
    """A figure over time, such as resident memory."""

    name: str
    unit: str
    #: Moments and values.
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Figures that were counted beside the timeline, such as the percentiles of a million calls."""

    title: str
    #: Names and values, both as people read them.
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What failed."""

    #: Class of the error; empty of a run that is well.
    error: str
    #: What it says.
    text: str
    #: When.
    at: float
    #: Keys of the lanes that it is about, if that is known.
    lanes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """A whole run."""

    #: Name of the test.
    title: str
    verdict: Verdict
    lanes: tuple[Lane, ...] = ()
    spans: tuple[Span, ...] = ()
    #: In order of time.
    marks: tuple[Mark, ...] = ()
    calls: tuple[Call, ...] = ()
    #: Workers replaced, by the reason for which the one before left.
    restarts: Mapping[str, int] = field(default_factory=dict)
    series: tuple[Series, ...] = ()
    #: In place of what is counted from ``calls``, where those were not kept.
    tables: tuple[Table, ...] = ()
    #: What lanes were doing when it failed; at the same moment more may have happened, before and after.
    at_failure: tuple[Span, ...] = ()
    #: The line that repeats the run; empty if there is none.
    replay: str = ""
    #: What was drawn by chance was drawn from it.
    seed: str = ""
    #: Lines about the run: what was asked of it, and by whom.
    notes: tuple[str, ...] = ()
    #: Whether time was virtual.
    is_simulated: bool = False
    #: Whether so much happened that the begin is lost.
    is_cut: bool = False

    @property
    def begin(self) -> float:
        """The first moment."""
        return min((span.begin for span in self.spans), default=0.0)

    @property
    def end(self) -> float:
        """The last moment."""
        moments = (*(span.end for span in self.spans), *(mark.at for mark in self.marks), self.verdict.at)
        return max(moments)

    @property
    def faults(self) -> list[Mark]:
        """The faults that happened, in order."""
        return [mark for mark in self.marks if mark.kind == "fault"]

    @property
    def outcomes(self) -> Counter[str]:
        """How many calls ended in which way."""
        return Counter(call.outcome for call in self.calls)

    def of(self, group: str) -> list[Lane]:
        """Return the lanes of a group."""
        return [lane for lane in self.lanes if lane.group == group]

    def title_of(self, key: str) -> str:
        """Return the title of the lane ``key``; the key itself if there is no such lane."""
        return next((lane.title for lane in self.lanes if lane.key == key), key)

    def holdings(self, at: float) -> list[Span]:
        """Return who held which worker at a moment: the leases that had begun, and had not ended before."""
        return [span for span in self.spans if span.kind == "leased" and _covers(span, at)]

    def state_of(self, lane: str, at: float) -> Span | None:
        """Return what a lane was doing at a moment, the latest if there is more than one answer."""
        for span in self.at_failure:
            if span.lane == lane and span.end == at:
                return span
        found = [span for span in self.spans if span.lane == lane and _covers(span, at)]
        return max(found, key=lambda span: span.begin, default=None)

    def faults_before(self, at: float) -> list[Mark]:
        """Return the faults that had happened at a moment, the latest first."""
        return [mark for mark in reversed(self.faults) if mark.at <= at + MOMENT]


def _covers(span: Span, at: float) -> bool:
    return span.begin <= at <= span.end
