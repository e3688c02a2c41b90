"""The page of a load: latency and throughput over time, percentiles, restarts by reason, memory, and the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.load.profile import Closed
from dspex_testkit.load.samples import FIGURES
from dspex_testkit.report.files import write_page
from dspex_testkit.report.story import seconds
from dspex_testkit.report.timeline import Series, Table, Timeline, Verdict
from dspex_testkit.seeds import how_to_replay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dspex_testkit.load.profile import Profile
    from dspex_testkit.load.result import LoadResult
    from dspex_testkit.load.tally import Stretch

__all__ = ["describe", "timeline_of", "write_load_page"]

_MEBIBYTE = 1024 * 1024


def write_load_page(
    result: LoadResult, folder: Path, *, test: str = "", error: BaseException | None = None
) -> Path:
    """Write the page of a load into ``folder``, and return its path.

    Args:
        result: What the load came to.
        folder: Made if it is not there.
        test: Id of the test that it belongs to.
        error: Why that failed, if it did.
    """
    return write_page(timeline_of(result, test=test, error=error), folder)


def timeline_of(result: LoadResult, *, test: str = "", error: BaseException | None = None) -> Timeline:
    """Return the timeline of a load, whose calls are told by figures alone; for the arguments see above."""
    name = result.profile.name
    problems = "; ".join(result.problems()) if not test else ""
    kind = type(error).__name__ if error is not None else "AssertionError" if problems else ""
    return Timeline(
        f"{test} {name}".strip(),
        Verdict(kind, str(error) if error is not None else problems, result.seconds),
        series=(*_of_calls(result), *_of_the_process(result)),
        tables=_tables(result),
        replay=f"replay: {how_to_replay(result.seed)}" if test else "",
        seed=str(result.seed),
        notes=(result.profile.doc, *describe(result.profile)),
    )


def describe(profile: Profile) -> list[str]:
    """Say in lines what a profile asks for."""
    load = profile.load
    said = f"{load.callers} callers, closed" if isinstance(load, Closed) else f"open, {load.arrivals}"
    lines = [said, f"command {profile.command} {dict(profile.args)}"]
    if profile.sessions:
        lines.append(f"{profile.sessions} sessions")
    if profile.payload_bytes:
        lines.append(f"{profile.payload_bytes} bytes of payload")
    return [*lines, *(f"{name} = {value}" for name, value in profile.settings.items())]


def _of_calls(result: LoadResult) -> list[Series]:
    stretches = result.stretches

    def series(name: str, unit: str, value: Callable[[Stretch], float]) -> Series:
        points = [(stretch.begin, value(stretch)) for stretch in stretches]
        return Series(name, unit, (*points, (result.seconds, points[-1][1] if points else 0.0)))

    return [
        series("latency, median", "s", lambda stretch: stretch.median),
        series("latency, p99", "s", lambda stretch: stretch.p99),
        series("throughput", "calls/s", lambda stretch: stretch.rate),
        series("not answered", "calls", lambda stretch: stretch.others),
    ]


def _of_the_process(result: LoadResult) -> list[Series]:
    memory = tuple((at, value / _MEBIBYTE) for at, value in result.samples.of("memory"))
    return [
        Series("memory", "MiB", memory),
        *(Series(name, "", tuple(result.samples.of(name))) for name in FIGURES if name != "memory"),
    ]


def _tables(result: LoadResult) -> tuple[Table, ...]:
    latency = [(name, seconds(value)) for name, value in result.latency.percentiles().items()]
    calls = [(name, f"{count}") for name, count in result.outcomes.most_common()]
    calls += [("answered per second", f"{result.per_second:.4g}"), ("lasted", seconds(result.seconds))]
    refused = [
        (f"{name}, p99", seconds(latencies.percentile(99)))
        for name, latencies in result.tally.other_latency.items()
    ]
    late = [("begun late by the load, p99", seconds(result.tally.delay.percentile(99)))]
    return (
        Table("Latency", (*latency, *late, *refused)),
        Table("How calls ended", tuple(calls)),
        Table("Restarts", tuple((f"left: {reason}", f"{count}") for reason, count in result.retired.items())),
        Table("Slopes", tuple((name, str(slope)) for name, slope in result.slopes().items())),
    )
