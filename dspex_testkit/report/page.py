"""The page of a run: one file of HTML that opens without a network, made from a template."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dspex_testkit.report.axis import Axis
from dspex_testkit.report.figures import PERCENTILES, buckets_of, percentile
from dspex_testkit.report.story import seconds, story_of
from dspex_testkit.report.thinning import thinned
from dspex_testkit.report.timeline import ANSWERED, CALLERS, WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dspex_testkit.report.figures import Bucket
    from dspex_testkit.report.timeline import Lane, Mark, Series, Timeline

__all__ = ["page_of"]

#: Labels of the axis.
_TICKS: Final = 8
#: Seconds up to which the axis of time is labelled to the tenth of a millisecond.
_SHORT: Final = 20.0
#: Per cent of the width that a span needs to be named.
_NAMED: Final = 5.0
#: Lines in the list of everything.
_LISTED: Final = 600


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of a lane or a chart: where it is and how large, in per cent of its track."""

    left: float
    width: float
    kind: str
    label: str
    #: Shown when it is pointed at.
    hint: str
    height: float = 100.0


@dataclass(frozen=True, slots=True)
class Track:
    """A lane, or a chart, with all that is in it."""

    title: str
    bars: tuple[Bar, ...]
    dots: tuple[Bar, ...] = ()
    #: What its full height means, of a chart.
    scale: str = ""
    is_accused: bool = False


def page_of(timeline: Timeline) -> str:
    """Return the page of ``timeline`` as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dspex_testkit.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(_facts(timeline))


def _facts(timeline: Timeline) -> dict[str, Any]:
    drawn = thinned(timeline)
    axis = Axis.of(drawn) if timeline.lanes else Axis.even(timeline.begin, timeline.end)
    # The lanes show what is near the failure, the charts all of the run.
    whole = axis if len(drawn.marks) == len(timeline.marks) else Axis.even(timeline.begin, timeline.end)
    latencies = [call.seconds for call in timeline.calls if call.outcome == ANSWERED]
    left_out = len(timeline.spans) + len(timeline.marks) - len(drawn.spans) - len(drawn.marks)
    return {
        "timeline": timeline,
        "story": story_of(timeline),
        "seconds": seconds,
        "ticks": _ticks(axis),
        "failed_at": _places(axis, [timeline.verdict.at])[0],
        "faults": _places(axis, [fault.at for fault in drawn.faults]),
        "is_whole": whole is axis,
        "groups": [
            *((group, _tracks(drawn, axis, group)) for group in (WORKERS, CALLERS) if drawn.of(group)),
            *_of_nobody(drawn, axis),
        ],
        "charts": _charts(timeline, whole),
        "chart_ticks": _ticks(whole),
        "chart_failed_at": _places(whole, [timeline.verdict.at])[0],
        "chart_faults": _places(whole, [fault.at for fault in timeline.faults]),
        "is_cut_short": bool(axis.cuts),
        "left_out": left_out,
        "percentiles": [
            (f"p{p:g}" if p < 100 else "longest", seconds(percentile(latencies, p))) for p in PERCENTILES
        ],
        "answered": len(latencies),
        "ended": Counter(mark.label for mark in timeline.marks if mark.kind == "died").most_common(),
        "listed": [(_clock(mark.at), timeline.title_of(mark.lane), mark) for mark in _listed(drawn)],
    }


def _clock(at: float) -> str:
    return f"{at:.4f}".rstrip("0").rstrip(".")


def _places(axis: Axis, moments: Iterable[float]) -> list[str]:
    return sorted({f"{100 * axis.place(at):.2f}" for at in moments}, key=float)


def _ticks(axis: Axis) -> list[tuple[str, str]]:
    # Long before the last digit of a moment means anything, the labels of an hour stand on one another.
    digits = _clock if axis.moments[-1] < _SHORT else "{:.3g}".format
    return [(f"{100 * axis.place(at):.2f}", digits(at)) for at in axis.ticks(_TICKS)]


# --- lanes -----------------------------------------------------------------------------------------------------


def _tracks(timeline: Timeline, axis: Axis, group: str) -> list[Track]:
    lanes = timeline.of(group)
    bars: dict[str, list[Bar]] = {lane.key: [] for lane in lanes}
    dots: dict[str, list[Bar]] = {lane.key: [] for lane in lanes}
    for span in timeline.spans:
        if span.lane in bars:
            hint = f"{span.kind} {span.label}, {seconds(span.begin)} to {seconds(span.end)}"
            label = span.label if span.kind in ("leased", "holding") else ""
            bars[span.lane].append(_bar(axis, span.begin, span.end, span.kind, label, hint))
    for mark in timeline.marks:
        if mark.lane in dots:
            dots[mark.lane].append(_dot(axis, mark))
    return [_track(timeline, lane, bars[lane.key], dots[lane.key]) for lane in lanes]


def _of_nobody(timeline: Timeline, axis: Axis) -> list[tuple[str, list[Track]]]:
    """Return what happened in no lane: to the pool as a whole, and the decisions of the scheduler."""
    dots: dict[str, list[Bar]] = {"pool": [], "scheduler": []}
    for mark in timeline.marks:
        if not mark.lane:
            dots["scheduler" if mark.kind == "turn" else "pool"].append(_dot(axis, mark))
    tracks = [Track(title, (), tuple(found)) for title, found in dots.items() if found]
    return [("run", tracks)] if tracks else []


def _track(timeline: Timeline, lane: Lane, bars: Iterable[Bar], dots: Iterable[Bar]) -> Track:
    return Track(lane.title, tuple(bars), tuple(dots), is_accused=lane.key in timeline.verdict.lanes)


def _bar(
    axis: Axis, begin: float, end: float, kind: str, label: str, hint: str, height: float = 100.0
) -> Bar:
    left = 100 * axis.place(begin)
    width = max(0.0, 100 * axis.place(end) - left)
    # Half a name says nothing.
    label = label if width >= _NAMED else ""
    return Bar(round(left, 2), round(width, 2), kind, label, hint, round(height, 1))


#: What marks look like: a sign for each kind.
_SIGNS: Final = {"fault": "⚡", "to": "▾", "from": "▴", "died": "✝", "told": "•", "turn": "⇄"}


def _dot(axis: Axis, mark: Mark) -> Bar:
    kind, sign = mark.kind, _SIGNS.get(mark.kind, "")
    if mark.kind == "end":
        kind, sign = ("answered", "✓") if mark.label == ANSWERED else ("missed", "✗")
    words = {"to": "to the worker: ", "from": "from the worker: "}.get(mark.kind, "")
    hint = f"{seconds(mark.at)} {words}{mark.label} {mark.detail}".strip()
    return Bar(round(100 * axis.place(mark.at), 2), 0.0, kind, sign, hint)


# --- charts ----------------------------------------------------------------------------------------------------


def _charts(timeline: Timeline, axis: Axis) -> list[Track]:
    buckets = buckets_of(timeline, axis.edges())
    if not timeline.calls or not buckets:
        return [_series(series, axis) for series in timeline.series]
    return [
        _latency(timeline, buckets, axis),
        _throughput(buckets, axis),
        *(_series(series, axis) for series in timeline.series),
    ]


def _latency(timeline: Timeline, buckets: Iterable[Bucket], axis: Axis) -> Track:
    top = max(call.seconds for call in timeline.calls) or 1.0
    bars = []
    for bucket in buckets:
        if bucket.answered + bucket.others:
            hint = f"until {seconds(bucket.end)}: median {seconds(bucket.median)}, longest {seconds(bucket.longest)}"
            for kind, value in (("longest", bucket.longest), ("median", bucket.median)):
                bars.append(_bar(axis, bucket.begin, bucket.end, kind, "", hint, 100 * value / top))
    return Track("latency", tuple(bars), scale=seconds(top))


def _throughput(buckets: Iterable[Bucket], axis: Axis) -> Track:
    counted = list(buckets)
    top = max(max(bucket.rate, bucket.others / (bucket.end - bucket.begin)) for bucket in counted) or 1.0
    bars = []
    for bucket in counted:
        stretch = f"{seconds(bucket.begin)} to {seconds(bucket.end)}"
        hint = f"{stretch}: {bucket.answered} answered, {bucket.others} not"
        bars.append(_bar(axis, bucket.begin, bucket.end, "rate", "", hint, 100 * bucket.rate / top))
        missed = 100 * bucket.others / (bucket.end - bucket.begin) / top
        if bucket.others:
            bars.append(_bar(axis, bucket.begin, bucket.end, "lost", "", hint, missed))
    return Track("throughput", tuple(bars), scale=f"{top:.3g} calls/s")


def _series(series: Series, axis: Axis) -> Track:
    top = max((value for _, value in series.points), default=0.0) or 1.0
    bars = tuple(
        _bar(axis, at, until, "median", "", f"{seconds(at)}: {value:.6g} {series.unit}", 100 * value / top)
        for (at, value), (until, _) in zip(series.points, series.points[1:], strict=False)
    )
    return Track(series.name, bars, scale=f"{top:.4g} {series.unit}")


# --- the list of everything --------------------------------------------------------------------------------------


def _listed(timeline: Timeline) -> Iterator[Mark]:
    """Return what happened at moments, the last of it where there is much."""
    yield from timeline.marks[-_LISTED:]
