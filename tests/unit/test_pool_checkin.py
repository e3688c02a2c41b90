"""Check-in and the wire: who reads what, and which worker may serve again. Block E of the pool's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.core.records import Outcome
from dspex_pool.lifecycle import WorkerState
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.pool_driver import PoolDriver
from dspex_testkit.sweep import echo

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from dspex_testkit.mock_port import MockPort


def pool_of_one(
    behaviour: Callable[[MockPort], object], **settings: Any
) -> tuple[WorkerPool, MockPortFactory]:
    """Return a pool of one worker with that behaviour, whose replacements echo."""
    ports = MockPortFactory({1: behaviour} | dict.fromkeys(range(2, 9), echo))
    return WorkerPool(ports, **{"pool_size": 1, "health_check_interval": None} | settings), ports


async def serving(pool: WorkerPool) -> int:
    """Return the incarnation that serves the next caller, after making sure that it does."""
    async with pool.checkout(timeout=30.0) as lease:
        assert await lease.request("echo", {"a": 1}) == {"a": 1}
        return lease.worker.incarnation


# --- torn frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("taken", "incarnation"), [(0, 1), (1, 2), (20, 2), (10_000, 1)])
@pytest.mark.trio
async def test_worker_with_half_a_frame_is_retired(
    taken: int, incarnation: int, autojump_clock: MockClock
) -> None:
    """Cut off in mid-frame a worker goes; before the first byte, or after the last and an answer, it stays.

    [property 49]
    """
    pool, ports = pool_of_one(echo)
    async with pool:
        with trio.move_on_after(1.0):
            async with pool.checkout() as lease:
                ports.ports[0].accept_only(taken)
                await lease.request("echo")
                await trio.sleep_forever()
        ports.ports[0].go_on()
        assert await serving(pool) == incarnation


# --- the reset hook ---------------------------------------------------------------------------------------


def test_worker_in_care_that_fails_is_replaced_for_the_line() -> None:
    """To the core a failed reset is a failed drain: retired, reaped, replaced, and the head served. [property 54]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    waiter = driver.wait()
    driver.checkin(lease, Outcome.CARE)
    assert driver.in_state(WorkerState.DRAINING) == [1]
    driver.failed(1, "drain_failed")
    driver.reap()
    driver.started()
    assert waiter in driver.granted


def test_worker_in_care_has_the_grace_and_no_longer() -> None:
    """A drain that does not end is ended by the pool. [property 54]"""
    driver = PoolDriver.ready(cancel_grace=2.0)
    driver.checkin(driver.lease(), Outcome.CARE)
    driver.advance(1.9)
    assert driver.in_state(WorkerState.DRAINING) == [1]
    driver.advance(0.1)
    assert driver.retirements == [(1, "cancel_grace", False)]


# --- one user of a pipe -----------------------------------------------------------------------------------


def test_worker_under_a_ping_is_in_no_ones_reach() -> None:
    """A pinged worker is not idle, so neither checkout nor claim can take it. [property 60]"""
    driver = PoolDriver.ready(health_check_interval=10.0)
    driver.advance(10.0)
    assert driver.pinging == [1]
    assert driver.state.claim(1, driver.now) is None
    waiter = driver.wait()
    driver.pinged()
    assert waiter in driver.granted
