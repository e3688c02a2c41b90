"""The trace of a run as Chrome JSON, which the Perfetto viewer opens: https://ui.perfetto.dev."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from dspex_testkit.report.timeline import CALLERS, WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_testkit.report.timeline import Timeline

__all__ = ["trace_json"]

#: The groups of lanes as processes of the trace, by their numbers there.
_PROCESSES: Final = {WORKERS: 1, CALLERS: 2}
_RUN: Final = 3


def trace_json(timeline: Timeline) -> bytes:
    """Write ``timeline`` as a trace: a process for the workers, one for the callers, a thread for each lane.

    Source:
        "Trace Event Format", JSON object format; times in microseconds.
    """
    about = {"test": timeline.title, "seed": timeline.seed, "replay": timeline.replay}
    events = list(_events(timeline))
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about})


def _events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    places = {
        lane.key: {"pid": _PROCESSES[lane.group], "tid": number + 1}
        for number, lane in enumerate(timeline.lanes)
    }
    for name, number in (*_PROCESSES.items(), ("run", _RUN)):
        yield {"ph": "M", "name": "process_name", "pid": number, "args": {"name": name}}
    for number, lane in enumerate(timeline.lanes):
        yield {"ph": "M", "name": "thread_name", **places[lane.key], "args": {"name": lane.title}}
        yield {"ph": "M", "name": "thread_sort_index", **places[lane.key], "args": {"sort_index": number}}
    for span in timeline.spans:
        name = f"{span.kind} {span.label}".strip()
        duration = _micros(span.end) - _micros(span.begin)
        yield {
            "ph": "X",
            "name": name,
            "cat": span.kind,
            "ts": _micros(span.begin),
            "dur": duration,
        } | places[span.lane]
    run = {"pid": _RUN, "tid": 1}
    for mark in timeline.marks:
        # A fault is seen in every lane, whatever is folded away.
        scope = "g" if mark.kind == "fault" else "t"
        name = f"{mark.kind}: {mark.label}" if mark.kind in ("fault", "turn") else mark.label
        event = {"ph": "i", "s": scope, "name": name, "cat": mark.kind, "ts": _micros(mark.at)}
        yield event | places.get(mark.lane, run) | {"args": {"detail": mark.detail}}
    verdict = timeline.verdict
    failed = {
        "ph": "i",
        "s": "g",
        "name": f"failed: {verdict.error}",
        "cat": "failed",
        "ts": _micros(verdict.at),
    }
    yield failed | run | {"args": {"text": verdict.text}}
    for series in timeline.series:
        for at, value in series.points:
            yield {"ph": "C", "name": series.name, "ts": _micros(at), "args": {series.unit: value}} | run


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
