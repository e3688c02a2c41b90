"""Load for minutes: no call is lost, workers are recycled all the while, and the parent does not grow."""

from __future__ import annotations

import os
import statistics

import psutil
import pytest
import trio

from dspex_pool import PythonPool
from tests.bounded_waits import until
from tests.integration.worker_pools import ECHO

pytestmark = pytest.mark.stress

MINUTES = float(os.environ.get("DSPEX_STRESS_MINUTES", "5"))
CALLERS = 16
#: Share of the run after which buffers and caches have the size that they keep.
WARM = 0.3


# A pool that nobody watches: what the test kit keeps of a run would be taken for growth.
@pytest.mark.trio
async def test_soak_loses_no_call_and_leaves_the_parent_as_it_was() -> None:
    """Sixteen callers in fifty sessions: every answer is its caller's own, memory and descriptors stay flat."""
    async with PythonPool.open(handler=ECHO, pool_size=4, max_uses=2000, monitor_interval=1.0) as pool:
        await soak(pool)
        await until(lambda: pool.statistics().idle == 4, "all workers are back")
        assert pool.statistics().counters.reaped, "no worker was recycled"


async def soak(pool: PythonPool) -> None:
    """Load a pool, and look at this process meanwhile."""
    seconds, parent = 60 * MINUTES, psutil.Process()
    samples: list[tuple[int, int]] = []
    answered = 0

    async def caller(number: int) -> None:
        nonlocal answered
        turn = 0
        while True:
            nonce = f"{number}-{turn}"
            reply = await pool.call(f"s{turn % 50}", "echo", {"nonce": nonce})
            assert reply.result["nonce"] == nonce
            turn, answered = turn + 1, answered + 1

    async def watch() -> None:
        while True:
            await trio.sleep(seconds / 100)
            samples.append((parent.memory_info().rss, parent.num_fds()))

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for number in range(CALLERS):
                nursery.start_soon(caller, number)
    assert answered > 100 * seconds, "hardly any load"
    warm = samples[int(WARM * len(samples)) :]
    half = len(warm) // 2
    for before, after in zip(zip(*warm[:half], strict=True), zip(*warm[half:], strict=True), strict=True):
        assert statistics.median(after) < 1.05 * statistics.median(before), (before, after)
