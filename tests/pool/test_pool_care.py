"""Care for workers and leases, on every kind of port: resets, pings, memory, and who may touch what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import CallTimeoutError, UseAfterReturnError, WorkerDiedError
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.pool.callers import BRISK, planned, serving, use
from tests.session_workers import EventLog

if TYPE_CHECKING:
    from dspex_pool.lease import Lease
    from dspex_pool.worker import PoolWorker
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")


async def test_timeout_of_an_earlier_call_does_not_touch_the_next_caller(make_pool: MakePool) -> None:
    """A call that was given up is over before its worker is lent again; its answer reaches nobody. [property 110]"""
    late = Plan().late_reply("too late", after=3 * make_pool.unit)
    async with make_pool.worker_pool(cancel_grace=30.0) as pool:
        with pytest.raises(CallTimeoutError):
            async with pool.checkout() as lease:
                await lease.request(*planned(late), timeout=make_pool.unit)
        assert await serving(pool) == 1


async def test_worker_is_reset_before_the_next_can_see_it(make_pool: MakePool) -> None:
    """Who waits gets the worker only when the reset of what the last caller left is done. [property 111]"""
    seen: list[object] = []

    async def reset(worker: PoolWorker) -> None:
        await trio.sleep(make_pool.unit)
        worker.state = "clean"

    async def look(pool: WorkerPool) -> None:
        async with pool.checkout() as lease:
            seen.append(lease.worker.state)

    async with make_pool.worker_pool(reset=reset) as pool, trio.open_nursery() as nursery:
        async with pool.checkout() as lease:
            nursery.start_soon(look, pool)
            await lease.request("echo")
            lease.update("private")
    assert seen == ["clean"]


async def test_late_cleanup_of_a_wrapper_does_not_touch_the_next_lease(make_pool: MakePool) -> None:
    """A fixture that gives its worker back twice, or late, takes nothing from who has it now. [property 112]"""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports) as pool:
        fixture = pool.checkout()
        earlier = await fixture.__aenter__()
        await fixture.__aexit__(None, None, None)
        async with pool.checkout() as lease:
            lease.update("mine")
            await fixture.__aexit__(None, None, None)
            with pytest.raises(UseAfterReturnError):
                earlier.retire()
            with pytest.raises(UseAfterReturnError):
                earlier.update("stolen")
            with pytest.raises(UseAfterReturnError):
                await earlier.request("echo")
            assert await lease.request("echo") == {}
            assert pool.statistics().leased == 1
        assert [worker.state for worker in pool.workers()] == ["mine"]
        assert ports.ports[0].received == ["ping", "echo"]


async def test_checkout_is_good_for_one_block(make_pool: MakePool) -> None:
    """Entering the same checkout again, or in two tasks, is refused instead of sharing a worker. [property 112]"""
    async with make_pool.worker_pool(pool_size=2) as pool:
        checkout = pool.checkout()
        async with checkout as lease:
            with pytest.raises(UseAfterReturnError, match="one block"):
                await checkout.__aenter__()
            assert not lease.is_ended
        with pytest.raises(UseAfterReturnError, match="one block"):
            await checkout.__aenter__()
        assert pool.statistics().leased == 0


async def test_suspending_lends_nothing_that_was_returned_meanwhile(make_pool: MakePool) -> None:
    """A change of mode takes nothing out of hands, and lends nothing until it ends. [property 112]"""
    lent: list[Lease] = []

    async def borrow(pool: WorkerPool) -> None:
        async with pool.checkout() as lease:
            lent.append(lease)

    async with make_pool.worker_pool() as pool, trio.open_nursery() as nursery:
        async with pool.checkout():
            pool.suspend()
            nursery.start_soon(borrow, pool)
            await until(lambda: pool.statistics().waiting == 1, "the borrower waits")
        await trio.testing.wait_all_tasks_blocked()
        assert lent == []
        assert pool.statistics().idle == 1
        pool.resume()
        await until(lambda: len(lent) == 1, "the borrower is served")


async def test_claim_finds_out_that_a_worker_is_not_clean(make_pool: MakePool) -> None:
    """A worker that has said something unasked is retired instead of claimed."""
    ports = make_pool.ports()
    late_noise = Plan().reply("said").after(2 * make_pool.unit).garbage(b"noise")
    async with make_pool.worker_pool(ports=ports) as pool:
        async with pool.checkout() as lease:
            await lease.request(*planned(late_noise))
        await until(ports.ports[0].has_unread, "the noise is there")
        assert pool.claim(pool.workers()[0]) is None
        await until(lambda: ports.started == 2, "the worker is replaced")
        counters = pool.statistics().counters
        assert (counters.attempts, counters.granted) == (1, 1)


#: Bytes; more than any worker of a test has.
LIMIT = 10**12


async def test_worker_that_grew_too_large_is_replaced_at_check_in(make_pool: MakePool) -> None:
    """Above ``max_rss_bytes`` a worker finishes its lease and then leaves."""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports, max_rss_bytes=LIMIT) as pool:
        async with pool.checkout() as lease:
            ports.ports[0].pretended_bytes = LIMIT + 1
            assert pool.measure_memory() == {"w-1": LIMIT + 1}
            assert await lease.request("echo") == {}
        await until(lambda: ports.started == 2, "the worker is replaced")
        ports.ports[1].pretended_bytes = LIMIT
        await use(pool)
        assert pool.measure_memory() == {"w-1": LIMIT}
        assert ports.live == [ports.ports[1]]


async def test_idle_worker_that_grew_too_large_is_replaced_when_it_is_measured(make_pool: MakePool) -> None:
    """``measure_memory`` applies the limit at once; a worker of unknown or lesser size is left alone."""
    ports = make_pool.ports()
    async with make_pool.worker_pool(pool_size=2, ports=ports, max_rss_bytes=LIMIT) as pool:
        await pool.wait_ready(2)
        victim = ports.ports[0]
        victim.pretended_bytes = 5 * LIMIT
        assert pool.measure_memory()[victim.worker_id] == 5 * LIMIT
        await until(lambda: ports.started == 3, "the worker is replaced")
        assert victim not in ports.live
        assert 5 * LIMIT not in pool.measure_memory().values()


async def test_memory_of_a_worker_is_measured_when_it_is_returned(make_pool: MakePool) -> None:
    """One that takes more than is allowed is not lent again; without a bound nobody asks."""
    for bound, incarnation in ((LIMIT, 2), (None, 1)):
        ports = make_pool.ports()
        async with make_pool.worker_pool(ports=ports, max_rss_bytes=bound) as pool:
            async with pool.checkout() as lease:
                ports.ports[0].pretended_bytes = 5 * LIMIT
                await lease.request("echo")
            assert await serving(pool) == incarnation


async def test_worker_that_is_found_unclean_when_it_is_claimed_is_replaced_at_once(
    make_pool: MakePool,
) -> None:
    """Although nobody else asks the pool for anything."""
    ports, unit = make_pool.ports(), make_pool.unit
    ports.order("echo", Plan().reply("x").after(unit).garbage(), times=1)
    async with make_pool.worker_pool(ports=ports) as pool:
        await use(pool)
        (worker,) = pool.workers()
        await until(worker.port.has_unread, "it has said something unasked")
        assert pool.claim(worker) is None
        await until(lambda: [each.incarnation for each in pool.workers()] == [2], "it is replaced")


async def test_worker_that_does_not_answer_a_ping_is_replaced(make_pool: MakePool) -> None:
    """A real exchange that hangs is given up at ``ping_timeout``; callers are served meanwhile. [property 63]"""
    ports, unit = make_pool.ports(), make_pool.unit
    patience = {"health_check_interval": 3 * unit, "ping_timeout": 8 * unit}
    async with make_pool.worker_pool(ports=ports, pool_size=2, **patience, **BRISK) as pool:
        await pool.wait_ready(2)
        victim = ports.stop("w-1")
        await until(lambda: victim.received.count("ping") == 2, "it is pinged")
        async with pool.checkout(timeout=5 * unit) as lease:
            assert lease.worker_id == "w-2"
        await until(lambda: victim.exit_status is not None, "it is ended")
        await until(lambda: pool.statistics().ready == 2, "it is replaced")
        # Whoever called the ping off knows: of one that has failed besides, nothing is told.
        assert pool.statistics().counters.stale_notices == 0


async def test_worker_that_says_more_than_asked_is_replaced_after_its_ping(make_pool: MakePool) -> None:
    """An answer to a ping with something behind it proves that the worker is not clean. [property 52]"""
    ports = make_pool.ports()
    ports.order("ping", Plan().reply("pong").garbage(), times=1)
    async with make_pool.worker_pool(ports=ports, health_check_interval=3 * make_pool.unit) as pool:
        await until(lambda: ports.started == 2 and pool.statistics().ready == 1, "it is replaced")
        assert [port.incarnation for port in ports.live] == [2]


async def test_pool_tells_when_it_is_ready_and_when_not(make_pool: MakePool) -> None:
    """The first worker in service and the loss of the last are events; those between are not."""
    ports, log = make_pool.ports(), EventLog()
    async with make_pool.worker_pool(ports=ports, telemetry=log.telemetry, pool_size=2) as pool:
        await pool.wait_ready(2)
        ports.kill_all()
        # The pool hears of an end after it has happened.
        await until(lambda: pool.statistics().counters.reaped == 2, "both are gone")
        await pool.wait_ready(2)
        ports.end(ports.live[0])
        await until(lambda: pool.statistics().counters.reaped == 3, "one is gone")
    told = [(name, dict(measured)) for name, measured, _ in log.events if name in ("ready", "unready")]
    assert told == [("ready", {"workers": 1}), ("unready", {"workers": 0})] * 2
    for name, event in (("ready", "worker_started"), ("unready", "worker_retiring")):
        assert log.names[log.names.index(name) - 1] == event


async def test_death_during_a_call_is_told_with_its_cause_and_not_retried(make_pool: MakePool) -> None:
    """The caller hears of the signal and that the request was sent; nobody runs it again. [property 56]"""
    async with make_pool.worker_pool() as pool:
        with pytest.raises(WorkerDiedError) as caught:
            async with pool.checkout() as lease:
                await lease.request("crash")
        assert caught.value.signal == 9
        assert caught.value.request_sent is True
        assert caught.value.request_read in (True, None)
        assert await serving(pool) == 2
        assert pool.statistics().counters.granted == 2


@pytest.mark.parametrize("state", ["idle", "leased", "draining", "pinging", "retiring"])
async def test_pool_is_whole_again_after_a_kill(state: str, make_pool: MakePool) -> None:
    """A worker killed in any state is replaced, at once; nothing is counted twice or lost. [property 35, 57]"""
    ports, unit = make_pool.ports(), make_pool.unit
    slow: dict[str, Any] = {"cancel_grace": 20.0, "terminate_grace": 20.0, "ping_timeout": 20.0}
    slow["health_check_interval"] = 2 * unit if state == "pinging" else None
    async with make_pool.worker_pool(ports=ports, pool_size=2, **slow) as pool:
        await pool.wait_ready(2)
        victim = ports.port("w-1")
        claim = pool.claim(pool.workers()[0]) if state in ("leased", "draining") else None
        if state in ("pinging", "retiring"):
            ports.stop("w-1")
        if state == "retiring":
            pool.drain()
        if claim is not None:
            async with claim as lease:
                if state == "leased":
                    ports.end(victim)
                with pytest.raises((CallTimeoutError, WorkerDiedError)):
                    await lease.request(*planned(Plan().stall(deaf=True)), timeout=unit)
        if state != "idle":
            await until(lambda: getattr(pool.statistics(), state) or victim.exit_status, f"it is {state}")
        ports.end(victim)
        lost = 2 if state == "retiring" else 1
        await until(lambda: pool.statistics().counters.reaped >= lost, "it is reaped")
        await until(lambda: pool.statistics().idle == pool.statistics().processes == 2, "all is well")
        assert pool.statistics().counters.reaped == lost


async def test_kill_of_one_worker_blocks_no_other(make_pool: MakePool) -> None:
    """Workers share no pipe and no lock: one killed in the middle of an answer hurts nobody. [property 104]"""
    async with make_pool.worker_pool(pool_size=2) as pool:
        await pool.wait_ready(2)
        async with pool.checkout() as victim, pool.checkout() as other, trio.open_nursery() as nursery:

            async def work() -> None:
                while True:
                    await victim.request("big", {"bytes": 400_000})

            async def be_killed() -> None:
                with pytest.raises(WorkerDiedError):
                    await work()

            nursery.start_soon(be_killed)
            for number in range(20):
                assert await other.request("echo", {"n": number}) == {"n": number}
            make_pool.end(victim.worker)
            for number in range(20):
                assert await other.request("echo", {"n": number}) == {"n": number}


async def test_slow_command_delays_nobody_on_other_workers(make_pool: MakePool) -> None:
    """One command that takes long does not stand at the head of anybody's line."""
    async with make_pool.worker_pool(pool_size=2, **BRISK) as pool:
        await pool.wait_ready(2)
        async with pool.checkout() as slow, trio.open_nursery() as nursery:
            nursery.start_soon(slow.request, "sleep", {"seconds": 600})
            for _ in range(50):
                await use(pool)
            nursery.cancel_scope.cancel()


async def test_stopped_worker_holds_no_caller(make_pool: MakePool) -> None:
    """A cancelled caller leaves a worker that is stopped at once; the worker is replaced. [property 9]"""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports, **BRISK) as pool:
        await pool.wait_ready()
        with trio.move_on_after(make_pool.unit):
            async with pool.checkout() as lease:
                ports.stop()
                await lease.request("echo", {})
        assert pool.statistics().leased == 0
        assert await serving(pool) == 2
