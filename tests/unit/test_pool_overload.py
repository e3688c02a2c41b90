"""Full lines, single deadlines and the breaker. Block I of the pool's rules."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.core.records import Outcome
from dspex_pool.errors import (
    CheckoutTimeoutError,
    CircuitOpenError,
    PoolSaturatedError,
    WorkerStartError,
)
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.pool_driver import PoolDriver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock


def ready_pool(pool_size: int = 1, **options: Any) -> PoolDriver:
    """Return a pool whose workers are all idle; from then on the test answers for the world."""
    driver = PoolDriver(auto=True, pool_size=pool_size, health_check_interval=None, **options)
    driver.auto = False
    return driver


def fail_starts_for(driver: PoolDriver, seconds: float) -> None:
    """Let every start fail at once, for a time."""
    until = driver.now + seconds
    while driver.now < until:
        while driver.starting:
            driver.start_failed(error=WorkerStartError("no such program"))
        driver.advance(max(0.001, min(until, driver.state.wake_at) - driver.now))
    while driver.starting:
        driver.start_failed(error=WorkerStartError("no such program"))


def broken_pool(**options: Any) -> PoolDriver:
    """Return a pool whose starts have failed for so long that its breaker is open."""
    options = {"backoff_min": 1.0, "backoff_max": 4.0, "breaker_after": 10.0} | options
    driver = PoolDriver(health_check_interval=None, **options)
    fail_starts_for(driver, 20.0)
    assert driver.state.statistics().circuit_open
    return driver


# --- full line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_full_line_refuses_at_once_and_changes_nothing(lazy: bool) -> None:
    """Who finds ``max_waiting`` callers in line is refused, without a start or a place. [property 93]"""
    driver = PoolDriver(pool_size=3, max_starting=1, max_waiting=2, lazy=lazy)
    waiters = [driver.wait(), driver.wait()]
    before, starting = driver.state.statistics(), driver.starting[:]
    refusal = driver.refusal()
    assert isinstance(refusal, PoolSaturatedError)
    assert "2 callers are waiting already, which is max_waiting" in refusal.message
    after = driver.state.statistics()
    after.counters.attempts -= 1
    after.counters.overloaded -= 1
    assert (after, driver.starting) == (before, starting)
    driver.cancel(waiters[0])
    assert isinstance(driver.checkout(), int), "a place that is left is free again"


def test_full_line_does_not_refuse_who_needs_not_wait() -> None:
    """``max_waiting`` bounds the line, not the checkouts. [property 93]"""
    driver = ready_pool(2, max_waiting=0)
    driver.lease()
    driver.lease()
    assert isinstance(driver.refusal(), PoolSaturatedError)


def test_full_line_takes_back_who_had_a_place() -> None:
    """A waiter whose grant is undone stands in line again though others have filled it. [property 93]"""
    driver = ready_pool(max_waiting=1)
    lease = driver.lease()
    first = driver.wait()
    driver.checkin(lease)
    second = driver.wait()
    assert driver.reject(driver.granted[first]) == first
    driver.reap()
    driver.started()
    assert list(driver.granted) == [first]
    assert second not in driver.refused


@pytest.mark.parametrize("pause", [2.0, 100.0])
def test_load_is_not_shed_for_a_line_of_long_ago(pause: float) -> None:
    """A pool that has had an idle worker since its slow interval is not overloaded: a burst passes.

    Only those who had stood in line were looked at, so the first of the next line, whenever that was, could be turned
    away because nobody had waited for a short time in the one before.
    """
    driver = ready_pool(codel_target=1.0, codel_interval=5.0)
    for wait in (3.0, 3.0, pause, 2.5):
        lease = driver.lease()
        waiter = driver.wait()
        driver.advance(wait)
        if wait is pause:
            driver.cancel(waiter)
            driver.checkin(lease)
        else:
            driver.checkin(lease)
            driver.checkin(driver.granted[waiter])
    assert driver.refused == {}


# --- one deadline ---------------------------------------------------------------------------------------


def test_one_deadline_covers_the_line_and_the_starts() -> None:
    """Failed starts and their pauses do not prolong a checkout. [property 95]"""
    driver = PoolDriver(pool_size=1, lazy=True, spawn_timeout=4.0, backoff_min=1.0, backoff_max=1.0)
    waiter = driver.wait(timeout=10.0)
    driver.advance(4.0)
    driver.reap()
    driver.advance(5.5)
    assert waiter not in driver.refused
    driver.advance(0.5)
    error = driver.refused[waiter]
    assert isinstance(error, CheckoutTimeoutError)
    assert error.waited == 10.0
    assert isinstance(error.last_start_error, WorkerStartError)


def test_one_deadline_covers_the_check_and_every_further_try() -> None:
    """A grant that is undone again and again ends when the patience of the first call ends. [property 95]"""
    driver = ready_pool()
    lease = driver.lease()
    waiter = driver.wait(timeout=10.0)
    driver.checkin(lease)
    for _ in range(4):
        driver.advance(2.0)
        assert driver.reject(driver.granted[waiter]) == waiter
        driver.reap()
        driver.started()
    driver.advance(1.9)
    driver.reject(driver.granted[waiter])
    driver.advance(0.1)
    assert isinstance(driver.refused[waiter], CheckoutTimeoutError)
    assert driver.state.counters.attempts == 2


@pytest.mark.trio
async def test_checkout_that_meets_only_unclean_workers_ends_in_time(autojump_clock: MockClock) -> None:
    """Workers that are unclean when they are lent are rejected, in turn, until time is up. [property 95]"""

    def die_when_lent(event: tuple[str, ...], _: object, metadata: Mapping[str, Any]) -> None:
        if event[-1] == "checkout":
            ports.port(metadata["worker_id"]).inject(b"unasked")

    ports = MockPortFactory(start_delay=2.0)
    async with WorkerPool(ports, pool_size=1, checkout_timeout=9.0) as pool:
        await pool.wait_ready()
        began = trio.current_time()
        pool.telemetry.attach((), die_when_lent)
        with pytest.raises(CheckoutTimeoutError) as caught:
            async with pool.checkout():
                pass
        assert trio.current_time() == began + 9.0
        assert caught.value.waited == 9.0
        counters = pool.statistics().counters
        assert (counters.attempts, counters.granted, counters.timeouts) == (1, 0, 1)


# --- breaker --------------------------------------------------------------------------------------------


def test_breaker_opens_when_starts_have_failed_for_long_and_nobody_lives() -> None:
    """At the first failure after ``breaker_after`` the line is refused, and so is who comes next. [property 96]"""
    driver = PoolDriver(pool_size=1, backoff_min=1.0, backoff_max=4.0, breaker_after=10.0)
    waiter = driver.wait()
    fail_starts_for(driver, 9.9)
    assert not driver.state.statistics().circuit_open
    fail_starts_for(driver, 10.0)
    assert driver.state.statistics().circuit_open
    error = driver.refused[waiter]
    assert isinstance(error, CircuitOpenError)
    assert "no such program" in error.message
    assert isinstance(driver.refusal(), CircuitOpenError)


def test_breaker_stays_closed_while_one_worker_lives() -> None:
    """However long starts fail, a pool that has a worker lends it; when that dies the breaker opens. [property 96]"""
    driver = PoolDriver(pool_size=2, max_starting=1, breaker_after=10.0, health_check_interval=None)
    survivor = driver.started()
    fail_starts_for(driver, 60.0)
    lease = driver.lease()
    assert lease.number == survivor
    waiter = driver.wait()
    assert waiter not in driver.refused
    driver.gone(survivor)
    assert isinstance(driver.refused[waiter], CircuitOpenError)


def test_breaker_of_a_pool_that_closes_does_not_open() -> None:
    """Its last worker has left because the pool closes; that starts had failed before is no news. [property 96]

    It was told that the breaker had opened, as if the pool had broken down.
    """
    driver = PoolDriver(
        pool_size=2, max_starting=1, backoff_max=4.0, breaker_after=10.0, health_check_interval=None
    )
    driver.started()
    fail_starts_for(driver, 20.0)
    driver.state.close_now(driver.now)
    driver.settle()
    for number in list(driver.ending):
        driver.reap(number)
    assert driver.state.workers == {}
    assert "breaker_opened" not in driver.names()
    assert not driver.state.statistics().circuit_open


def test_one_probe_at_a_time_while_the_breaker_is_open() -> None:
    """An open breaker tries one start after the other, spaced by the back-off, whatever the floor. [property 96]"""
    driver = broken_pool(backoff_max=1.0, pool_size=4, max_starting=4)
    began = len(driver.start_times)
    for _ in range(20):
        driver.advance(0.5)
        assert len(driver.starting) <= 1
        if driver.starting:
            driver.start_failed()
    assert 8 <= len(driver.start_times) - began <= 10
    driver.advance(2.0)
    assert len(driver.starting) == 1
    driver.advance(20.0)
    driver.state.tick(driver.now)
    driver.settle()
    assert len(driver.starting) == 1, "a slow probe is not joined by another"


def test_lazy_pool_probes_without_demand_while_its_breaker_is_open() -> None:
    """Where nobody may wait, nobody can order the start that would close the breaker; the pool does. [property 96]"""
    driver = PoolDriver(pool_size=1, lazy=True, breaker_after=5.0, backoff_min=1.0, backoff_max=1.0)
    driver.wait()
    fail_starts_for(driver, 10.0)
    assert driver.state.statistics().circuit_open
    driver.advance(2.0)
    assert len(driver.starting) == 1


def test_first_success_closes_the_breaker_and_serves() -> None:
    """One start that succeeds ends the refusals, and the pool fills up without further pauses. [property 96]"""
    driver = broken_pool(pool_size=3)
    driver.advance(5.0)
    driver.started()
    assert not driver.state.statistics().circuit_open
    assert driver.names().count("breaker_closed") == 1
    assert len(driver.starting) == 2
    lease, waiter = driver.lease(), driver.wait()
    driver.started()
    assert driver.granted[waiter].number != lease.number


def test_slow_calls_and_vain_waits_are_no_failures() -> None:
    """Long leases, checkouts that time out and slow starts leave the breaker alone. [property 97]"""
    driver = ready_pool(1, max_overflow=1, breaker_after=5.0, spawn_timeout=50.0)
    lease = driver.lease()
    for _ in range(20):
        driver.wait(timeout=1.0)
        driver.advance(2.0)
    assert len(driver.refused) == 20
    assert all(type(error) is CheckoutTimeoutError for error in driver.refused.values())
    driver.checkin(lease)
    statistics = driver.state.statistics()
    assert not statistics.circuit_open
    assert statistics.counters.start_failures == 0


def test_workers_that_are_killed_while_they_work_are_no_failures_to_start() -> None:
    """Deaths under load, retirements and overdue leases say nothing about starting. [property 97]"""
    driver = ready_pool(1, breaker_after=5.0, lease_timeout=2.0)
    for how in ["die", "retire", "overdue"] * 4:
        lease = driver.lease()
        driver.advance(1.0)
        if how == "die":
            driver.gone(lease.number)
        elif how == "retire":
            driver.checkin(lease, Outcome.RETIRE)
            driver.reap()
        else:
            driver.advance(1.0)
            driver.reap()
        driver.started()
    statistics = driver.state.statistics()
    assert dataclasses.replace(statistics.counters, start_failures=0) == statistics.counters
    assert not statistics.circuit_open
