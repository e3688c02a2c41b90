"""What a timeline says in sentences: what failed, which faults came before it, who held what, how calls ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dspex_testkit.report.timeline import ANSWERED, CALLERS, WORKERS

if TYPE_CHECKING:
    from dspex_testkit.report.timeline import Mark, Timeline

__all__ = ["Story", "story_of"]

#: Lines of one kind that are told at the most; the rest is counted.
_MOST: Final = 8
#: Seconds between the failure of a caller and the moment at which its test has failed, at the most.
_JUST_NOW: Final = 0.005


@dataclass(frozen=True, slots=True)
class Story:
    """The answers to what everybody asks first. Each line is a sentence without its stop."""

    #: What failed.
    failed: str
    #: When, and in whose hands.
    where: str
    #: The faults before it, the latest first.
    faults: tuple[str, ...]
    #: Who held what when it failed.
    holders: tuple[str, ...]
    #: The calls that were not answered.
    unanswered: tuple[str, ...]


def story_of(timeline: Timeline) -> Story:
    """Tell the story of ``timeline``."""
    verdict = timeline.verdict
    first = (verdict.text.strip().splitlines() or [""])[0]
    about = ", ".join(timeline.title_of(lane) for lane in verdict.lanes)
    return Story(
        failed=f"{verdict.error}: {first}" if first else verdict.error or "nothing failed",
        where=f"at {seconds(verdict.at)}" + (f", to {about}" if about else ""),
        faults=_cut([_fault(timeline, fault) for fault in timeline.faults_before(verdict.at)]),
        holders=_cut(_holders(timeline)),
        unanswered=_cut(_unanswered(timeline)),
    )


def seconds(value: float) -> str:
    """Write seconds as people read them."""
    if 1e-5 <= value < 0.1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3f}".rstrip("0").rstrip(".") + " s"


def _cut(lines: list[str]) -> tuple[str, ...]:
    if len(lines) <= _MOST:
        return tuple(lines)
    return (*lines[:_MOST], f"and {len(lines) - _MOST} more")


def _fault(timeline: Timeline, fault: Mark) -> str:
    said = f"{fault.label} at {seconds(fault.at)}"
    if not fault.lane:
        return said + _because(fault.detail)
    said += f" struck {timeline.title_of(fault.lane)}"
    if fault.state != "leased":
        return (
            f"{said}, which nobody held"
            + (f" ({fault.state})" if fault.state else "")
            + _because(fault.detail)
        )
    return f"{said}, which {fault.holder or 'somebody'} held{_because(fault.detail)}{_ended(timeline, fault)}"


def _because(detail: str) -> str:
    return f" [{detail}]" if detail else ""


def _ended(timeline: Timeline, fault: Mark) -> str:
    """Say how the call ended that had the worker."""
    after = [call for call in timeline.calls if call.caller == fault.holder and call.ended >= fault.at]
    if not after:
        return ""
    first = min(after, key=lambda call: call.ended)
    return f"; it ended with {first.outcome} at {seconds(first.ended)}"


def _holders(timeline: Timeline) -> list[str]:
    at = timeline.verdict.at
    lines = []
    for lane in timeline.of(WORKERS):
        state = timeline.state_of(lane.key, at)
        before = _before(timeline, lane.key, at)
        if state is None:
            lines += [f"{lane.title} was held by nobody: it had ended{before}"] if before else []
            continue
        if state.kind == "leased":
            lines.append(f"{lane.title} was held by {state.label or 'somebody'} since {seconds(state.begin)}")
        else:
            because = f" ({state.label})" if state.label else ""
            line = f"{lane.title} was held by nobody: {state.kind}{because} since {seconds(state.begin)}"
            lines.append(line + before)
    for lane in timeline.of(CALLERS):
        state = timeline.state_of(lane.key, at)
        if state is not None and state.kind == "waiting":
            lines.append(f"{lane.title} stood in line since {seconds(state.begin)}")
    return lines or ["no worker was alive"]


def _before(timeline: Timeline, lane: str, at: float) -> str:
    """Say who had a worker until just now: a caller that fails gives it back on its way."""
    leases = [span for span in timeline.spans if span.lane == lane and span.kind == "leased"]
    recent = [span for span in leases if 0 <= at - span.end <= _JUST_NOW]
    last = max(recent, key=lambda span: span.end, default=None)
    if last is None:
        return ""
    return f", until then by {last.label or 'somebody'} since {seconds(last.begin)}"


def _unanswered(timeline: Timeline) -> list[str]:
    return [
        f"{call.caller} ended with {call.outcome} at {seconds(call.ended)}, after {seconds(call.seconds)}"
        for call in timeline.calls
        if call.outcome != ANSWERED
    ]
