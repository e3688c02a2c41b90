"""Figures of the benchmarks: what becomes of the values of several rounds."""

from __future__ import annotations

import pytest

from benchmarks.figures import CaseResult, Figure, Metric, percentile
from benchmarks.tables import as_json, as_markdown, told

TIME = Metric("p50")


def result(**failures: str) -> CaseResult:
    """Return a result of two subjects over three rounds, of which the second was disturbed."""
    samples = {
        "raw": [{"p50": 1e-6}, {"p50": 4e-6}, {"p50": 1e-6}],
        "ours": [{"p50": 2e-6}, {"p50": 8e-6}, {"p50": 3e-6}],
    }
    return CaseResult("A", "an echo", "one caller", (TIME,), "raw", samples, failures)


def test_ratio_is_taken_within_each_round() -> None:
    """A round in which the machine was slow for both does not change the ratio."""
    figure = result().figure("ours", TIME)
    assert figure is not None
    assert figure.ratio == 2.0
    assert figure.median == 3e-6


def test_failed_subject_has_a_reason_and_no_figure() -> None:
    """What failed half-way is shown with its reason, not with the rounds before."""
    failed = result(ours="WrongAnswerError: nonsense")
    assert failed.figure("ours", TIME) is None
    assert "| ours | WrongAnswerError: nonsense |" in as_markdown([failed], {})
    assert '"ours": {"p50"' not in as_json([failed], {}).replace("\n", "")


def test_nothing_is_compared_with_a_reference_that_failed() -> None:
    """Without a reference the figures stand alone."""
    figure = result(raw="missing").figure("ours", TIME)
    assert figure is not None
    assert figure.ratio is None


def test_quartiles_hold_half_of_the_rounds() -> None:
    """One round is its own spread; of five, the middle three are within."""
    assert Figure((1.0,)).quartiles == (1.0, 1.0)
    assert Figure((5.0, 1.0, 3.0, 2.0, 4.0)).quartiles == (2.0, 4.0)


def test_percentile_is_a_value_that_was_measured() -> None:
    """The middle and the last of a hundred values."""
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (51.0, 100.0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.95e-05, "s", "19.5 µs"),
        (0.5, "s", "500 ms"),
        (77500.0, "/s", "77,500/s"),
        (3 * 2**20, "bytes", "3 MiB"),
    ],
)
def test_values_are_told_in_units_that_fit(value: float, unit: str, text: str) -> None:
    """A table shows three figures and the unit of that size."""
    assert told(value, unit) == text
