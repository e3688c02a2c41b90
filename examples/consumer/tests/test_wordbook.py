"""The wordbook in all layers: simulated, on real bytes, in real processes."""

import pytest
import trio

from dspex_pool.errors import ProgramError, WorkerDiedError

pytestmark = pytest.mark.pool_settings(handler="wordbook.handler:Wordbook", pool_size=2)


@pytest.mark.ports("all")
async def test_words_are_counted(pool):
    """A worker remembers what it has read, for as long as it is lent."""
    async with pool.workers.checkout() as lease:
        assert await lease.request("read", {"text": "to be or not to be"}) == {"words": 6, "new": 4}
        assert await lease.request("read", {"text": "to be"}) == {"words": 2, "new": 0}
        assert await lease.request("often", {"word": "be"}) == 3


@pytest.mark.ports("all")
async def test_mistake_costs_its_call_alone(pool):
    """A missing argument is an error of that call; the worker serves on."""
    with pytest.raises(ProgramError, match="text"):
        await pool.call("read", {})
    assert (await pool.call("read", {"text": "again"})).result["words"] == 1


@pytest.mark.ports("all")
async def test_killed_worker_is_replaced(pool):
    """Whoever comes when the pool is whole again hears nothing of a death."""
    pool.kill()
    await pool.steady()
    assert (await pool.call_many(20, "read", {"text": "on we go"})).ok == 20


async def keep_killing(pool, random):
    """Kill one of two workers that are lent, every now and then."""
    while True:
        await pool.leased(2)
        pool.kill(random.choice(pool.lent()))
        await trio.sleep(random.uniform(0.0, 0.1))


@pytest.mark.chaos
async def test_kills_cost_the_calls_they_hit_and_no_other(pool, dspex_random):
    """Every call ends in its own answer or in the news of a death, and the pool comes back."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_killing, pool, dspex_random)
        outcomes = await pool.call_many(1000, "read", {"text": "x y " * 5000}, callers=4)
        nursery.cancel_scope.cancel()
    assert pool.statistics().counters.reaped, "nobody was killed"
    assert outcomes.ok + outcomes.count(WorkerDiedError) == 1000
    await pool.steady()


@pytest.mark.stress
async def test_every_call_of_many_is_answered(pool):
    """Five thousand calls by sixteen callers: not one is lost."""
    assert (await pool.call_many(5000, "read", {"text": "a b"}, callers=16)).ok == 5000
