"""Starting, backing off, growing: no storm, no standstill. Block D of the pool's rules."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dspex_pool.lifecycle import WorkerState
from dspex_testkit.pool_driver import PoolDriver


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


# --- getting well -----------------------------------------------------------------------------------------


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
