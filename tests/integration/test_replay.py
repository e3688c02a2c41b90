"""The line of a failed simulation, typed into a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.planted_failures import fail_all, replay, write_project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def test_printed_line_repeats_the_failure_in_a_fresh_process(tmp_path: Path) -> None:
    """Another process with another hash seed fails with the same error and prints the same line."""
    write_project(tmp_path, 2)
    failures = fail_all(tmp_path, hash_seed=1)
    assert len(failures) == 2
    for number, failure in enumerate(failures.values()):
        assert replay(tmp_path, failure, hash_seed=2 + number) == failure
