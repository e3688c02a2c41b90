"""What a test is given that asks for a pool: the same on every kind of port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.errors import CallTimeoutError, WorkerDiedError

if TYPE_CHECKING:
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")


async def test_killed_worker_costs_one_call(pool: PoolHandle) -> None:
    """A worker that dies over a call costs that call and no other, and is replaced."""
    async with trio.open_nursery() as nursery:

        async def victim() -> None:
            with pytest.raises(WorkerDiedError) as caught:
                await pool.call("sleep", {"seconds": 600})
            assert caught.value.signal == 9

        nursery.start_soon(victim)
        pool.kill(await pool.running("sleep"))
    outcomes = await pool.call_many(20, "echo")
    assert outcomes.ok == 20
    await pool.steady()


async def test_call_that_takes_too_long_frees_its_caller(pool: PoolHandle) -> None:
    """The caller leaves at its timeout; the worker is stopped and serves on."""
    began = trio.current_time()
    with pytest.raises(CallTimeoutError):
        await pool.call("sleep", {"seconds": 600}, timeout=pool.unit)
    assert trio.current_time() - began < 1.5
    await pool.steady()


@pytest.mark.pool_settings(pool_size=1)
async def test_further_pools_have_workers_of_their_own(pool: PoolHandle, make_pool: MakePool) -> None:
    """Pools of one test share nothing."""
    other = await make_pool(pool_size=3)
    assert (pool.size, other.size) == (1, 3)
    assert (await other.call("echo", {"a": 1})).result == {"a": 1}
    assert pool.statistics().counters.attempts == 0
