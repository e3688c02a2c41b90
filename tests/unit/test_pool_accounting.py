"""Counting: no slot, lease or notice is counted twice or lost. Block C of the pool's rules."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.core.records import Granted, Outcome
from dspex_pool.lifecycle import WorkerState
from dspex_testkit.pool_driver import PoolDriver

if TYPE_CHECKING:
    from collections.abc import Callable


# --- the cap ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome.RETIRE, Outcome.CLEAN])
def test_slot_is_free_when_the_process_is_reaped_and_not_before(outcome: Outcome) -> None:
    """While an old process is being ended it counts, whatever waits; its reaping starts the next. [property 27]"""
    driver = PoolDriver.ready(2, max_overflow=1, max_uses=1)
    leases = [driver.lease(), driver.lease()]
    waiters = [driver.wait() for _ in range(3)]
    driver.started()
    assert list(driver.granted) == waiters[:1]
    for lease in leases:
        driver.checkin(lease, outcome)
    assert len(driver.in_state(WorkerState.RETIRING)) == 2
    assert (len(driver.state.workers), driver.starting) == (3, [])
    driver.reap()
    assert (len(driver.state.workers), len(driver.starting)) == (3, 1)


# --- starts that fail -------------------------------------------------------------------------------------


def fail_by_report(driver: PoolDriver) -> None:
    """The handshake or the hook fails; the process is reaped afterwards."""
    driver.failed(driver.starting[0], "start_failed")


def fail_by_exit(driver: PoolDriver) -> None:
    """The process ends, or never was."""
    driver.start_failed()


def fail_by_time(driver: PoolDriver) -> None:
    """The start takes too long."""
    driver.advance(60.0)


@pytest.mark.parametrize("fail", [fail_by_report, fail_by_exit, fail_by_time])
def test_failed_start_puts_every_count_back(fail: Callable[[PoolDriver], None]) -> None:
    """After a start that failed at whatever stage and was reaped, the gauges are those from before. [property 28]"""
    driver = PoolDriver(pool_size=2, lazy=True)
    before = driver.state.statistics()
    waiter = driver.wait(timeout=60.0)
    fail(driver)
    driver.cancel(waiter)
    for number in list(driver.ending):
        driver.reap(number)
    after = driver.state.statistics()
    assert (after.processes, after.waiting, after.starting) == (0, 0, 0)
    assert (after.counters.starts, after.counters.start_failures, after.counters.reaped) == (1, 1, 1)
    assert dataclasses.replace(after, counters=before.counters) == before


# --- ends that meet ---------------------------------------------------------------------------------------

CAUSES: dict[str, Callable[[PoolDriver, int], object]] = {
    "exit": lambda driver, number: driver.gone(number),
    "failure": lambda driver, number: driver.failed(number),
    "memory": lambda driver, number: driver.state.memory_measured(number, 2_000, driver.now),
    "age": lambda driver, _: driver.advance(100.0),
    "resize": lambda driver, _: driver.state.resize(1, driver.now),
    "drain": lambda driver, _: driver.state.drain(driver.now),
    "close": lambda driver, _: driver.state.close(driver.now),
    "kill": lambda driver, _: driver.state.close_now(driver.now),
}


def bring_into(state: WorkerState) -> tuple[PoolDriver, int]:
    """Return a pool of two workers, and one of them in ``state``."""
    driver = PoolDriver.ready(
        2, max_rss_bytes=1_000, max_lifetime=(50.0, 60.0), lease_timeout=50.0, health_check_interval=10.0
    )
    if state is WorkerState.PINGING:
        driver.advance(10.0)
    elif state is not WorkerState.IDLE:
        lease = driver.lease()
        if state is WorkerState.DRAINING:
            driver.checkin(lease, Outcome.CARE)
        return driver, lease.number
    return driver, 1


@pytest.mark.parametrize("first", CAUSES)
def test_end_is_carried_out_once_whatever_two_causes_meet(first: str) -> None:
    """Any two reasons to end a worker end it once, under a ping or in use; its exit is counted once. [property 29]"""
    for second, state in zip(
        CAUSES, itertools.cycle([WorkerState.PINGING, WorkerState.LEASED]), strict=False
    ):
        driver, number = bring_into(state)
        for cause in (first, second):
            CAUSES[cause](driver, number)
            driver.settle()
        driver.state.close_now(driver.now)
        driver.settle()
        for ending in list(driver.ending):
            driver.reap(ending)
        assert not driver.gone(number), "its exit was counted before"
        ended = [number for number, _, _ in driver.retirements]
        assert ended.count(number) == 1, f"{first} and {second}"
        assert driver.names().count("worker_retired") == driver.state.counters.reaped


# --- leases that are none ---------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", Outcome)
def test_second_return_changes_nothing(outcome: Outcome) -> None:
    """A lease that was returned is known no more, also when its worker is lent again. [property 30]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    assert driver.checkin(lease)
    again = driver.lease()
    before = driver.state.statistics()
    assert not driver.checkin(lease, outcome)
    assert driver.state.counters.stale_notices == before.counters.stale_notices + 1
    assert driver.state.statistics().leased == 1
    assert driver.record(again.number).token == again.token


@pytest.mark.parametrize("foreign", [Granted(1, 99, 0.0), Granted(99, 1, 0.0), Granted(-1, 0, 0.0)])
def test_return_of_what_is_no_lease_is_refused(foreign: Granted) -> None:
    """A made-up token or worker changes no state. [property 31]"""
    driver = PoolDriver.ready()
    driver.lease()
    before = driver.state.statistics()
    assert not driver.checkin(foreign)
    assert driver.reject(foreign) is None
    after = driver.state.statistics()
    assert after.counters.stale_notices == 1
    after.counters.stale_notices = 0
    assert after == before


# --- late news --------------------------------------------------------------------------------------------

NEWS: dict[str, Callable[[PoolDriver, int], Any]] = {
    "started": lambda driver, number: driver.state.worker_started(number, driver.now),
    "gone": lambda driver, number: driver.state.worker_gone(number, driver.now),
    "failed": lambda driver, number: driver.state.worker_failed(number, driver.now, "late"),
    "drained": lambda driver, number: driver.state.drained(number, driver.now),
    "pinged": lambda driver, number: driver.state.ping_answered(number, driver.now),
    "measured": lambda driver, number: driver.state.memory_measured(number, 10**12, driver.now),
    "cancelled": lambda driver, number: driver.state.cancel_waiter(number, driver.now),
}


@pytest.mark.parametrize("news", NEWS)
def test_news_of_a_worker_that_is_gone_are_ignored_and_counted(news: str) -> None:
    """What arrives too late changes nothing but the count of such notices. [property 33]"""
    driver = PoolDriver.ready(max_rss_bytes=1)
    driver.gone(1)
    before = driver.state.statistics()
    assert NEWS[news](driver, 1) is False
    assert not driver.state.outbox
    after = driver.state.statistics()
    assert after.counters.stale_notices == before.counters.stale_notices + 1
    after.counters.stale_notices -= 1
    assert after == before


@pytest.mark.parametrize("news", ["started", "drained", "pinged", "failed", "measured"])
def test_news_of_a_worker_that_is_being_ended_are_ignored(news: str) -> None:
    """A worker on its way out does not come back by an answer that was under way. [property 33]"""
    driver = PoolDriver.ready(max_rss_bytes=1)
    driver.checkin(driver.lease(), Outcome.RETIRE)
    assert NEWS[news](driver, 1) is False
    assert driver.in_state(WorkerState.RETIRING) == [1]


def test_waiter_that_was_served_cannot_be_cancelled() -> None:
    """A cancellation that comes after the grant finds nobody in line. [property 33]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    waiter = driver.wait()
    driver.checkin(lease)
    assert waiter in driver.granted
    assert not driver.cancel(waiter)
    assert driver.state.counters.cancelled == 0


# --- death ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.DEAD])
def test_pool_is_back_at_its_floor_after_any_death(state: WorkerState) -> None:
    """A worker killed in any state is replaced, without traffic. [property 35]"""
    if state is WorkerState.STARTING:
        driver = PoolDriver(pool_size=2, health_check_interval=None)
        number = driver.starting[0]
    elif state is WorkerState.RETIRING:
        driver, number = bring_into(WorkerState.LEASED)
        driver.checkin(Granted(number, driver.record(number).token, 0.0), Outcome.RETIRE)
    else:
        driver, number = bring_into(state)
    driver.auto = True
    driver.gone(number)
    driver.advance(40.0)
    numbers = driver.state.statistics()
    assert (numbers.idle, numbers.live) == (2, 2)
    assert number not in driver.state.workers
