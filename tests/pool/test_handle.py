"""What a test is given that asks for a pool: the same on every kind of port."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import CallTimeoutError, ProgramError, WorkerDiedError
from dspex_testkit.plan import Plan

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


async def test_stopped_worker_goes_on_where_it_was(pool: PoolHandle) -> None:
    """What is sent to a stopped worker lies there; when it goes on it answers, and nothing was lost."""
    pool.stop(0)
    answers: list[object] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append((await pool.call("echo", {"n": 1})).result)

        for _ in range(2):
            nursery.start_soon(ask)
        await pool.until(lambda: len(answers) == 1, "the other worker has answered")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(answers) == 1
        pool.go_on(0)
    assert answers == [{"n": 1}, {"n": 1}]
    assert pool.statistics().counters.reaped == 0
    await pool.steady()


async def test_orders_are_carried_out_as_often_as_they_say_and_by_whom_they_mean(pool: PoolHandle) -> None:
    """The first that fits counts, over all workers; one that is withdrawn, or for somebody else, does not."""
    withdrawn = pool.order("echo", Plan().fail("withdrawn"))
    withdrawn.withdraw()
    elsewhere = pool.order("echo", Plan().fail("elsewhere"), worker="w-99")
    twice = pool.order("echo", Plan().fail("twice"), times=2)
    slow = pool.order("echo", Plan().after(0.01), times=1)
    outcomes = await pool.call_many(10, "echo", callers=2)
    assert (outcomes.count(ProgramError), outcomes.ok) == (2, 8)
    assert [order.happened for order in (withdrawn, elsewhere, twice, slow)] == [0, 0, 2, 1]
    pool.ports.assert_clean()
    await pool.steady()


async def test_starts_fail_by_order_on_every_kind(pool: PoolHandle) -> None:
    """A start that is ordered to fail fails, is counted, and is made good."""
    pool.ports.fail_starts = 1
    pool.kill()
    await pool.until(lambda: pool.ports.failed == 1, "the start has failed")
    await pool.steady()
    assert pool.statistics().counters.start_failures == 1


@pytest.mark.ports("sim")
async def test_steady_pool_has_heard_of_every_death(pool: PoolHandle) -> None:
    """A pool whose worker has died just now only seems to be whole, whoever ended it. A process dies later."""
    pool.ports.kill("w-1")
    await pool.steady()
    assert pool.statistics().counters.reaped == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("echo", 5, {}), "a Plan, such as Plan().reply(5), not 5"),
        ((5, Plan(), {}), "the name of a command, such as 'echo', not 5"),
        (("echo", Plan(), {"worker": 77}), "worker is a name, such as 'w-1', not 77"),
        (("echo", Plan(), {"times": "2"}), "times is a whole number, or None for always, not '2'"),
        (("echo", Plan(), {"times": -1}), "times must be at least 0, or None for always, not -1"),
    ],
)
async def test_order_that_nobody_could_follow_is_refused(pool: PoolHandle, given: Any, said: str) -> None:
    """It was taken without a word: some never happened, others broke the first worker that came to them."""
    command, plan, options = given
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        pool.order(command, plan, **options)
    assert (await pool.call("echo", {"n": 1})).result == {"n": 1}


@pytest.mark.parametrize(("count", "callers"), [(-1, 1), (3, 0), (3, -2)])
async def test_calls_of_nobody_are_refused(pool: PoolHandle, count: int, callers: int) -> None:
    """Less calls than none were as good as none, and calls without callers ended in a ``KeyError``."""
    with pytest.raises(ValueError, match="must be at least"):
        await pool.call_many(count, "echo", callers=callers)
    assert len(await pool.call_many(0, "echo")) == 0


@pytest.fixture
def handed_on(pool: PoolHandle) -> PoolHandle:
    """Return what stands for the pool until the body begins."""
    return pool


async def test_fixture_that_hands_the_pool_on_gives_that_pool(
    pool: PoolHandle, handed_on: PoolHandle
) -> None:
    """Under its second name a second pool was opened, so what was done to the one was looked for in the other."""
    assert handed_on is pool
