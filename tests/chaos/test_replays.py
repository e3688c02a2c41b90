"""Every failure of a simulation can be had again, from its line alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.planted_failures import fail_all, replay_many, write_project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.planted_failures import Failure

pytestmark = [pytest.mark.chaos, pytest.mark.budget(120)]

FAILURES = 100
#: Tests that fail and replay them side by side.
PARTS = 4
#: Replays with one hash seed, each in a process of its own.
BATCH = 13


@pytest.mark.parametrize("part", range(PARTS))
def test_soak_hundred_of_hundred_failures_replay(part: int, tmp_path: Path) -> None:
    """In fresh processes, with other hash seeds and in other orders, each test fails as it did, and says so."""
    share = FAILURES // PARTS
    write_project(tmp_path, share, first=part * share)
    failures = fail_all(tmp_path, hash_seed=1)
    assert len(failures) == share
    assert all(failure.kind == "AssertionError" for failure in failures.values())
    again: dict[str, Failure] = {}
    backwards = list(failures.items())[::-1]
    for begin in range(0, share, BATCH):
        again |= replay_many(tmp_path, backwards[begin : begin + BATCH], hash_seed=100 * (1 + part) + begin)
    assert again == failures
