"""The table of a worker's transitions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from dspex_pool.lifecycle import TRANSITIONS, WorkerState, move


@dataclass
class Record:
    """Anything with a state."""

    state: WorkerState


PAIRS = list(itertools.product(WorkerState, WorkerState))


def test_move_does_what_the_table_says_and_nothing_else() -> None:
    """Every listed transition is made and tells the state left; every other one is refused as our own bug."""
    for left, to in PAIRS:
        record = Record(left)
        if to in TRANSITIONS[left]:
            assert move(record, to) is left
            assert record.state is to
        else:
            with pytest.raises(AssertionError, match=f"no transition from {left.value} to {to.value}"):
                move(record, to)
            assert record.state is left


def test_death_is_reachable_from_everywhere_and_final() -> None:
    """Whatever a worker does, its process may end; nothing comes back."""
    assert TRANSITIONS[WorkerState.DEAD] == frozenset()
    for state in set(WorkerState) - {WorkerState.DEAD}:
        assert WorkerState.DEAD in TRANSITIONS[state]


def test_only_a_worker_proven_clean_is_lent() -> None:
    """Leases begin in idleness and nowhere else."""
    assert [state for state in WorkerState if WorkerState.LEASED in TRANSITIONS[state]] == [WorkerState.IDLE]
