"""What an exploration has seen, and whether that shows anything."""

from __future__ import annotations

from collections import Counter

import pytest

from dspex_testkit.simulation.explore import Explored, VacuousError


def seen(draws: int) -> Explored:
    """Return what is seen where one of two kinds, drawn so often, does not happen."""
    drawn = Counter(Kill=draws, SlowStart=draws)
    return Explored(
        runs=4 * draws, used=4 * draws, outcomes=Counter(answer=9), drawn=drawn, met=Counter(Kill=draws)
    )


def test_fault_that_happens_now_and_then_is_not_missed_after_a_few_draws() -> None:
    """Of 20 calls on two workers one start in seven is slow that should be: after ten draws none often was.

    Then a fresh exploration failed now and then, and a night of the fuzzer ended with its first process.
    """
    seen(draws=30).check()


def test_fault_that_never_happens_is_told_with_what_to_do() -> None:
    """After fifty draws nobody waits for it any more."""
    with pytest.raises(
        VacuousError, match=r"\['SlowStart'\]; leave them out of faults, or let more calls"
    ) as caught:
        seen(draws=50).check()
    assert "Kill'" not in str(caught.value)


def test_one_fault_must_happen_however_few_were_drawn() -> None:
    """Where nothing of all that was drawn has happened, nothing is shown."""
    with pytest.raises(VacuousError, match="SlowStart"):
        Explored(runs=1, used=1, drawn=Counter(SlowStart=1)).check()
