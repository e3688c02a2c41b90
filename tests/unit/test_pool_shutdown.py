"""Closing: everybody is told at once, everything ends, within one bound. Block G of the pool's rules."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.core.records import Outcome
from dspex_pool.errors import PoolClosedError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.pool_driver import PoolDriver

if TYPE_CHECKING:
    from trio.testing import MockClock


def ready_pool(pool_size: int = 1, **options: Any) -> PoolDriver:
    """Return a pool whose workers are all idle; from then on the test answers for the world."""
    driver = PoolDriver(
        auto=True, pool_size=pool_size, max_starting=pool_size, health_check_interval=None, **options
    )
    driver.auto = False
    return driver


def close(driver: PoolDriver) -> None:
    """Begin to close."""
    driver.state.close(driver.now)
    driver.settle()


def stubborn(port: MockPort) -> None:
    """Have a worker end only when it is killed."""
    port.answer("echo", "hello").answer("hang", Plan().stall(deaf=True))
    port.reactions.eof = port.reactions.terminate = None


def immortal(port: MockPort) -> None:
    """Have a worker ignore being killed, as one does that hangs in the kernel."""
    stubborn(port)
    port.reactions.kill = 1000.0


# --- who waits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_suspended", [False, True])
def test_closing_refuses_the_whole_line_before_anything_ends(is_suspended: bool) -> None:
    """All waiters, whatever they wait for, are refused in the step in which closing begins. [property 76]"""
    driver = ready_pool(2)
    driver.lease(session="s", affinity="strict")
    driver.lease()
    if is_suspended:
        driver.state.suspend(driver.now)
    waiters = [driver.wait(), driver.wait(session="s", affinity="strict"), driver.wait(session="t")]
    close(driver)
    assert list(driver.refused) == waiters
    assert all(isinstance(error, PoolClosedError) for error in driver.refused.values())
    assert driver.state.counters.reaped == 0
    assert isinstance(driver.refusal(), PoolClosedError)


# --- who holds, who starts ------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", Outcome)
def test_worker_that_comes_back_after_the_close_is_ended(outcome: Outcome) -> None:
    """However a lease ends, a closing pool keeps its worker no longer than its care takes. [property 82]"""
    driver = ready_pool()
    lease = driver.lease()
    close(driver)
    assert driver.retirements == [], "a worker in a caller's hands is left alone"
    driver.checkin(lease, outcome)
    if outcome is Outcome.CARE:
        driver.drained()
    assert [number for number, _, _ in driver.retirements] == [lease.number]
    assert driver.in_state(WorkerState.IDLE) == []
    driver.reap()
    assert driver.state.workers == {}


def test_closing_ends_who_is_in_nobodys_hands_and_leaves_the_rest() -> None:
    """Starting, idle and pinged workers are ended by the close itself, lent ones when they return. [property 82]"""
    driver = PoolDriver(pool_size=4, max_starting=4, health_check_interval=5.0)
    for _ in range(3):
        driver.started()
    driver.lease()
    driver.advance(5.0)
    (starting,), (leased,) = driver.starting[:], driver.in_state(WorkerState.LEASED)
    pinged = driver.pinging[:]
    close(driver)
    assert {number for number, _, _ in driver.retirements} == {starting, *pinged}
    assert driver.in_state(WorkerState.LEASED) == [leased]
    driver.state.close_now(driver.now)
    driver.settle()
    assert driver.retirements[-1] == (leased, "closed", False)


def test_start_under_way_when_the_pool_closes_never_enters_it() -> None:
    """A worker that finishes its start after the close is not taken in, and no other is started. [property 78]"""
    driver = PoolDriver(pool_size=1)
    (starting,) = driver.starting
    close(driver)
    assert driver.retirements == [(starting, "closed", False)]
    assert not driver.state.worker_started(starting, driver.now)
    driver.reap()
    driver.advance(100.0)
    assert driver.state.counters.starts == 1
    assert driver.state.counters.started == 0


# --- bounds ---------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_close_is_bounded_even_if_a_process_cannot_be_killed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After ``close_timeout`` and one last try to reap, closing gives up and says what is left. [property 79]"""
    async with WorkerPool(
        MockPortFactory(immortal), pool_size=2, terminate_grace=1.0, close_timeout=7.0
    ) as pool:
        await pool.wait_ready(2)
    assert trio.current_time() == 7.0 + 5.0
    left = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert sorted(left) == [f"worker w-{slot} (pid None) could not be reaped" for slot in (1, 2)]


# --- cancelled, failing, repeated -----------------------------------------------------------------------


@pytest.mark.trio
async def test_cancelled_call_of_close_ends_every_process_first(autojump_clock: MockClock) -> None:
    """Who closes the pool from within, and is cancelled, leaves no process to be ended later. [property 81]"""

    def slow_to_die(port: MockPort) -> None:
        stubborn(port)
        port.reactions.kill = 1.0

    ports = MockPortFactory(slow_to_die)
    async with WorkerPool(ports, pool_size=2, terminate_grace=20.0) as pool:
        await pool.wait_ready(2)
        with trio.move_on_after(3.0) as scope:
            await pool.aclose()
        assert scope.cancelled_caught
        assert not ports.live
        assert trio.current_time() == 4.0


def test_closing_leaves_a_worker_in_care_its_grace() -> None:
    """It may yet be proven clean, and is then ended politely."""
    driver = PoolDriver.ready()
    driver.checkin(driver.lease(), Outcome.CARE)
    driver.state.close(driver.now)
    driver.settle()
    assert driver.retirements == []
    driver.drained()
    assert driver.retirements == [(1, "closed", True)]
