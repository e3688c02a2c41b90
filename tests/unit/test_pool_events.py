"""What observers of a pool are told, and what they may do to it while they are told."""

from __future__ import annotations

import functools
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import PoolClosedError
from dspex_pool.telemetry import EVENTS, PREFIX, GaugeLedger, Telemetry, problem_with
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from tests.echo_pool import attempt, echo, echo_pool, hold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio.testing import MockClock

    from dspex_pool.worker_pool import WorkerPool


class Listener:
    """Holds every event against the catalogue, adds it up, and compares with the pool's own books."""

    def __init__(self, pool: WorkerPool) -> None:
        self.ledger = GaugeLedger()
        self.pool = pool
        self.problems: list[str] = []
        pool.telemetry.attach(PREFIX, self)

    def __call__(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        self.ledger(event, measurements, metadata)
        if (problem := problem_with(event, measurements, metadata)) is not None:
            self.problems.append(problem)

    def compare(self) -> None:
        """Check that the events add up to the statistics."""
        statistics, ledger = self.pool.statistics(), self.ledger
        assert self.problems == []
        assert ledger.contradictions == []
        for state in ("starting", "idle", "pinging", "leased", "draining", "retiring"):
            assert ledger.by_state[state] == getattr(statistics, state), state
        assert ledger.waiting == statistics.waiting
        assert ledger.processes == statistics.processes
        assert ledger.attempts == statistics.counters.attempts
        for name, count in ledger.counters.items():
            assert getattr(statistics.counters, name) == count, name
        assert (ledger.is_suspended, ledger.is_circuit_open, ledger.is_closed) == (
            statistics.suspended,
            statistics.circuit_open,
            statistics.closed,
        )


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


@pytest.mark.trio
async def test_handler_that_raises_is_detached_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """A broken listener is named once in the log; the pool and the other listeners go on."""
    heard: list[str] = []

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with echo_pool() as pool:
        pool.telemetry.attach((), broken)
        pool.telemetry.attach((), lambda event, *_: heard.append(event[-1]))
        await hold(pool)
        await hold(pool)
    assert heard.count("checkout") == 2
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    assert "broken" in caplog.text


#: What a handler may do to the pool that is just telling it something.
MEDDLING: dict[str, Callable[[WorkerPool], object]] = {
    "statistics": lambda pool: pool.statistics(),
    "resume": lambda pool: pool.resume(),
    "suspend": lambda pool: pool.resume() if pool.statistics().suspended else pool.suspend(),
    "resize": lambda pool: pool.resize(2),
    "drain": lambda pool: pool.drain(),
    "measure": lambda pool: pool.measure_memory(),
    "forget": lambda pool: pool.forget_session("s"),
}


@pytest.mark.trio
@pytest.mark.parametrize("act", MEDDLING)
async def test_handler_may_call_the_pool(act: str, autojump_clock: MockClock) -> None:
    """Whatever a listener does to the pool, at any event, callers are served and the books agree."""
    pool = echo_pool(ports=MockPortFactory(echo, start_delay=0.1))
    listener = Listener(pool)
    left = iter(range(40))
    pool.telemetry.attach((), lambda *_: next(left, None) is not None and MEDDLING[act](pool))
    async with pool:
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(hold, pool)
        listener.compare()
    listener.compare()


@pytest.mark.trio
async def test_handler_may_serve_the_very_caller_that_begins_to_wait(autojump_clock: MockClock) -> None:
    """A listener that resumes the pool when it hears of a waiter serves it, also at that moment."""
    async with echo_pool() as pool:
        await pool.wait_ready()
        pool.suspend()
        pool.telemetry.attach((*PREFIX, "waiting"), lambda *_: pool.resume())
        with trio.fail_after(1):
            await hold(pool, 0.0)
        pool.suspend()
        with trio.move_on_after(0.5):
            await hold(pool, 10.0)
        assert pool.statistics().counters.granted == 2
        assert pool.statistics().waiting == 0


@pytest.mark.trio
async def test_caller_that_is_served_while_it_begins_to_wait_may_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    """A grant that comes before the caller sleeps is undone or used as any other when it is cancelled then."""

    def serve_and_cancel(*_: object) -> None:
        pool.resume()
        scope.cancel()

    async with echo_pool() as pool:
        await pool.wait_ready()
        pool.suspend()
        pool.telemetry.attach((*PREFIX, "waiting"), serve_and_cancel)
        with trio.CancelScope() as scope:
            await hold(pool)
        assert scope.cancelled_caught
        await hold(pool)
        assert pool.statistics().idle == 1


@pytest.mark.trio
@pytest.mark.parametrize("event", ["checkin", "closing"])
async def test_handler_may_cancel_the_caller_whose_turn_has_come(
    event: str, autojump_clock: MockClock
) -> None:
    """Who is cancelled after its fate is decided and before it is told has its worker, or its error. [property 2]"""
    async with echo_pool() as pool, trio.open_nursery() as nursery:
        pool.telemetry.attach((*PREFIX, event), lambda *_: nursery.cancel_scope.cancel())
        async with pool.checkout():
            nursery.start_soon(attempt, pool)
            await trio.sleep(1.0)
            if event == "closing":
                pool.refuse_all()
    statistics = pool.statistics()
    assert (statistics.waiting, statistics.leased) == (0, 0)
    assert statistics.counters.granted == statistics.counters.returned


@pytest.mark.trio
async def test_handler_may_refuse_the_very_caller_that_begins_to_wait(autojump_clock: MockClock) -> None:
    """A listener that closes the pool when it hears of a waiter ends that wait at once."""
    async with echo_pool() as pool, pool.checkout():
        pool.telemetry.attach((*PREFIX, "waiting"), lambda *_: pool.refuse_all())
        with pytest.raises(PoolClosedError):
            await hold(pool)


@pytest.mark.trio
async def test_pools_may_share_their_telemetry(autojump_clock: MockClock) -> None:
    """The object that the user gives is the one that is told."""
    telemetry, heard = Telemetry(), []
    telemetry.attach((*PREFIX, "closed"), lambda *event: heard.append(event))
    async with echo_pool(telemetry=telemetry) as pool:
        assert pool.telemetry is telemetry
        await pool.wait_ready()
    assert len(heard) == 1
