"""Timelines that are too long to be drawn whole: what is near the failure stays."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, TypeVar

from dspex_testkit.report.timeline import ANSWERED, CALLERS, WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dspex_testkit.report.timeline import Lane, Timeline

__all__ = ["lanes_that_matter", "thinned"]

#: Lanes of a group, spans and marks that are drawn at the most. With them a page has some 300 kB.
LANES: Final = 40
THINGS: Final = 900

T = TypeVar("T")


def thinned(timeline: Timeline) -> Timeline:
    """Return what of ``timeline`` is drawn: all of it, if it is not too much."""
    lanes = lanes_that_matter(timeline, LANES)
    kept = {lane.key for lane in lanes} | {""}
    at = timeline.verdict.at
    spans = _nearest([span for span in timeline.spans if span.lane in kept], lambda span: _far(span.end, at))
    others = [mark for mark in timeline.marks if mark.lane in kept and mark.kind != "fault"]
    marks = _nearest(others, lambda mark: _far(mark.at, at))
    # Of what came long before, the last fault is told at least.
    begin = min((mark.at for mark in marks), default=0.0) if len(marks) < len(others) else timeline.begin
    faults = timeline.faults
    last = max((fault.at for fault in faults if fault.at <= at), default=begin)
    marks = [*marks, *(fault for fault in faults if fault.at >= min(begin, last))]
    return dataclasses.replace(
        timeline, lanes=tuple(lanes), spans=_only(timeline.spans, spans), marks=_only(timeline.marks, marks)
    )


def _only(things: Sequence[T], kept: Sequence[T]) -> tuple[T, ...]:
    """Return those of ``things`` that are kept, in their order."""
    which = {id(thing) for thing in kept}
    return tuple(thing for thing in things if id(thing) in which)


def _far(moment: float, at: float) -> float:
    # What comes after the failure explains less than what came before.
    return at - moment if moment <= at else 4 * (moment - at)


def _nearest(things: Sequence[T], far: Callable[[T], float]) -> Sequence[T]:
    return things if len(things) <= THINGS else sorted(things, key=far)[:THINGS]


def lanes_that_matter(timeline: Timeline, most: int) -> list[Lane]:
    """Return at most ``most`` lanes of each group: all, or those to which something happened, the last of them."""
    matter = {*timeline.verdict.lanes, *(fault.lane for fault in timeline.faults)}
    matter |= {mark.lane for mark in timeline.marks if mark.kind == "end" and mark.label != ANSWERED}
    chosen: list[Lane] = []
    for group in (WORKERS, CALLERS):
        lanes = timeline.of(group)
        if len(lanes) > most:
            lanes = ([lane for lane in lanes if lane.key in matter] or lanes)[-most:]
        chosen += lanes
    return chosen
