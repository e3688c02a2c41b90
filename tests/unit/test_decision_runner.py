"""What carries out the core's decisions: nobody sleeps through a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.trio
async def test_changes_wake_who_waits_when_nobody_listens_to_telemetry(autojump_clock: MockClock) -> None:
    """Without a listener a worker's start and end need no decision; readiness and closing are noticed anyway."""
    async with WorkerPool(MockPortFactory(), pool_size=1) as pool:
        with trio.fail_after(1):
            await pool.wait_ready()
    assert trio.current_time() < 1, "closing waited for its grace although the worker had left"
