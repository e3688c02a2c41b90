"""Waking and fairness: nobody in line is forgotten, overtaken or woken in vain. Block B of the pool's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_pool.core.records import Granted, Outcome
from dspex_pool.errors import CheckoutTimeoutError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.pool_driver import PoolDriver
from dspex_testkit.sweep import echo

if TYPE_CHECKING:
    from trio.testing import MockClock


# --- death of a holder --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["dies", "is retired at check-in", "is overdue"])
def test_head_of_line_is_served_by_a_replacement(how: str) -> None:
    """When a holder's worker goes, whatever the cause, the head gets its replacement unasked. [property 15]"""
    driver = PoolDriver.ready(lease_timeout=10.0)
    lease = driver.lease()
    first, second = driver.wait(), driver.wait()
    if how == "dies":
        driver.gone(lease.number)
    elif how == "is overdue":
        driver.advance(10.0)
        driver.reap(lease.number)
    else:
        driver.checkin(lease, Outcome.RETIRE)
        assert not driver.starting, "the slot is taken until the old process is reaped"
        driver.reap(lease.number)
    replacement = driver.started()
    assert driver.granted[first].number == replacement != lease.number
    assert second not in driver.granted


def test_newcomer_stands_behind_who_waited_before_a_death() -> None:
    """Who comes after a death, or after the replacement's start began, is served later. [property 16]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    early = driver.wait()
    driver.gone(lease.number)
    late = driver.wait()
    driver.started()
    assert list(driver.granted) == [early]
    driver.checkin(driver.granted[early])
    assert list(driver.granted) == [early, late]


def test_newcomer_finds_no_idle_worker_while_others_wait() -> None:
    """A worker that comes free goes to the line before any newcomer can see it. [property 16]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    waiting = driver.wait()
    driver.checkin(lease)
    assert driver.checkout(wait=False) != driver.granted[waiting]
    assert driver.in_state(WorkerState.IDLE) == []


# --- who can take what ----------------------------------------------------------------------------------


def test_worker_declined_for_one_waiter_goes_to_the_next_in_the_same_step() -> None:
    """A worker that the head's strict session cannot use is given to the next who can. [property 17]"""
    driver = PoolDriver.ready(2)
    first, second = driver.lease(session="s", affinity="strict"), driver.lease()
    strict = driver.wait(session="s", affinity="strict")
    anybody = driver.wait()
    driver.checkin(second)
    assert driver.granted[anybody].number == second.number
    assert strict not in driver.granted
    driver.checkin(first)
    assert driver.granted[strict].number == first.number


def test_shed_waiters_are_passed_over_in_the_same_step() -> None:
    """A waiter that is turned away when its turn comes costs the next one nothing. [property 17]"""
    driver = PoolDriver.ready(codel_target=1.0, codel_interval=5.0)
    lease = driver.lease()
    slow = [driver.wait() for _ in range(3)]
    driver.advance(5.0)
    driver.checkin(lease)
    driver.advance(5.0)
    fresh = driver.wait()
    driver.checkin(driver.granted[slow[0]])
    assert driver.granted[fresh] is not None
    assert [waiter in driver.refused for waiter in slow] == [False, True, True]


@pytest.mark.parametrize(("freed", "woken"), [(1, 1), (2, 2), (3, 3)])
def test_as_many_are_woken_as_workers_come_free(freed: int, woken: int) -> None:
    """k workers that come back wake the k who came first, nobody else. [property 19]"""
    driver = PoolDriver.ready(3)
    leases = [driver.lease() for _ in range(3)]
    waiters = [driver.wait() for _ in range(5)]
    for lease in leases[:freed]:
        driver.checkin(lease)
    assert list(driver.granted) == waiters[:woken]


def test_a_resumed_pool_wakes_as_many_as_it_has_idle_workers() -> None:
    """Resuming gives every idle worker to one waiter, in order of arrival. [property 19]"""
    driver = PoolDriver.ready(2)
    driver.state.suspend(driver.now)
    waiters = [driver.wait() for _ in range(3)]
    driver.state.resume(driver.now)
    driver.settle()
    assert list(driver.granted) == waiters[:2]


@pytest.mark.parametrize(("waiting", "starts"), [(1, 1), (2, 2), (5, 3)])
def test_starts_in_flight_never_exceed_unmet_demand(waiting: int, starts: int) -> None:
    """Each waiter orders at most one start, and never more than there is room for. [property 19]"""
    driver = PoolDriver(pool_size=3, lazy=True, max_starting=10)
    for _ in range(waiting):
        driver.wait()
    assert len(driver.starting) == starts


def test_waiter_for_one_certain_worker_starts_no_other() -> None:
    """A strict session's waiter is no demand for a new worker, which could not serve it. [property 19]"""
    driver = PoolDriver(pool_size=2, lazy=True)
    driver.wait(session="s", affinity="strict")
    driver.started()
    driver.wait(session="s", affinity="strict")
    assert not driver.starting


def test_demand_that_has_left_starts_nothing_more() -> None:
    """Waiters that were served or left order no further start. [property 19]"""
    driver = PoolDriver(pool_size=3, lazy=True, max_starting=1)
    waiters = [driver.wait() for _ in range(3)]
    for waiter in waiters[:2]:
        driver.cancel(waiter)
    driver.started()
    assert waiters[2] in driver.granted
    assert not driver.starting


# --- keeping one's place --------------------------------------------------------------------------------


def test_waiter_keeps_its_place_when_its_worker_turns_out_unclean() -> None:
    """A grant that must be undone puts its waiter back in front of those who came later. [property 21]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    first, second = driver.wait(), driver.wait()
    driver.checkin(lease)
    assert driver.reject(driver.granted[first]) == first
    driver.reap()
    driver.started()
    assert list(driver.granted) == [first]
    assert second not in driver.granted


def test_waiter_that_is_served_at_once_by_another_worker_has_waited_all_the_same() -> None:
    """When the worker it was granted turns out unclean, what it is told of its wait is all of it."""
    driver = PoolDriver.ready(2)
    leases = [driver.lease(), driver.lease()]
    waiter = driver.wait()
    driver.advance(3.0)
    for lease in leases:
        driver.checkin(lease)
    again = driver.reject(driver.granted[waiter])
    assert isinstance(again, Granted)
    assert (again.number, again.waited) == (leases[1].number, 3.0)


@pytest.mark.parametrize("backwards", [False, True])
def test_waiters_whose_grants_are_undone_keep_their_order(backwards: bool) -> None:
    """Several grants undone together, in whatever order, restore the order of arrival. [property 21]"""
    driver = PoolDriver.ready(2)
    leases = [driver.lease(), driver.lease()]
    waiters = [driver.wait() for _ in range(3)]
    for lease in leases:
        driver.checkin(lease)
    undone = [driver.granted[waiter] for waiter in waiters[:2]]
    for lease in reversed(undone) if backwards else undone:
        driver.reject(lease)
    for _ in range(2):
        driver.reap()
        driver.started()
    assert list(driver.granted) == waiters[:2]


@pytest.mark.parametrize("session", [None, "s"])
def test_asking_again_from_a_place_is_counted_once(session: str | None) -> None:
    """Who is served at once after an undone grant does not leave the line a second time. [property 21]"""
    driver = PoolDriver.ready(2)
    leases = [driver.lease(), driver.lease()]
    waiter = driver.wait(session=session)
    for lease in leases:
        driver.checkin(lease)
    driver.advance(1.0)
    granted = driver.reject(driver.granted[waiter])
    assert getattr(granted, "number", None) == leases[1].number
    assert driver.state.statistics().waiting == 0
    assert driver.state.counters.attempts == 3


def test_undone_grant_keeps_the_deadline_of_its_place() -> None:
    """Standing in line again does not begin a new patience. [property 21]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    waiter = driver.wait(timeout=10.0)
    driver.advance(9.0)
    driver.checkin(lease)
    driver.reject(driver.granted[waiter])
    driver.advance(0.9)
    assert waiter not in driver.refused
    driver.advance(0.2)
    assert isinstance(driver.refused[waiter], CheckoutTimeoutError)


@pytest.mark.trio
async def test_caller_whose_worker_spoke_out_of_turn_is_served_before_later_ones(
    autojump_clock: MockClock,
) -> None:
    """Granted a worker that turns out unclean before it runs, a caller goes back to the head. [property 21]"""
    ports = MockPortFactory(echo, start_delay=1.0)
    served: list[tuple[str, int, float]] = []

    async def ask(name: str) -> None:
        async with pool.checkout() as lease:
            served.append((name, lease.worker.incarnation, lease.granted.waited))

    async with WorkerPool(ports, pool_size=1) as pool, trio.open_nursery() as nursery:
        async with pool.checkout() as lease:
            await lease.request("echo")
            for name in ("first", "second"):
                nursery.start_soon(ask, name)
                await wait_all_tasks_blocked()
        ports.ports[0].inject(b"!")
    assert served == [("first", 2, 1.0), ("second", 2, 1.0)]


def test_undone_grant_after_the_deadline_ends_in_a_timeout_of_the_whole_wait() -> None:
    """Late when its worker turns out unclean, a caller is told of all its wait, as is telemetry. [property 21]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    waiter = driver.wait(timeout=10.0)
    driver.advance(9.0)
    driver.checkin(lease)
    driver.advance(2.0)
    error = driver.reject(driver.granted[waiter])
    assert isinstance(error, CheckoutTimeoutError)
    assert error.waited == 11.0
    [told] = [event.measurements for event in driver.events if event.name == "timeout"]
    assert told == {"wait": 11.0}
    assert driver.state.counters.timeouts == 1


# --- leaving the line -----------------------------------------------------------------------------------


def test_waiter_is_out_of_the_line_when_its_time_is_over() -> None:
    """At its deadline, not later, a waiter is gone, and the next check-in serves a live one. [property 22]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    short, long = driver.wait(timeout=1.0), driver.wait(timeout=100.0)
    driver.advance(1.0)
    assert isinstance(driver.refused[short], CheckoutTimeoutError)
    assert driver.state.statistics().waiting == 1
    driver.checkin(lease)
    assert list(driver.granted) == [long]


def test_check_in_passes_over_any_number_of_dead_waiters() -> None:
    """One check-in serves the first live waiter, however many before it have left or timed out. [property 23]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    dead = [driver.wait(timeout=1.0 if index % 2 else 1000.0) for index in range(20)]
    live = driver.wait()
    for waiter in dead[::2]:
        driver.cancel(waiter)
    driver.advance(1.0)
    driver.checkin(lease)
    assert list(driver.granted) == [live]
