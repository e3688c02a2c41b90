"""Every failure of a simulation can be had again, from its line alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.planted_failures import fail_all, replay_many, write_project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.planted_failures import Failure

pytestmark = [pytest.mark.chaos, pytest.mark.budget(300)]

FAILURES = 100
#: Replays in one process: each process has another hash seed, and replays in another order.
BATCH = 10


def test_soak_hundred_of_hundred_failures_replay(tmp_path: Path) -> None:
    """In fresh processes, with other hash seeds and in other orders, each test fails as it did, and says so."""
    write_project(tmp_path, FAILURES)
    failures = fail_all(tmp_path, hash_seed=1)
    assert len(failures) == FAILURES
    assert all(failure.kind == "AssertionError" for failure in failures.values())
    again: dict[str, Failure] = {}
    backwards = list(failures.items())[::-1]
    for begin in range(0, FAILURES, BATCH):
        again |= replay_many(tmp_path, backwards[begin : begin + BATCH], hash_seed=100 + begin)
    assert again == failures
