"""Starting, on every kind of port: failures are made good, hangs are ended, and nobody waits in vain."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.errors import CheckoutTimeoutError, CircuitOpenError, UseAfterReturnError, WorkerStartError
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.pool.callers import BRISK, serving, use

if TYPE_CHECKING:
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")


def patience(make_pool: MakePool) -> float:
    """Return the seconds after which a start hangs for sure."""
    return 2.0 if make_pool.port == "process" else 20 * make_pool.unit


async def test_failing_starts_do_not_flood_the_log(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try writes at most one line, and tries are as rare as the back-off makes them. [property 37]"""
    unit, ports = make_pool.unit, make_pool.ports(fail_starts=10_000)
    rare = {"backoff_min": 0.5 * unit, "backoff_max": 5.0 * unit}
    async with make_pool.worker_pool(ports=ports, pool_size=2, **rare) as pool:
        with caplog.at_level(logging.DEBUG):
            with pytest.raises(CheckoutTimeoutError, match="ordered by the test"):
                async with pool.checkout(timeout=15.0 * unit):
                    pass
    assert len(caplog.records) <= len(ports.attempts) < 20


async def test_hanging_start_is_ended_and_delays_no_other(make_pool: MakePool) -> None:
    """A start that hangs counts as failed at ``spawn_timeout``; meanwhile others start, and refills go on.

    [property 38]
    """
    ports = make_pool.ports(hang_starts=1)
    async with make_pool.worker_pool(
        ports=ports, pool_size=3, max_starting=2, spawn_timeout=patience(make_pool)
    ) as pool:
        await pool.wait_ready(2)
        async with pool.checkout() as lease:
            lease.retire()
        await pool.wait_ready(2)
        assert (ports.cancelled, pool.statistics().counters.start_failures) == (0, 0)
        await until(
            lambda: pool.statistics().counters.start_failures, "the hanging start is ended", seconds=60
        )
        await until(lambda: ports.cancelled == 1, "it is cancelled")
        await pool.wait_ready(3)


async def test_worker_that_hangs_in_its_handshake_is_killed(make_pool: MakePool) -> None:
    """A process that never answers its first ping is killed at ``spawn_timeout``, and the waiter is served.

    [property 38]
    """
    ports = make_pool.ports()
    ports.order("handshake", Plan().stall(deaf=True), times=1)
    async with make_pool.worker_pool(ports=ports, spawn_timeout=patience(make_pool), **BRISK) as pool:
        assert await serving(pool) == 2
        assert ports.ports[0].exit_status is not None
        assert pool.statistics().counters.start_failures == 1


async def test_checkout_that_times_out_tells_why_nothing_starts(make_pool: MakePool) -> None:
    """The error carries the last start's error and the gauges of that moment. [property 39]"""
    async with make_pool.worker_pool(ports=make_pool.ports(fail_starts=1_000), pool_size=2) as pool:
        with pytest.raises(CheckoutTimeoutError, match="ordered by the test") as caught:
            async with pool.checkout(timeout=5 * make_pool.unit):
                pass
        error = caught.value
        assert isinstance(error.last_start_error, WorkerStartError)
        assert (error.statistics.ready, error.statistics.waiting) == (0, 0)
        assert error.statistics.counters.start_failures > 1


async def test_pool_refills_to_its_floor_when_the_fault_ends(make_pool: MakePool) -> None:
    """Without traffic the pool is full again soon after starts succeed, and no fuller. [property 42]"""
    ports = make_pool.ports(fail_starts=8)
    async with make_pool.worker_pool(ports=ports, pool_size=3, max_overflow=4) as pool:
        await until(lambda: pool.statistics().idle == 3, "the pool is full")
        await trio.sleep(make_pool.unit)
        assert (ports.failed, ports.started) == (8, 3)
        assert (pool.statistics().idle, pool.statistics().live) == (3, 3)


STAGES = {
    "before the process": None,
    "says nothing": Plan().stall(deaf=True),
    "dies": Plan().die(),
    "refuses": Plan().fail("no licence"),
    "prints": Plan().garbage(),
    "answers another": Plan().reply({}, request_id=7),
    "says too much": Plan().reply({}).garbage(b"!"),
}


@pytest.mark.parametrize("stage", STAGES)
async def test_start_that_fails_at_any_stage_is_made_good(stage: str, make_pool: MakePool) -> None:
    """Before the process, in its handshake or after it: one failure is counted, one worker serves. [property 28]"""
    plan = STAGES[stage]
    ports = make_pool.ports(fail_starts=plan is None)
    if plan is not None:
        ports.order("handshake", plan, times=1)
    async with make_pool.worker_pool(ports=ports, spawn_timeout=patience(make_pool), **BRISK) as pool:
        with pytest.raises(WorkerStartError) as caught:
            await pool.wait_ready(fail_fast=True)
        assert caught.value.worker_id == "w-1"
        await pool.wait_ready()
        numbers = pool.statistics()
        assert (numbers.idle, numbers.processes, len(ports.live)) == (1, 1, 1)
        counters = numbers.counters
        assert (counters.starts, counters.start_failures, counters.reaped) == (2, 1, 1)


async def test_no_process_starts_while_a_slow_one_is_being_ended(make_pool: MakePool) -> None:
    """A worker that takes its time to leave is not replaced before it is gone. [property 27]"""
    ports, grace = make_pool.ports(), 5 * make_pool.unit
    async with make_pool.worker_pool(ports=ports, pool_size=2, terminate_grace=grace) as pool:
        await pool.wait_ready(2)
        victim, began = ports.stop("w-1"), trio.current_time()
        pool.drain()
        async with pool.checkout(), pool.checkout():
            assert victim.exit_status is not None
            assert trio.current_time() - began >= grace
    assert ports.started == 4


async def test_lease_that_has_ended_writes_nothing(make_pool: MakePool) -> None:
    """Used after its end, a lease raises, and the worker, lent to another by now, hears nothing. [property 32, 30]"""
    async with make_pool.worker_pool() as pool:
        checkout = pool.checkout()
        async with checkout as old:
            await old.request("echo")
        async with pool.checkout() as lease:
            written = lease.worker.port.bytes_sent
            with pytest.raises(UseAfterReturnError, match="w-1") as caught:
                await old.request("echo")
            with pytest.raises(UseAfterReturnError):
                old.retire()
            with pytest.raises(UseAfterReturnError):
                old.update("state")
            await checkout.__aexit__(None, None, None)
            assert caught.value.token == old.token != lease.token
            assert lease.worker.port.bytes_sent == written
            assert await lease.request("echo", {"a": 3}) == {"a": 3}
        assert pool.statistics().counters.returned == 2


async def test_broken_pool_heals_when_its_workers_start_again(make_pool: MakePool) -> None:
    """Callers of a broken pool are refused without waiting; once a start succeeds they are served. [property 96]"""
    ports = make_pool.ports(fail_starts=10_000)
    async with make_pool.worker_pool(ports=ports, breaker_after=5 * make_pool.unit) as pool:
        await until(lambda: pool.statistics().circuit_open, "the breaker opens")
        with pytest.raises(CircuitOpenError):
            async with pool.checkout():
                pass
        ports.fail_starts = 0
        await pool.wait_ready()
        async with pool.checkout(timeout=0):
            pass


async def test_readiness_can_be_awaited(make_pool: MakePool) -> None:
    """``wait_ready`` returns when so many workers are in service, not when they are free."""
    ports = make_pool.ports(start_delay=make_pool.unit)
    async with make_pool.worker_pool(ports=ports, pool_size=2, max_starting=1) as pool:
        await pool.wait_ready()
        assert pool.statistics().ready == 1
        async with pool.checkout():
            await pool.wait_ready(2)
            assert pool.statistics().ready == 2
            await pool.wait_ready(2)


async def test_waiting_for_readiness_fails_fast_if_asked_to(make_pool: MakePool) -> None:
    """With ``fail_fast`` the first failed start is raised while nothing serves; without, the pool tries on."""
    ports = make_pool.ports(fail_starts=1)
    async with make_pool.worker_pool(ports=ports) as pool:
        with pytest.raises(WorkerStartError, match="ordered by the test"):
            await pool.wait_ready(fail_fast=True)
        await pool.wait_ready()
        ports.fail_starts = 1
        pool.drain()
        pool.resize(2)
        await pool.wait_ready(2)


async def test_start_that_takes_too_long_is_reported_with_its_last_words(make_pool: MakePool) -> None:
    """What a worker said before ``spawn_timeout`` ended it is in the error of who waits for it. [property 108]"""
    ports = make_pool.ports()
    ports.order("handshake", Plan().stderr("loading\nasking for a licence\n").stall(deaf=True))
    async with make_pool.worker_pool(ports=ports, spawn_timeout=patience(make_pool), **BRISK) as pool:
        with pytest.raises(
            WorkerStartError, match=r"(?s)within .* s.*last words: asking for a licence$"
        ) as caught:
            await pool.wait_ready(fail_fast=True)
        assert caught.value.stderr_tail == "loading\nasking for a licence\n"
        with pytest.raises(CheckoutTimeoutError, match="asking for a licence"):
            await use(pool, timeout=make_pool.unit)


async def test_growing_serves_a_waiting_caller(make_pool: MakePool) -> None:
    """A caller in line gets the worker that ``resize`` has started. [property 88]"""
    async with make_pool.worker_pool() as pool, pool.checkout():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, pool)
            await until(lambda: pool.statistics().waiting == 1, "a caller waits")
            pool.resize(2)
        assert pool.statistics().live == 2


async def test_pool_that_shrinks_is_ready_with_all_that_it_has_left(make_pool: MakePool) -> None:
    """Whoever waits for more workers than it may have now does not wait for one whose start hangs."""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports, spawn_timeout=patience(make_pool), **BRISK) as pool:
        await pool.wait_ready()
        ports.hang_starts = 9
        pool.resize(2)
        async with pool.checkout(), trio.open_nursery() as nursery:
            nursery.start_soon(pool.wait_ready, 2)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics().starting == 1
            pool.resize(1)
        assert pool.statistics().counters.start_failures == 0
