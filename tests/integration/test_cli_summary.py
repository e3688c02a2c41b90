"""The numbers at the end add up, and the screen shows them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from dspex_pool.cli.journal import Mark
from dspex_pool.cli.problems import ExitCode
from dspex_pool.cli.records import Answer, Entry, RowError
from dspex_pool.cli.screen import (
    BarScreen,
    PlainScreen,
    QuietScreen,
    choose_screen,
    print_summary,
    summary_lines,
)
from dspex_pool.cli.summary import Tally, exit_code_of_run, percentile
from tests.cases import case

pytestmark = pytest.mark.integration


def entry(duration: float, *, failed: bool = False, attempts: int = 1, match: bool | None = None) -> Entry:
    """Make the record of a row."""
    error = RowError("E", "m") if failed else None
    return Entry(1, match, Answer(1, None if failed else {}, error, attempts, "w-1", duration))


def finished() -> Tally:
    """Make the books of a run of four rows, one of them of an earlier run."""
    tally = Tally(5)
    tally.recall(Mark(0, True, False, 2))
    tally.add(entry(0.1, match=True))
    tally.add(entry(0.3, attempts=3, match=False))
    tally.add(entry(0.2, failed=True))
    tally.restarts.update({"died": 2, "torn_frame": 1})
    return tally


def test_summary_adds_up() -> None:
    """Counts include the earlier run; speed and percentiles are of this one alone."""
    summary = finished().summary(6.0)
    assert (summary.total, summary.done, summary.earlier, summary.missing) == (5, 4, 1, 1)
    assert (summary.failed, summary.retried, summary.matched, summary.compared) == (2, 2, 1, 3)
    assert (summary.rows_per_second, summary.p50, summary.p95, summary.p99) == (0.5, 0.2, 0.3, 0.3)
    assert summary.restarts == {"died": 2, "torn_frame": 1}


def test_summary_of_nothing_has_no_percentiles() -> None:
    """And divides by no zero."""
    summary = Tally(0).summary(0.0)
    assert (summary.p50, summary.rows_per_second) == (None, 0.0)


def test_percentile_is_a_value_that_occurred() -> None:
    """The nearest rank: no interpolation invents a time."""
    cases: list[tuple[list[float], float, float | None]] = [
        ([], 50, None),
        ([7.0], 1, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        (list(range(1, 101)), 99, 99),
    ]
    for values, percent, found in cases:
        assert percentile(values, percent) == found, (values, percent)


def test_exit_status_of_a_run() -> None:
    """0 only if every row of the input has an answer and nobody stopped the run."""
    cases: list[tuple[int, int, ExitCode | None, ExitCode]] = [
        (3, 0, None, ExitCode.OK),
        (3, 1, None, ExitCode.FAILED),
        (2, 0, None, ExitCode.FAILED),
        (3, 0, ExitCode.INTERRUPTED, ExitCode.INTERRUPTED),
        (2, 1, ExitCode.TERMINATED, ExitCode.TERMINATED),
    ]
    for done, failed, stopped_by, code in cases:
        with case(done, failed, stopped_by):
            tally = Tally(3, done=done, failed=failed)
            assert exit_code_of_run(tally.summary(1.0), stopped_by=stopped_by) == code


def test_table_has_a_line_for_each_number(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, so that the answers alone are on stdout."""
    assert summary_lines(finished().summary(6.0)) == [
        ("rows done", "4 of 5"),
        ("of an earlier run", "1"),
        ("failed", "2"),
        ("retried", "2"),
        ("rows a second", "0.5"),
        ("seconds a row, p50 / p95 / p99", "0.200 / 0.300 / 0.300"),
        ("worker restarts", "died 2, torn_frame 1"),
        ("answers that match", "1 of 3 (33.3 %)"),
    ]
    print_summary(finished().summary(6.0))
    shown = capsys.readouterr()
    assert shown.out == ""
    for what, how_much in summary_lines(finished().summary(6.0)):
        assert what in shown.err
        assert how_much in shown.err


def test_table_of_nothing_has_words_for_it() -> None:
    """No restarts, no times and nothing to compare are said, not left empty."""
    lines = dict(summary_lines(Tally(0).summary(1.0)))
    assert lines["worker restarts"] == "none"
    assert lines["answers that match"] == "nothing expected"
    assert lines["seconds a row, p50 / p95 / p99"] == "- / - / -"
    assert "of an earlier run" not in lines


def test_log_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Where stderr is no terminal, progress is a line every few seconds."""
    with choose_screen(total=5, quiet=False, progress=False) as screen:
        assert isinstance(screen, PlainScreen)
        screen.show(finished(), 6.0)
        screen.say("something")
    assert capsys.readouterr().err == "dspex-pool: 4/5 rows, 2 failed, 0.5 rows/s\ndspex-pool: something\n"


def test_quiet_screen_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """What the user must know is still said."""
    with choose_screen(total=5, quiet=True, progress=True) as screen:
        assert isinstance(screen, QuietScreen)
        screen.show(finished(), 6.0)
        screen.say("stopping")
    assert capsys.readouterr().err == "dspex-pool: stopping\n"


def test_bar_is_drawn_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """--progress draws it also into a pipe."""
    with choose_screen(total=5, quiet=False, progress=True) as screen:
        assert isinstance(screen, BarScreen)
        screen.show(finished(), 6.0)
        screen.say("[not] markup")
    shown = capsys.readouterr()
    assert "4/5" in shown.err
    assert "2 failed · 0.5 rows/s" in shown.err
    assert "dspex-pool: [not] markup" in shown.err
    assert shown.out == ""


def test_bar_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to ask for it there."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with choose_screen(total=5, quiet=False, progress=False) as screen:
        assert isinstance(screen, BarScreen)


@pytest.mark.parametrize("progress", [True, False])
def test_screen_survives_a_closed_stderr(progress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that went away stops no run."""

    def gone(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    with choose_screen(total=5, quiet=False, progress=progress) as screen, monkeypatch.context() as patched:
        patched.setattr(sys.stderr, "write", gone)
        screen.show(finished(), 6.0)
        screen.say("nobody hears this")
        print_summary(finished().summary(6.0))
