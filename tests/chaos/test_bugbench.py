"""The planted-bug bench itself: every bug can still be planted, cheap ones are found, and its page is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dspex_pool.core.wait_line import WaitLine
from tests.bugbench import __main__ as bench
from tests.bugbench.__main__ import PAGE, rows_of
from tests.bugbench.catalogue import BUGS, planted
from tests.bugbench.finders import FAST, FINDERS, Finding, look_for
from tests.bugbench.planting import Bug
from tests.bugbench.verdict import QUICK_SECONDS, SLACK, complaints

if TYPE_CHECKING:
    from dspex_testkit.planting import Planting

pytestmark = pytest.mark.chaos

FASTEST = tuple(finder for finder in FINDERS if finder.name in FAST)
#: One for each finder, and one more for the dearest of them.
CHEAP = (
    "second_frame_dropped",
    "ghost_in_line",
    "leak_on_cancel",
    "any_answer_is_mine",
    "repeated_after_sending",
)


@pytest.mark.parametrize("name", BUGS)
def test_bug_can_be_planted_into_the_present_pool(name: str) -> None:
    """Its places exist, with the parameters that it knows, and are as they were afterwards."""
    before = WaitLine.__dict__["first_for"]
    with planted(BUGS[name]):
        pass
    assert WaitLine.__dict__["first_for"] is before
    assert BUGS[name].sentence
    assert BUGS[name].seen


@pytest.mark.parametrize("name", CHEAP)
def test_planted_bug_is_found(name: str) -> None:
    """A finder that starts no process finds it within its tries."""
    with planted(BUGS[name]):
        assert look_for(FASTEST, scale=0.3).finder


def test_pool_as_it_is_is_not_accused() -> None:
    """Without a bug none of the finders that start no process finds anything."""
    finding = look_for(FASTEST, scale=0.1)
    assert not finding.finder, finding


def test_bug_whose_place_has_gone_is_refused() -> None:
    """A bug cannot quietly be planted nowhere, nor where it does not fit."""

    def elsewhere(planting: Planting) -> None:
        planting.replace(WaitLine, "gone", None)

    def misfit(planting: Planting) -> None:
        def first_for(self: WaitLine) -> None:
            return None

        planting.replace(WaitLine, "first_for", first_for)

    with pytest.raises(LookupError, match="gone"), planted(Bug("a", "b", "c", elsewhere)):
        pass
    with pytest.raises(TypeError, match="worker"), planted(Bug("a", "b", "c", misfit)):
        pass


def test_table_tells_of_every_bug() -> None:
    """The page has a row for each of at least 40 bugs, all of them found by some finder."""
    rows = rows_of(PAGE.read_text(encoding="utf-8"))
    assert [row[0] for row in rows] == [*BUGS]
    assert len(rows) >= 40
    names = {finder.name for finder in FINDERS}
    for _, sentence, seen, finder, tries, seconds in rows:
        assert sentence.endswith(".")
        assert seen
        assert finder in names
        assert int(tries) > 0
        assert float(seconds) >= 0


@pytest.mark.parametrize(
    ("finding", "complaint"),
    [
        (Finding("", 9, 1.0), "found before and not now: "),
        (Finding("explore", 9, QUICK_SECONDS * SLACK + 0.1), "too slow: 0 of 85 "),
        (Finding("processes", 1, 0.1), "too slow: 0 of 85 "),
    ],
    ids=["lost", "slow", "dear"],
)
def test_bench_fails_and_writes_nothing_when_it_finds_less(
    finding: Finding, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug that is lost, or bugs that are found too late or by processes only, turn the bench red."""
    monkeypatch.setattr(bench, "look_for", lambda **_: finding)
    before = PAGE.read_text(encoding="utf-8")
    assert bench.main([]) == 1
    assert f"error: {complaint}" in capsys.readouterr().err
    assert PAGE.read_text(encoding="utf-8") == before


def test_bench_forgives_a_tenth_of_late_bugs_and_no_lost_one() -> None:
    """Nine of ten bugs in time are enough; a single one that nothing finds is too many."""
    found = {f"bug-{number}": Finding("core", 1, QUICK_SECONDS) for number in range(9)}
    assert complaints(found | {"late": Finding("explore", 1, 9.0)}, ()) == []
    assert complaints(found | {"new": Finding("", 1, 9.0)}, ()) == ["found by nothing: new"]
