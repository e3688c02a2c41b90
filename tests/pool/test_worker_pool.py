"""The pool in use: lending, readiness, closing, administration and hooks, on every kind of port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from dspex_pool.errors import (
    CheckoutTimeoutError,
    PoolClosedError,
    ProgramError,
    SessionBusyError,
    SessionLostError,
)
from tests.bounded_waits import until
from tests.pool.callers import hold, use

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_pool.lease import Lease
    from dspex_pool.worker import PoolWorker
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")


def starts(pool: WorkerPool) -> int:
    """Return how many workers were started."""
    return pool.statistics().counters.starts


# --- lending --------------------------------------------------------------------------------------------


async def test_caller_talks_to_its_worker(make_pool: MakePool) -> None:
    """A lease carries requests and answers, names its worker, and ends with its block."""
    async with make_pool.worker_pool() as pool:
        async with pool.checkout(session="s") as lease:
            assert await lease.request("echo", {"n": 1}) == {"n": 1}
            assert (lease.worker_id, lease.session, lease.token, lease.is_ended) == ("w-1", "s", 1, False)
        assert lease.is_ended
        async with pool.checkout() as later:
            assert later.token == 2


async def test_nowait_lends_what_is_free_and_never_waits(make_pool: MakePool) -> None:
    """Without a free worker ``WouldBlock`` is raised in no time, and nobody is in line."""
    async with make_pool.worker_pool() as pool:
        with pytest.raises(trio.WouldBlock):
            async with pool.checkout_nowait():
                pass
        await pool.wait_ready()
        async with pool.checkout_nowait(session="s", affinity="strict") as lease:
            assert await lease.request("echo") == {}
            with pytest.raises(trio.WouldBlock):
                async with pool.checkout_nowait():
                    pass
            with pytest.raises(SessionBusyError):
                async with pool.checkout_nowait(session="s", affinity="strict_nowait"):
                    pass
        assert pool.statistics().counters.declined == 3
    with pytest.raises(PoolClosedError):
        async with pool.checkout_nowait():
            pass


async def test_timeout_names_those_who_hold_the_workers(make_pool: MakePool) -> None:
    """The error of a vain wait carries the gauges and says who has which worker."""
    async with make_pool.worker_pool() as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool, 1000.0, name="the long one")
        await until(lambda: pool.statistics().leased, "the worker is lent")
        with pytest.raises(CheckoutTimeoutError, match=r"w-1 for .* s by task 'the long one'") as caught:
            async with pool.checkout(timeout=make_pool.unit):
                pass
        assert caught.value.waited is not None
        assert caught.value.waited > 0.9 * make_pool.unit
        assert caught.value.statistics.leased == 1
        assert "by task 'the long one'" in pool.holders()[0]
        nursery.cancel_scope.cancel()
    assert pool.holders() == ()


async def test_error_of_the_block_leaves_as_it_is_and_keeps_the_worker(make_pool: MakePool) -> None:
    """An exception of the caller passes through checkout and pool unwrapped; the worker serves on. [property 53]"""
    error = RuntimeError("mine")
    pool = make_pool.worker_pool()

    async def fail() -> None:
        async with pool:
            for _ in range(2):
                with pytest.raises(ProgramError, match="as asked"):
                    async with pool.checkout() as lease:
                        await lease.request("raise_error")
            async with pool.checkout():
                raise error

    with pytest.raises(RuntimeError) as caught:
        await fail()
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert starts(pool) == 1


async def test_claimed_worker_is_lent_to_nobody_else(make_pool: MakePool) -> None:
    """Housekeeping gets the very worker it asks for, while it is idle, and returns it unused."""
    async with make_pool.worker_pool(pool_size=2) as pool:
        await pool.wait_ready(2)
        worker = pool.workers()[0]
        claimed = pool.claim(worker)
        assert claimed is not None
        async with claimed as lease:
            assert lease.worker is worker
            assert pool.claim(worker) is None
            assert "by the pool's housekeeping" in pool.holders()[0]
            async with pool.checkout() as other:
                assert other.worker is not worker
        assert pool.statistics().idle == 2
    assert pool.claim(worker) is None


# --- opening, readiness, closing ------------------------------------------------------------------------


async def test_pool_opens_once(make_pool: MakePool) -> None:
    """A second opening, also after the close, is refused and harms nothing."""
    pool = make_pool.worker_pool()
    async with pool:
        with pytest.raises(PoolClosedError, match="twice"):
            await pool.__aenter__()
        await use(pool)
    with pytest.raises(PoolClosedError, match="twice"):
        await pool.__aenter__()


async def test_pool_that_is_not_open_yet_says_so(make_pool: MakePool) -> None:
    """Before its block nothing can be lent or awaited, and what changes the pool starts nothing."""
    pool = make_pool.worker_pool()
    for _ in range(2):
        with pytest.raises(PoolClosedError, match="not open yet"):
            await use(pool)
        with pytest.raises(PoolClosedError, match="not open yet"):
            await pool.wait_ready()
        pool.resize(2)
        pool.drain()
        pool.suspend()
        pool.resume()
    assert (starts(pool), pool.statistics().processes) == (0, 0)
    async with pool:
        await pool.wait_ready(2)
        await use(pool)


async def test_readiness_is_service_and_not_idleness(make_pool: MakePool) -> None:
    """``wait_ready`` returns when so many workers are in service, not when they are free."""
    async with make_pool.worker_pool(pool_size=2, max_starting=1) as pool, pool.checkout():
        await pool.wait_ready(2)
        await pool.wait_ready(2)
        assert (pool.statistics().leased, pool.statistics().ready) == (1, 2)


async def test_lazy_pool_gets_ready_for_who_waits_for_it(make_pool: MakePool) -> None:
    """Waiting for workers that nobody else would start starts them, and keeps none afterwards. [property 24]"""
    ports = make_pool.ports(start_delay=make_pool.unit)
    async with make_pool.worker_pool(pool_size=3, ports=ports, lazy=True) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.wait_ready, 2)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.floor == 2
        assert (pool.floor, pool.statistics().idle) == (0, 2)
        await trio.sleep(make_pool.unit)
        assert starts(pool) == 2


async def test_nobody_waits_for_more_workers_than_there_can_be(make_pool: MakePool) -> None:
    """More than ``pool_size`` are refused; when the pool shrinks meanwhile, all it has left will do. [property 24]"""
    async with make_pool.worker_pool(pool_size=2, max_starting=1) as pool:
        with pytest.raises(ValueError, match=r"3 workers .* pool_size is 2"):
            await pool.wait_ready(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.wait_ready, 2)
            await trio.testing.wait_all_tasks_blocked()
            pool.resize(1)


async def test_waiting_for_readiness_changes_nothing_when_cancelled(make_pool: MakePool) -> None:
    """Whoever stops waiting leaves no trace, and the pool gets ready for others."""
    async with make_pool.worker_pool(lazy=True) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.wait_ready)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await pool.wait_ready()
        assert pool.statistics().idle == 1
        assert starts(pool) == 1


async def test_pool_within_a_cancelled_scope_closes_and_lets_the_cancellation_go_on(
    make_pool: MakePool,
) -> None:
    """A cancellation around the pool is neither swallowed nor turned into something else. [property 81]"""
    pool = make_pool.worker_pool()
    with trio.CancelScope() as outer:
        with trio.CancelScope() as inner:
            async with pool, pool.checkout() as lease:
                await lease.request("echo")
                outer.cancel()
                await trio.sleep_forever()
        raise AssertionError("the inner scope has taken the outer one's cancellation")
    assert outer.cancelled_caught
    assert not inner.cancelled_caught
    assert pool.statistics().processes == 0


async def test_cancellation_within_the_pool_does_not_touch_the_pool(make_pool: MakePool) -> None:
    """A caller that is cancelled costs the pool nothing but the care of its worker. [property 53]"""
    async with make_pool.worker_pool() as pool:
        with trio.CancelScope() as scope:
            async with pool.checkout() as lease:
                sent = lease.worker.port.bytes_sent
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lease.request, "sleep", {"seconds": 600})
                    await until(lambda: lease.worker.port.bytes_sent > sent, "the request is sent")
                    scope.cancel()
        assert scope.cancelled_caught
        async with pool.checkout() as lease:
            assert await lease.request("echo", {"n": 2}) == {"n": 2}
        assert starts(pool) == 1


# --- administration -------------------------------------------------------------------------------------


async def test_statistics_are_a_snapshot(make_pool: MakePool) -> None:
    """What was read does not change when the pool goes on."""
    async with make_pool.worker_pool() as pool:
        before = pool.statistics()
        await use(pool)
        assert (before.counters.granted, pool.statistics().counters.granted) == (0, 1)
        assert (before.live, before.ready, before.processes) == (1, 0, 1)


async def test_suspended_pool_lets_callers_wait(make_pool: MakePool) -> None:
    """Nobody is served between ``suspend`` and ``resume``, then everybody in order."""
    async with make_pool.worker_pool() as pool, trio.open_nursery() as nursery:
        await pool.wait_ready()
        pool.suspend()
        nursery.start_soon(hold, pool, 1000.0)
        await trio.sleep(make_pool.unit)
        assert (pool.statistics().waiting, pool.statistics().idle) == (1, 1)
        with pytest.raises(trio.WouldBlock):
            async with pool.checkout_nowait():
                pass
        pool.resume()
        await until(lambda: pool.statistics().leased, "the worker is lent")
        assert pool.statistics().waiting == 0
        nursery.cancel_scope.cancel()


async def test_drained_pool_has_new_workers(make_pool: MakePool) -> None:
    """After ``drain`` every worker is another one, a lent one when it comes back."""
    async with make_pool.worker_pool(pool_size=2) as pool:
        await pool.wait_ready(2)
        async with pool.checkout() as lease:
            pool.drain()
            await until(lambda: starts(pool) == 3 and pool.statistics().live == 2, "one is replaced")
            assert await lease.request("echo") == {}
        await until(lambda: pool.statistics().idle == 2 and starts(pool) == 4, "all are replaced")
        assert sorted(worker.incarnation for worker in pool.workers()) == [3, 4]


async def test_forgotten_session_may_begin_anew(make_pool: MakePool) -> None:
    """A strict session that lost its worker is refused until the pool is told to forget it."""
    async with make_pool.worker_pool() as pool:
        await use(pool, session="s", affinity="strict")
        make_pool.end(pool.workers()[0])
        await until(lambda: starts(pool) == 2, "the dead worker is replaced")
        with pytest.raises(SessionLostError):
            await use(pool, session="s", affinity="strict")
        pool.forget_session("s")
        await use(pool, session="s", affinity="strict")


async def test_strict_session_outlives_a_worker_that_got_nothing_of_it(make_pool: MakePool) -> None:
    """Whoever finds its first worker dead before it has asked for anything asks again, and is served."""
    async with make_pool.worker_pool() as pool:
        await pool.wait_ready()
        async with pool.checkout(session="s", affinity="strict") as lease:
            make_pool.end(lease.worker)
            await lease.worker.exited.wait()
        await use(pool, session="s", affinity="strict")
        assert starts(pool) == 2


# --- hooks ----------------------------------------------------------------------------------------------


async def test_setup_hook_prepares_each_lease(make_pool: MakePool) -> None:
    """The hook runs in the caller's task before its block, with the lease."""
    prepared: list[tuple[int, str]] = []

    async def setup(lease: Lease) -> None:
        await lease.request("echo")
        prepared.append((lease.token, trio.lowlevel.current_task().name))

    async with make_pool.worker_pool(setup=setup) as pool, trio.open_nursery() as nursery:
        for name in ("a", "b"):
            nursery.start_soon(hold, pool, 0.0, name=name)
    assert sorted(token for token, _ in prepared) == [1, 2]
    assert sorted(name for _, name in prepared) == ["a", "b"]


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
async def test_setup_hook_that_fails_costs_the_worker_and_serves_the_next(
    how: str, make_pool: MakePool
) -> None:
    """The caller gets the hook's error, the worker is retired, the head of the line gets another. [property 6]"""

    async def setup(lease: Lease) -> None:
        if lease.token == 1:
            await until(lambda: pool.statistics().waiting, "somebody waits")
            if how == "is cancelled":
                await trio.sleep_forever()
            raise LookupError("no data")

    async with make_pool.worker_pool(setup=setup) as pool, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                first.start_soon(expect_lookup_error, pool)
                await until(lambda: pool.statistics().leased, "the first is being set up")
                nursery.start_soon(use, pool)
                if how == "is cancelled":
                    await until(lambda: pool.statistics().waiting, "the next waits")
                    scope.cancel()
        assert scope.cancelled_caught == (how == "is cancelled")
    assert starts(pool) == 2
    assert pool.statistics().counters.granted == 2


async def expect_lookup_error(pool: WorkerPool) -> None:
    """Ask for a worker whose set-up fails."""
    with pytest.raises(LookupError):
        await use(pool)


async def test_reset_hook_cleans_after_each_use(make_pool: MakePool) -> None:
    """The hook runs after leases that used their worker, and after no other. [property 111]"""
    cleaned: list[int] = []

    async def reset(worker: PoolWorker) -> None:
        await worker.request("echo", {})
        cleaned.append(worker.incarnation)

    async with make_pool.worker_pool(reset=reset) as pool:
        async with pool.checkout():
            pass
        await trio.sleep(make_pool.unit)
        assert cleaned == []
        await use(pool)
        await use(pool)
        await until(lambda: pool.statistics().idle, "the worker is clean")
        assert cleaned == [1, 1]


async def reset_that_raises(_: PoolWorker) -> None:
    """Fail."""
    raise LookupError("no data")


async def reset_that_hangs(_: PoolWorker) -> None:
    """Never end."""
    await trio.sleep_forever()


async def reset_that_leaves_an_answer_due(worker: PoolWorker) -> None:
    """Give a request up."""
    with trio.move_on_after(0.1):
        await worker.request("sleep", {"seconds": 600})


@pytest.mark.parametrize("reset", [reset_that_raises, reset_that_hangs, reset_that_leaves_an_answer_due])
async def test_reset_hook_that_fails_costs_the_worker(
    reset: Callable[[PoolWorker], Awaitable[None]], make_pool: MakePool
) -> None:
    """A worker that was not cleaned within ``cancel_grace`` is replaced, and who waits is served. [property 54]"""
    async with make_pool.worker_pool(reset=reset, cancel_grace=2 * make_pool.unit) as pool:
        async with trio.open_nursery() as nursery:
            async with pool.checkout() as lease:
                await lease.request("echo")
                nursery.start_soon(use, pool)
        await until(lambda: starts(pool) >= 2, "the worker is replaced")
        assert lease.worker not in pool.workers()
