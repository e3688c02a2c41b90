"""The seed of a run."""

from __future__ import annotations

import pytest

from dspex_testkit.seeds import chosen_seed, how_to_replay, random_of

pytestmark = pytest.mark.fast


def test_command_line_wins_over_the_environment_and_that_over_chance() -> None:
    """Who names a seed gets it; who names none gets another one each time."""
    assert chosen_seed(0, {"DSPEX_SEED": "7"}) == 0
    assert chosen_seed(None, {"DSPEX_SEED": " 7 "}) == 7
    drawn = {chosen_seed(None, {"DSPEX_SEED": ""}) for _ in range(20)}
    assert len(drawn) > 1


def test_seed_that_is_no_number_is_refused() -> None:
    """A typing error is told, not replaced by a seed that nobody asked for."""
    with pytest.raises(ValueError, match="DSPEX_SEED must be a whole number, not 'abc'"):
        chosen_seed(None, {"DSPEX_SEED": "abc"})


def test_draws_depend_on_seed_and_name_alone() -> None:
    """A test draws the same whatever ran before it; another test, and another seed, draw something else."""
    first = [random_of(7, "a").random() for _ in range(2)]
    assert first[0] == first[1]
    assert len({random_of(seed, name).random() for seed in (7, 8) for name in "ab"}) == 4


def test_replay_is_told_in_words_that_can_be_typed() -> None:
    """Both ways to give the seed are in the line."""
    assert how_to_replay(7) == "seed 7; replay with --dspex-seed=7 or DSPEX_SEED=7"
