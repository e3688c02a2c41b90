"""The recording that the tests keep, beside what real workers say today."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dspex_testkit.recordings.compare import assert_unmoved
from dspex_testkit.recordings.entries import VOLATILE
from dspex_testkit.recordings.replay import ReplayPortFactory
from tests.recorded import RECORDING, record, talk_to_echo

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.mark.trio
async def test_recorded_workers_say_today_what_they_said(tmp_path: Path) -> None:
    """If not: look at the differences, and make it anew by ``python -m tests.recorded``."""
    path = tmp_path / "today.jsonl"
    heard = await record(path)
    # Which Python and DSPy are installed is nobody's promise.
    assert_unmoved(RECORDING, path, ignored=VOLATILE | {"versions", "dspy_available"})
    assert await talk_to_echo(ReplayPortFactory(path)) == heard
