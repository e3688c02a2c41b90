"""What observers of a pool are told, and what they may do to it while they are told."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.core.records import Outcome
from dspex_pool.telemetry import EVENTS
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.pool_driver import PoolDriver
from tests.echo_pool import attempt, echo, echo_pool, hold
from tests.pool.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from dspex_pool.worker_pool import WorkerPool


async def crowd(pool: WorkerPool, ports: MockPortFactory) -> None:
    """Send more callers than the line takes."""
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(functools.partial(attempt, pool, timeout=1.0 + number))


async def sessions(pool: WorkerPool, ports: MockPortFactory) -> None:
    """Use sessions, kill their workers, use them again."""
    await trio.sleep(10.0)
    for affinity in ("strict", "hint"):
        await attempt(pool, 0.1, session=affinity, affinity=affinity)
    for port in ports.live:
        port.die(signal=9)
    await trio.sleep(1.0)
    await attempt(pool, session="strict", affinity="strict")
    await attempt(pool, session="hint")


async def impatient(pool: WorkerPool, ports: MockPortFactory) -> None:
    """Leave a call, and leave the line."""
    await trio.sleep(14.0)
    with trio.move_on_after(1.0):
        async with pool.checkout() as lease:
            await lease.request("slow")
    await trio.sleep(2.0)
    pool.suspend()
    await attempt(pool, timeout=0.5)
    with trio.move_on_after(0.5):
        await hold(pool)
    pool.resume()


async def leaker(pool: WorkerPool, ports: MockPortFactory) -> None:
    """Hold a worker for longer than it may be held."""
    await trio.sleep(20.0)
    await attempt(pool, 15.0)


async def unclean(pool: WorkerPool, ports: MockPortFactory) -> None:
    """Meet an unclean worker, change the size, and let a ping hang."""
    await trio.sleep(40.0)
    ports.live[-1].inject(b"noise")
    await attempt(pool)
    pool.resize(1)
    pool.drain()
    pool.resize(2)
    ports.live[-1].answer("ping", Plan().stall(deaf=True))


#: What callers and administrators do, each in a task of its own.
BUSY_DAY = [crowd, sessions, impatient, leaker, unclean]


@pytest.mark.trio
async def test_events_follow_the_catalogue_and_add_up_to_the_gauges(autojump_clock: MockClock) -> None:
    """Through all that can happen to a pool, every event is as listed, and their sum is what it reports."""
    ports = MockPortFactory(echo, start_delay=0.5, fail_starts=1)
    pool = echo_pool(
        2,
        ports=ports,
        max_overflow=1,
        max_waiting=2,
        health_check_interval=7.0,
        ping_timeout=1.0,
        idle_timeout=40.0,
        session_ttl=5.0,
        min_idle=1,
        lease_timeout=12.0,
        leak_warning_after=6.0,
        backoff_min=0.1,
        backoff_max=0.2,
        cancel_grace=1.0,
        terminate_grace=1.0,
        random=random.Random(1),
    )
    listener = Listener(pool)
    async with pool:
        async with trio.open_nursery() as nursery:
            for act in BUSY_DAY:
                nursery.start_soon(act, pool, ports)
            while len(nursery.child_tasks):
                listener.compare()
                await trio.sleep(0.25)
        await trio.sleep(60.0)
        listener.compare()
    listener.compare()
    expected = EVENTS.keys() - NOT_OF_A_POOL_ALONE
    assert listener.ledger.events.keys() == expected


#: Events of calls and services, which the parts above tell of, and of the breaker, which stays closed here.
NOT_OF_A_POOL_ALONE = {name for name in EVENTS if name.startswith(("call_", "breaker_"))} | {
    "session_started",
    "session_ended",
    "session_expired",
    "monitor_restarted",
    "service_restarted",
}


#: How the pool's own work on a worker may come to nothing.
BAD_ENDS: dict[str, Callable[[PoolDriver], object]] = {
    "failed": lambda driver: driver.failed(1),
    "died": lambda driver: driver.gone(1),
    "late": lambda driver: driver.advance(5.0),
    "closed": lambda driver: driver.state.close_now(driver.now),
}


@pytest.mark.parametrize("end", BAD_ENDS)
@pytest.mark.parametrize("event", ["ping_stop", "worker_drained"])
def test_care_that_comes_to_nothing_is_told_to_have_ended(event: str, end: str) -> None:
    """Who counted failed health checks by their event counted only those that took too long.

    A worker that answered its ping with an error, or died of it, was replaced without a ``ping_stop``, so that a
    check which had begun never ended; and so it was with what a caller had left on a worker.
    """
    driver = PoolDriver.ready(health_check_interval=10.0, ping_timeout=2.0, cancel_grace=2.0)
    if event == "ping_stop":
        driver.advance(10.0)
    else:
        driver.checkin(driver.lease(), Outcome.CARE)
    assert driver.pinging or driver.draining
    BAD_ENDS[end](driver)
    driver.settle()
    (ended,) = [told for told in driver.events if told.name == event]
    assert (ended.metadata["worker_id"], ended.metadata["ok"]) == ("w-1", False)
