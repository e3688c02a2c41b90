"""Granting against leaving: no worker is lost between the line and its caller. Block A of the pool's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.core.records import Outcome
from dspex_pool.errors import CheckoutTimeoutError, ProgramError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.pool_driver import PoolDriver
from dspex_testkit.sweep import Stage, cancel, echo, kill_worker, sweep_scenario

if TYPE_CHECKING:
    from trio.testing import MockClock

    from dspex_testkit.mock_port import MockPort
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


@pytest.mark.trio
async def test_cancelled_caller_leaves_no_trace_of_a_checkout(autojump_clock: MockClock) -> None:
    """A caller that is cancelled already gets Cancelled; nothing waits, starts or is counted. [property 13]"""
    ports = MockPortFactory(echo)
    async with WorkerPool(ports, pool_size=1, lazy=True) as pool:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with pool.checkout():
                raise AssertionError("the block was entered")
        assert scope.cancelled_caught
        assert pool.statistics().counters.attempts == 0
        assert (pool.statistics().waiting, pool.statistics().starting, ports.attempts) == (0, 0, [])


@pytest.mark.parametrize("timeout", [0.0, -1.0])
@pytest.mark.trio
async def test_deadline_that_is_over_fails_at_once(timeout: float, autojump_clock: MockClock) -> None:
    """Without patience an idle worker is lent, and else the call fails in no time; no timer is left. [property 14]"""
    async with WorkerPool(MockPortFactory(echo), pool_size=1, health_check_interval=None) as pool:
        await pool.wait_ready()
        async with pool.checkout(timeout=timeout):
            began, wakes_at = trio.current_time(), pool._state.wake_at
            with pytest.raises(CheckoutTimeoutError) as caught:
                await pool.checkout(timeout=timeout).__aenter__()
            assert (trio.current_time(), pool._state.wake_at) == (began, wakes_at)
            assert caught.value.waited == 0.0


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


@pytest.mark.trio
async def test_lease_without_a_request_is_unused(autojump_clock: MockClock) -> None:
    """A caller that leaves before its first request costs neither the worker nor one of its uses. [property 4]"""
    async with WorkerPool(MockPortFactory(echo), pool_size=1, max_uses=1) as pool:
        for _ in range(3):
            async with pool.checkout():
                pass
        with trio.move_on_after(0):
            async with pool.checkout() as lease:
                await lease.request("echo")
        assert pool.statistics().counters.reaped == 0
        assert next(iter(pool._state.workers.values())).uses == 0


# --- set-up -----------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_failing_set_up_retires_the_worker_and_serves_the_head(autojump_clock: MockClock) -> None:
    """The error of the set-up reaches its caller; the worker goes, its slot does not. [property 6]"""
    ports = MockPortFactory({1: lambda port: port.answer("prepare", Plan().fail("no")), 2: echo})
    served: list[int] = []

    async def wait_behind(pool: WorkerPool) -> None:
        async with pool.checkout() as lease:
            served.append(lease.worker.incarnation)

    async with WorkerPool(ports, pool_size=1, setup=lambda lease: lease.request("prepare")) as pool:
        async with trio.open_nursery() as nursery:
            await pool.wait_ready()
            with pytest.raises(ProgramError, match="no"):
                async with pool.checkout():
                    raise AssertionError("the block was entered")
            nursery.start_soon(wait_behind, pool)
        assert served == [2]
        assert (len(ports.live), pool.statistics().idle) == (1, 1)


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


# --- check-in ---------------------------------------------------------------------------------------------


async def time_out_then_check_in(pool: WorkerPool) -> None:
    """Be a caller whose request is not answered in time."""
    with trio.move_on_after(1.0):
        async with pool.checkout() as lease:
            await lease.request("late")
    await trio.lowlevel.checkpoint()


def late_to_answer(port: MockPort) -> None:
    """Have ``late`` answered in three seconds, whoever interrupts."""
    echo(port)
    port.answer("late", lambda _: Plan().late_reply("too late", after=3.0))


@pytest.mark.trio
async def test_cancelled_caller_leaves_at_once_and_the_silent_worker_is_replaced(
    autojump_clock: MockClock,
) -> None:
    """Neither the request nor the check-in waits for the worker; the pool ends it in time. [property 9, 8]"""
    ports = MockPortFactory({1: lambda port: port.answer("late", lambda _: Plan().stall(deaf=True)), 2: echo})
    async with WorkerPool(ports, pool_size=1, cancel_grace=2.0, health_check_interval=None) as pool:
        await pool.wait_ready()
        await time_out_then_check_in(pool)
        assert trio.current_time() == 1.0
        assert pool.statistics().draining == 1
        async with pool.checkout() as lease:
            assert (trio.current_time(), lease.worker.incarnation) == (3.0, 2)
