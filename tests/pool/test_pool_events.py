"""What observers of a pool are told, and what they may do to it while they are told, on every kind of port."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from dspex_pool.errors import CallTimeoutError, PoolClosedError
from dspex_pool.telemetry import PREFIX, Telemetry
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.broken_logging import broken_logging
from tests.pool.callers import attempt, hold, planned, serving, use
from tests.pool.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.ports.run import MakePool

__all__ = ["broken_logging"]

pytestmark = pytest.mark.ports("all")

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


async def test_handler_that_raises_is_detached_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture, make_pool: MakePool
) -> None:
    """A broken listener is named once in the log; the pool and the other listeners go on."""
    heard: list[str] = []

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with make_pool.worker_pool() as pool:
        pool.telemetry.attach((), broken)
        pool.telemetry.attach((), lambda event, *_: heard.append(event[-1]))
        await use(pool)
        await use(pool)
    assert heard.count("checkout") == 2
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    assert "broken" in caplog.text


@pytest.mark.parametrize("act", MEDDLING)
async def test_handler_may_call_the_pool(act: str, make_pool: MakePool) -> None:
    """Whatever a listener does to the pool, at any event, callers are served and the books agree."""
    pool = make_pool.worker_pool(ports=make_pool.ports(start_delay=0.1))
    listener = Listener(pool)
    left = iter(range(40))
    pool.telemetry.attach((), lambda *_: next(left, None) is not None and MEDDLING[act](pool))
    async with pool:
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(use, pool)
        listener.compare()
    listener.compare()


async def test_handler_may_serve_the_very_caller_that_begins_to_wait(make_pool: MakePool) -> None:
    """A listener that resumes the pool when it hears of a waiter serves it, also at that moment."""
    async with make_pool.worker_pool() as pool:
        await pool.wait_ready()
        pool.suspend()
        pool.telemetry.attach((*PREFIX, "waiting"), lambda *_: pool.resume())
        with trio.fail_after(20):
            await hold(pool, 0.0)
        pool.suspend()
        with trio.move_on_after(0.5 * make_pool.unit):
            await hold(pool, 10.0)
        assert pool.statistics().counters.granted == 2
        assert pool.statistics().waiting == 0


async def test_caller_that_is_served_while_it_begins_to_wait_may_be_cancelled(
    make_pool: MakePool,
) -> None:
    """A grant that comes before the caller sleeps is undone or used as any other when it is cancelled then."""

    def serve_and_cancel(*_: object) -> None:
        pool.resume()
        scope.cancel()

    async with make_pool.worker_pool() as pool:
        await pool.wait_ready()
        pool.suspend()
        pool.telemetry.attach((*PREFIX, "waiting"), serve_and_cancel)
        with trio.CancelScope() as scope:
            await use(pool)
        assert scope.cancelled_caught
        await use(pool)
        assert pool.statistics().idle == 1


@pytest.mark.parametrize("event", ["checkin", "closing"])
async def test_handler_may_cancel_the_caller_whose_turn_has_come(event: str, make_pool: MakePool) -> None:
    """Who is cancelled after its fate is decided and before it is told has its worker, or its error. [property 2]"""
    async with make_pool.worker_pool() as pool, trio.open_nursery() as nursery:
        pool.telemetry.attach((*PREFIX, event), lambda *_: nursery.cancel_scope.cancel())
        async with pool.checkout():
            nursery.start_soon(attempt, pool)
            await until(lambda: pool.statistics().waiting, "somebody waits")
            if event == "closing":
                pool.refuse_all()
    statistics = pool.statistics()
    assert (statistics.waiting, statistics.leased) == (0, 0)
    assert statistics.counters.granted == statistics.counters.returned


async def test_handler_may_refuse_the_very_caller_that_begins_to_wait(make_pool: MakePool) -> None:
    """A listener that closes the pool when it hears of a waiter ends that wait at once."""
    async with make_pool.worker_pool() as pool, pool.checkout():
        pool.telemetry.attach((*PREFIX, "waiting"), lambda *_: pool.refuse_all())
        with pytest.raises(PoolClosedError):
            await use(pool)


async def test_pools_may_share_their_telemetry(make_pool: MakePool) -> None:
    """The object that the user gives is the one that is told."""
    telemetry, heard = Telemetry(), []
    telemetry.attach((*PREFIX, "closed"), lambda *event: heard.append(event))
    async with make_pool.worker_pool(telemetry=telemetry) as pool:
        assert pool.telemetry is telemetry
        await pool.wait_ready()
    assert len(heard) == 1


@pytest.mark.usefixtures("broken_logging")
async def test_broken_filter_of_logging_costs_no_call_and_no_pool(make_pool: MakePool) -> None:
    """A filter that raised at a worker's record took the answer's place; at aftercare in vain it ended the pool."""
    talk = Plan().event("log", {"message": "hello"}).reply("answer")
    die_in_care = Plan().after(2 * make_pool.unit, deaf=True).die()
    async with make_pool.worker_pool(cancel_grace=30.0, backoff_min=0.1) as pool:
        async with pool.checkout() as lease:
            assert await lease.request(*planned(talk)) == "answer"
        with pytest.raises(CallTimeoutError):
            async with pool.checkout() as lease:
                await lease.request(*planned(die_in_care), timeout=make_pool.unit)
        assert await serving(pool) == 2
