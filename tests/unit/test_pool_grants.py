"""Granting against leaving: no worker is lost between the line and its caller. Block A of the pool's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.core.records import Outcome
from dspex_pool.errors import CheckoutTimeoutError
from dspex_pool.lifecycle import WorkerState
from dspex_testkit.pool_driver import PoolDriver
from dspex_testkit.sweep import Stage, cancel, kill_worker, sweep_scenario

if TYPE_CHECKING:
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.sweep import Act

both_acts = pytest.mark.parametrize("act", [cancel, kill_worker])


async def borrow(pool: WorkerPool, **asked: Any) -> None:
    """Be a caller: one checkout, one request, one more step with the lease in hand."""
    async with pool.checkout(**asked) as lease:
        assert await lease.request("slow", {"mine": 1}) == {"mine": 1}
        await trio.lowlevel.checkpoint()


# --- at once ----------------------------------------------------------------------------------------------


async def at_once(stage: Stage) -> None:
    """A checkout that finds an idle worker."""
    async with stage.pool(pool_size=2) as pool:
        stage.start(borrow, pool)


@both_acts
@pytest.mark.budget(0.1)
def test_checkout_loses_no_worker_wherever_it_is_disturbed(act: Act) -> None:
    """No step lies between a grant and the promise to give back, whatever happens where. [property 7, 2]"""
    assert sweep_scenario(at_once, act=act, seeds=[0]).points > 3


def test_deadline_that_is_over_arms_no_timer() -> None:
    """The core refuses a late waiter before it has a place, and asks for no wake-up. [property 14]"""
    driver = PoolDriver.ready()
    driver.lease()
    assert isinstance(driver.refusal(timeout=0.0), CheckoutTimeoutError)
    assert driver.state.wake_at == float("inf")
    assert driver.state.counters.timeouts == 1


# --- in line ----------------------------------------------------------------------------------------------


def test_waiter_cancelled_before_a_check_in_is_not_looked_at() -> None:
    """Cancelled in the step before the release, the head is gone and the next one gets the worker. [property 1]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    first, second = driver.wait(), driver.wait()
    driver.cancel(first)
    driver.checkin(lease)
    assert list(driver.granted) == [second]
    assert driver.state.counters.cancelled == 1


# --- unused -----------------------------------------------------------------------------------------------


def test_worker_that_was_never_used_comes_back_as_it_was() -> None:
    """Returned without a request, a worker lives on with the same use count, age and last use. [property 4]"""
    driver = PoolDriver.ready(max_uses=2)
    driver.checkin(driver.lease())
    driver.advance(50.0)
    record = driver.record(1)
    before = (record.uses, record.last_used, record.last_seen, record.ready_at)
    driver.checkin(driver.lease(), Outcome.UNUSED)
    assert record.state is WorkerState.IDLE
    assert (record.uses, record.last_used, record.last_seen, record.ready_at) == before == (1, 0.0, 0.0, 0.0)


def test_unused_lease_does_not_postpone_idleness() -> None:
    """Borrowing without use does not keep a superfluous worker alive. [property 4]"""
    driver = PoolDriver.ready(min_idle=0, idle_timeout=10.0)
    driver.advance(9.0)
    driver.checkin(driver.lease(), Outcome.UNUSED)
    driver.advance(1.0)
    assert [reason for _, reason, _ in driver.retirements] == ["idle_timeout"]


# --- set-up -----------------------------------------------------------------------------------------------


def test_set_up_that_fails_frees_the_slot_for_the_head() -> None:
    """To the core a failed set-up is a check-in that retires: the head is served after the reaping. [property 6]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    waiter = driver.wait()
    driver.checkin(lease, Outcome.RETIRE, "setup_failed")
    assert driver.retirements == [(lease.number, "setup_failed", False)]
    driver.reap()
    driver.started()
    assert waiter in driver.granted
