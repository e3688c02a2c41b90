"""Starting, backing off, growing: no storm, no standstill. Block D of the pool's rules."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio

from dspex_pool.errors import CheckoutTimeoutError, WorkerStartError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.pool_driver import PoolDriver
from dspex_testkit.sweep import echo

if TYPE_CHECKING:
    from trio.testing import MockClock


def failing_for(seconds: float, driver: PoolDriver) -> PoolDriver:
    """Let every start fail the moment it begins, for so long."""
    until = driver.now + seconds
    while driver.starting or driver.state.wake_at <= until:
        for _ in list(driver.starting):
            driver.start_failed()
        driver.advance(max(0.0, min(driver.state.wake_at, until) - driver.now))
    return driver


# --- every start fails ------------------------------------------------------------------------------------


def test_failing_starts_stay_within_the_rate_of_the_back_off() -> None:
    """An hour of nothing but failures makes some two hundred tries, not a million. [property 37]"""
    driver = failing_for(3600.0, PoolDriver(pool_size=4, breaker_after=10_000.0))
    assert 200 < len(driver.start_times) < 300
    waits = [later - earlier for earlier, later in pairwise(driver.start_times[2:])]
    assert all(1.0 <= wait <= 30.0 for wait in waits)


def test_failing_starts_keep_no_waiter_and_no_holder_from_the_rest_of_the_pool() -> None:
    """The workers that live are lent and come back as ever while others cannot be started. [property 37]"""
    driver = PoolDriver(pool_size=2, max_starting=2, health_check_interval=None)
    alive = driver.started()
    for _ in range(5):
        failing_for(10.0, driver)
        lease, waiter = driver.lease(), driver.wait()
        driver.checkin(lease)
        driver.checkin(driver.granted[waiter])
        assert driver.in_state(WorkerState.IDLE) == [alive]


class BrokenFactory:
    """Cannot start anything, and raises what nobody foresaw."""

    attempts = 0

    async def open(self, *, worker_id: str, incarnation: int) -> NoReturn:
        """Fail.

        Cancellation: Nothing was started.
        """
        self.attempts += 1
        raise OSError("out of everything")


@pytest.mark.trio
async def test_failing_starts_do_not_flood_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try writes at most one line, and tries are as rare as the back-off makes them. [property 37]"""
    ports = BrokenFactory()
    async with WorkerPool(ports, pool_size=2) as pool:
        with caplog.at_level(logging.DEBUG):
            with pytest.raises(CheckoutTimeoutError, match="out of everything"):
                async with pool.checkout(timeout=50.0):
                    pass
    assert len(caplog.records) <= ports.attempts < 20


# --- starts that hang -------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_hanging_start_is_ended_and_delays_no_other(autojump_clock: MockClock) -> None:
    """A start that hangs counts as failed at ``spawn_timeout``; meanwhile others start, and refills go on.

    [property 38]
    """
    ports = MockPortFactory(echo, hang_starts=1)
    async with WorkerPool(ports, pool_size=3, max_starting=2, spawn_timeout=5.0) as pool:
        await pool.wait_ready(2)
        assert trio.current_time() == 0.0
        async with pool.checkout() as lease:
            lease.retire()
        await pool.wait_ready(2)
        assert trio.current_time() == 0.0
        await trio.sleep(5.1)
        assert (ports.cancelled, pool.statistics().counters.start_failures) == (1, 1)
        await pool.wait_ready(3)
        assert 6.0 <= trio.current_time() <= 7.0


@pytest.mark.trio
async def test_worker_that_hangs_in_its_handshake_is_killed(autojump_clock: MockClock) -> None:
    """A process that never answers its first ping is killed at ``spawn_timeout``, and the waiter is served.

    [property 38]
    """
    ports = MockPortFactory({1: lambda port: port.answer_handshake(Plan().stall(deaf=True)), 2: echo})
    async with WorkerPool(ports, pool_size=1, spawn_timeout=5.0) as pool:
        async with pool.checkout() as lease:
            assert lease.worker.incarnation == 2
        assert ports.ports[0].exit_status is not None
        assert pool.statistics().counters.start_failures == 1


@pytest.mark.trio
async def test_checkout_that_times_out_tells_why_nothing_starts(autojump_clock: MockClock) -> None:
    """The error carries the last start's error and the gauges of that moment. [property 39]"""
    async with WorkerPool(MockPortFactory(fail_starts=1_000), pool_size=2) as pool:
        with pytest.raises(CheckoutTimeoutError, match="ordered by the test") as caught:
            async with pool.checkout(timeout=10.0):
                pass
        error = caught.value
        assert isinstance(error.last_start_error, WorkerStartError)
        assert (error.statistics.ready, error.statistics.waiting, error.waited) == (0, 0, 10.0)
        assert error.statistics.counters.start_failures > 1


# --- getting well -----------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_pool_refills_to_its_floor_when_the_fault_ends(autojump_clock: MockClock) -> None:
    """Without traffic the pool is full again soon after starts succeed, and no fuller. [property 42]"""
    ports = MockPortFactory(echo, fail_starts=8)
    async with WorkerPool(ports, pool_size=3, max_overflow=4, backoff_max=4.0) as pool:
        await trio.sleep(60.0)
        assert (ports.failed, ports.started) == (8, 3)
        assert (pool.statistics().idle, pool.statistics().live) == (3, 3)


def test_pool_does_not_overshoot_for_callers_who_gave_up() -> None:
    """Who waited in vain during the fault starts nothing after it. [property 42]"""
    driver = PoolDriver(pool_size=1, max_overflow=4, health_check_interval=None)
    for _ in range(5):
        driver.wait(timeout=20.0)
    failing_for(30.0, driver)
    driver.advance(30.0)
    driver.started()
    driver.advance(100.0)
    assert (driver.in_state(WorkerState.IDLE), driver.starting) == ([driver.state._last_number], [])


@pytest.mark.parametrize("others", [0, 1])
def test_worker_whose_requester_left_is_not_wasted(others: int) -> None:
    """It goes to the next in line, or to the idle. [property 44]"""
    driver = PoolDriver(pool_size=1, lazy=True)
    gone = driver.wait()
    waiting = [driver.wait() for _ in range(others)]
    driver.cancel(gone)
    number = driver.started()
    assert list(driver.granted) == waiting
    assert driver.in_state(WorkerState.LEASED if others else WorkerState.IDLE) == [number]


def test_delays_of_a_pool_differ_by_seed_and_are_reset_by_a_success() -> None:
    """Two pools of the same history do not try in step, and a success begins the delays anew. [property 46]"""
    one, other = (
        failing_for(300.0, PoolDriver(seed=seed, pool_size=1, breaker_after=1e6)) for seed in (1, 2)
    )
    assert set(one.start_times) & set(other.start_times) == {0.0}
    one.advance(one.state.wake_at - one.now)
    one.started()
    one.gone(one.in_state(WorkerState.IDLE)[0])
    assert one.state.wake_at - one.now <= 2.0


def test_need_is_looked_at_again_before_each_try() -> None:
    """If the waiter was served elsewhere and the floor is met, nothing starts when its time comes. [property 47]"""
    driver = PoolDriver(pool_size=2, lazy=True, health_check_interval=None)
    first = driver.wait()
    driver.started()
    second = driver.wait()
    driver.start_failed()
    driver.checkin(driver.granted[first])
    assert second in driver.granted
    driver.advance(100.0)
    assert len(driver.start_times) == 2


def test_need_that_comes_back_waits_for_the_time_of_the_next_try() -> None:
    """Who asks during the back-off is served by the try that was due, not by one of its own. [property 47]"""
    driver = PoolDriver(pool_size=1, lazy=True, health_check_interval=None)
    driver.cancel(driver.wait())
    driver.start_failed()
    retry_at = driver.state._starts.retry_at
    driver.advance(0.5)
    driver.wait()
    assert not driver.starting
    driver.advance(retry_at - driver.now)
    assert driver.start_times == [0.0, retry_at]


def test_start_beside_idle_workers_is_looked_at_again() -> None:
    """A start that brings the pool above its size makes an idle worker overflow from then on, not from its end."""
    driver = PoolDriver.ready(2, max_overflow=1, overflow_ttl=5.0)
    driver.state.suspend(driver.now)
    for _ in range(3):
        driver.wait()
    assert len(driver.starting) == 1
    driver.advance(5.0)
    assert [reason for _, reason, _ in driver.retirements] == ["overflow_ttl"]
