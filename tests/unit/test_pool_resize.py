"""Resizing and draining under load. Block H of the pool's rules."""

from __future__ import annotations

from typing import Any

import pytest

from dspex_pool.core.records import Outcome
from dspex_pool.lifecycle import WorkerState
from dspex_testkit.pool_driver import PoolDriver


def ready_pool(pool_size: int = 1, **options: Any) -> PoolDriver:
    """Return a pool whose workers are all idle; from then on the test answers for the world."""
    driver = PoolDriver(auto=True, pool_size=pool_size, health_check_interval=None, **options)
    driver.auto = False
    return driver


def resize(driver: PoolDriver, pool_size: int) -> None:
    """Change the size."""
    driver.state.resize(pool_size, driver.now)
    driver.settle()


def drain(driver: PoolDriver) -> None:
    """Begin a new generation."""
    driver.state.drain(driver.now)
    driver.settle()


# --- growing --------------------------------------------------------------------------------------------


def test_growing_starts_what_the_line_needs_in_the_same_step() -> None:
    """Those who wait when the pool grows get workers at once, in order, and no more than they need. [property 88]"""
    driver = PoolDriver(pool_size=1, lazy=True, max_starting=10)
    waiters = [driver.wait() for _ in range(3)]
    driver.started()
    assert list(driver.granted) == waiters[:1]
    resize(driver, 5)
    assert len(driver.starting) == 2
    driver.started()
    driver.started()
    assert list(driver.granted) == waiters
    assert driver.start_times == [0.0, 0.0, 0.0]


def test_growing_back_keeps_a_surplus_worker() -> None:
    """A worker that was surplus while it was lent stays if the pool has grown again meanwhile. [property 88]"""
    driver = ready_pool(2)
    leases = [driver.lease(), driver.lease()]
    resize(driver, 1)
    resize(driver, 2)
    for lease in leases:
        driver.checkin(lease)
    assert len(driver.in_state(WorkerState.IDLE)) == 2
    assert driver.retirements == []


@pytest.mark.parametrize(("kept", "live"), [({}, 3), ({"min_idle": 1}, 1), ({"lazy": True}, 0)])
def test_grown_pool_keeps_the_floor_that_was_asked_for(kept: dict[str, Any], live: int) -> None:
    """An eager pool fills up to its new size; one with a floor of its own, or a lazy one, does not. [property 88]"""
    driver = PoolDriver(auto=True, pool_size=1, idle_timeout=5.0, health_check_interval=None, **kept)
    resize(driver, 3)
    driver.advance(20.0)
    assert driver.state.live_count == driver.state.floor == live
    resize(driver, 2)
    assert driver.state.live_count == driver.state.floor == min(live, 2)


@pytest.mark.parametrize("ready", [1, 2])
def test_pool_shrunk_before_it_was_full_keeps_its_floor_alone(ready: int) -> None:
    """An eager pool that is made smaller while its first workers start lets idle ones go afterwards. [property 89]

    It took itself for one that still fills up, since it never had as many workers as it was opened with, and kept
    all of its new size for ever, whatever ``min_idle`` said.
    """
    driver = PoolDriver(
        pool_size=4,
        min_idle=0,
        max_starting=1,
        idle_timeout=5.0,
        spawn_timeout=9.0,
        health_check_interval=None,
    )
    for _ in range(ready):
        driver.started()
    driver.start_failed()
    resize(driver, 2)
    driver.auto = True
    driver.advance(60.0)
    assert driver.state.live_count == driver.state.floor == 0


# --- shrinking ------------------------------------------------------------------------------------------


def test_shrinking_takes_nothing_out_of_a_callers_hands() -> None:
    """Lent workers go on; as many as are too many leave when they come back, the last ones stay. [property 89]"""
    driver = ready_pool(3)
    leases = [driver.lease() for _ in range(3)]
    resize(driver, 1)
    assert driver.retirements == []
    for lease in leases:
        driver.checkin(lease)
    assert [(number, reason) for number, reason, _ in driver.retirements] == [
        (leases[0].number, "resized"),
        (leases[1].number, "resized"),
    ]
    assert driver.in_state(WorkerState.IDLE) == [leases[2].number]


def test_shrinking_lets_the_longest_idle_go_at_once() -> None:
    """Idle surplus leaves in the step of the change; those used last stay. [property 89]"""
    driver = ready_pool(3)
    lease = driver.lease()
    driver.advance(1.0)
    driver.checkin(lease)
    resize(driver, 1)
    assert len(driver.retirements) == 2
    assert driver.in_state(WorkerState.IDLE) == [lease.number]


@pytest.mark.parametrize("is_lent", [False, True])
def test_shrinking_keeps_the_warm_worker_rather_than_the_one_that_starts(*, is_lent: bool) -> None:
    """Whoever comes next is served at once; the start that is one too many leaves when it is done. [property 89]

    The warm worker was ended, at once or at its check-in, and everybody waited for the other's start.
    """
    driver = PoolDriver(pool_size=2, health_check_interval=None)
    driver.started()
    (cold,) = driver.in_state(WorkerState.STARTING)
    warm = driver.lease()
    if not is_lent:
        driver.checkin(warm)
    resize(driver, 1)
    if is_lent:
        driver.checkin(warm)
    assert driver.lease().number == warm.number
    driver.started()
    assert driver.retirements == [(cold, "resized", True)]


@pytest.mark.parametrize("busy", [WorkerState.STARTING, WorkerState.PINGING, WorkerState.DRAINING])
def test_shrinking_lets_the_pools_own_work_end_first(busy: WorkerState) -> None:
    """A surplus worker that starts, is pinged or in care leaves when that is done. [property 89]"""
    driver = PoolDriver(pool_size=2, health_check_interval=5.0)
    driver.started()
    lease = driver.lease()
    if busy is not WorkerState.STARTING:
        driver.started()
        if busy is WorkerState.PINGING:
            driver.advance(5.0)
        else:
            driver.checkin(driver.lease(), Outcome.CARE)
    (number,) = driver.in_state(busy)
    resize(driver, 1)
    assert driver.retirements == []
    {
        WorkerState.STARTING: driver.started,
        WorkerState.PINGING: driver.pinged,
        WorkerState.DRAINING: driver.drained,
    }[busy]()
    assert driver.retirements == [(number, "resized", True)]
    driver.checkin(lease)
    assert driver.in_state(WorkerState.IDLE) == [lease.number]


def test_shrunk_pool_serves_its_line_with_what_it_keeps() -> None:
    """Surplus leaves though others wait; they get the workers that stay. [property 89]"""
    driver = ready_pool(2)
    leases = [driver.lease(), driver.lease()]
    waiters = [driver.wait(), driver.wait()]
    resize(driver, 1)
    driver.checkin(leases[0])
    assert driver.granted == {}
    driver.checkin(leases[1])
    assert list(driver.granted) == waiters[:1]
    driver.reap()
    assert not driver.starting
    driver.checkin(driver.granted[waiters[0]])
    assert list(driver.granted) == waiters


# --- draining -------------------------------------------------------------------------------------------


def test_drained_pool_replaces_the_idle_now_and_the_lent_later() -> None:
    """No worker of the old generation is lent again; each is replaced once its process is reaped. [property 91]"""
    driver = ready_pool(2)
    lease = driver.lease()
    drain(driver)
    (idle,) = driver.ending
    assert idle != lease.number
    driver.reap()
    assert driver.started() == 3
    driver.checkin(lease)
    assert driver.retirements == [(idle, "drained", True), (lease.number, "drained", True)]
    driver.reap()
    assert driver.started() == 4
    assert driver.in_state(WorkerState.IDLE) == [3, 4]


@pytest.mark.parametrize("busy", [WorkerState.STARTING, WorkerState.PINGING, WorkerState.DRAINING])
def test_worker_that_was_busy_when_a_drain_began_is_not_lent(busy: WorkerState) -> None:
    """A start, ping or care under way ends with the worker's retirement; who waits gets a new one. [property 91]"""
    driver = PoolDriver(pool_size=1, health_check_interval=5.0)
    if busy is not WorkerState.STARTING:
        driver.started()
        if busy is WorkerState.PINGING:
            driver.advance(5.0)
        else:
            driver.checkin(driver.lease(), Outcome.CARE)
    drain(driver)
    waiter = driver.wait()
    {
        WorkerState.STARTING: driver.started,
        WorkerState.PINGING: driver.pinged,
        WorkerState.DRAINING: driver.drained,
    }[busy]()
    assert driver.retirements == [(1, "drained", True)]
    driver.reap()
    driver.started()
    assert driver.granted[waiter].number == 2


def test_drain_during_a_drain_replaces_the_replacements() -> None:
    """Each drain is a generation of its own; what started in between leaves too. [property 91]"""
    driver = ready_pool(1)
    drain(driver)
    driver.reap()
    drain(driver)
    driver.started()
    assert driver.retirements == [(1, "drained", True), (2, "drained", True)]
    driver.reap()
    assert driver.started() == 3
    assert driver.in_state(WorkerState.IDLE) == [3]


# --- after the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["resize", "drain", "suspend", "resume"])
def test_closed_pool_ignores_what_would_change_it(act: str) -> None:
    """Resizing, draining or suspending after the close changes nothing and raises nothing. [property 92]"""
    driver = ready_pool(2)
    lease = driver.lease()
    driver.state.close(driver.now)
    driver.settle()
    before = driver.state.statistics()
    getattr(driver.state, act)(*([9] if act == "resize" else []), driver.now)
    driver.settle()
    assert driver.state.statistics() == before
    driver.checkin(lease)
    driver.reap()
    driver.reap()
    assert driver.state.workers == {}
