"""Targets of the benchmarks: each names a figure that exists, and is judged by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.figures import CaseResult
from benchmarks.stored import load_results, merged
from benchmarks.tables import as_json
from benchmarks.targets import REFERENCE, TARGETS, Of, Target, judge, targets_table
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.name} of {target.subject}")
def test_target_names_a_figure_that_is_measured(target: Target) -> None:
    """Its workload has that case, that subject and that metric; a ratio has a reference."""
    workload = WORKLOADS[target.letter]
    assert target.case in workload.cases
    assert target.subject in workload.subjects
    assert target.metric in {metric.name for metric in workload.metrics}
    assert target.of != REFERENCE or workload.reference is not None
    if isinstance(target.of, Of):
        assert target.of.case in workload.cases
        assert target.of.subject in workload.subjects
        assert target.of.metric in {metric.name for metric in workload.metrics}


def one_caller(**p50: float) -> CaseResult:
    """Return a result of workload A with one round."""
    names = {"raw": "raw limit", "ours": "ours: PythonPool", "peer": "multiprocessing.Pool"}
    samples = {names[key]: [{"p50": value, "p99": value, "CPU of both": value}] for key, value in p50.items()}
    return CaseResult("A", "an echo", "one processor", WORKLOADS["A"].metrics, "raw limit", samples, {})


@pytest.mark.parametrize(("ours", "holds"), [(26e-6, "yes"), (27e-6, "**no**")])
def test_target_is_judged_by_the_ratio_within_rounds(ours: float, holds: str) -> None:
    """At the limit it holds, above it does not; the best other pool is named."""
    ((*_, best, judged),) = judge([one_caller(raw=10e-6, ours=ours, peer=50e-6)])
    assert (best, judged) == ("5.00 of raw, multiprocessing.Pool", holds)


@pytest.mark.parametrize(("ours", "shown", "holds"), [(50e-6, "1.00", "yes"), (51e-6, "1.02", "**no**")])
def test_target_is_judged_by_the_best_of_the_others(ours: float, shown: str, holds: str) -> None:
    """Who is as fast as the fastest of them holds the promise."""
    result = one_caller(raw=10e-6, ours=ours, peer=50e-6)
    result.case = "free processors"
    result.samples["loky"] = [{"p50": 60e-6, "p99": 60e-6, "CPU of both": 60e-6}]
    ((_, _, limit, value, best, judged),) = judge([result])
    assert (limit, best) == ("≤ 1.00 of best other", "1.00 of best other, multiprocessing.Pool")
    assert (value, judged) == (f"{shown} of best other", holds)


def test_best_of_the_others_is_found_round_by_round() -> None:
    """Bug: medians were compared, so a round in which the machine was slow for one of them decided."""
    result = one_caller(raw=10e-6)
    result.case = "free processors"
    rounds = {"ours: PythonPool": (40, 400, 45), "Pebble": (44, 440, 44), "loky": (90, 900, 90)}
    for name, values in rounds.items():
        result.samples[name] = [{"p50": value * 1e-6, "p99": 1.0, "CPU of both": 1.0} for value in values]
    ((*_, value, best, judged),) = judge([result])
    assert (value, best, judged) == ("0.91 of best other", "1.00 of best other, Pebble", "yes")


def starts(case: str, seconds: float) -> CaseResult:
    """Return a result of workload E with one round."""
    round_ = {metric.name: seconds for metric in WORKLOADS["E"].metrics}
    samples = {"ours: template": [round_], "ours: PythonPool": [round_]}
    return CaseResult("E", "starts", case, WORKLOADS["E"].metrics, None, samples, {})


def test_target_is_judged_by_a_figure_of_another_case() -> None:
    """The limit is a multiple of it; without it nothing is shown to hold."""
    many = starts("16 workers", 3.0)
    relative, *_ = judge([starts("1 worker", 2.0), many])
    assert relative[2:4] == ["≤ 1.30 of 1 worker", "1.50 of 1 worker"]
    assert judge([many])[0][3:] == ["nothing to compare with", "", ""]


def test_target_is_judged_by_what_was_measured_beside_it() -> None:
    """The machine's speed changes from case to case, and is the same for both of one."""
    samples = {"idle sessions": [{"a checkout and check-in": 4e-6, "10 entries beside it": 2e-6}]}
    relative, absolute = judge(
        [CaseResult("H", "books", "100,000 entries", WORKLOADS["H"].metrics, None, samples, {})]
    )
    assert relative[2:] == ["≤ 1.30 of 10 entries beside it", "2.00 of 10 entries beside it", "", "**no**"]
    assert absolute[3:] == ["4 µs", "", "yes"]


def test_figure_that_was_not_reached_does_not_hold() -> None:
    """A subject that failed is shown with its reason."""
    result = one_caller(raw=10e-6, ours=20e-6)
    result.failures["ours: PythonPool"] = "no answer within 60 s"
    assert "| no answer within 60 s |  | no |" in targets_table([result])


def test_stored_results_are_kept_until_they_are_measured_again(tmp_path: Path) -> None:
    """What is read back is what was written; a new result replaces that of its own case only."""
    file = tmp_path / "results.json"
    first, other = one_caller(raw=1e-5, ours=2e-5), one_caller(raw=1e-5)
    other.case = "free processors"
    file.write_text(as_json([first, other], {}), encoding="utf-8")
    again = one_caller(raw=3e-5)
    assert load_results(file) == [first, other]
    assert merged(load_results(file), [again]) == [again, other]
    assert load_results(tmp_path / "none.json") == []
