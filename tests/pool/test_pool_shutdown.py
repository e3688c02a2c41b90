"""Closing, on every kind of port: everybody is told at once, everything ends, within one bound."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from dspex_pool.errors import PoolClosedError, WorkerDiedError
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.pool.callers import planned

if TYPE_CHECKING:
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")

#: Seconds within which what does not take a grace of 20 s must be over, on a busy machine too.
AT_ONCE = 10.0


async def test_waiters_hear_of_the_close_at_once(make_pool: MakePool) -> None:
    """Whoever waits has its error while slow workers and a holder still take their time. [property 76]"""
    told: list[bool] = []
    ports = make_pool.ports()
    pool = make_pool.worker_pool(ports=ports, terminate_grace=6 * make_pool.unit)

    async def wait_in_vain() -> None:
        with pytest.raises(PoolClosedError):
            async with pool.checkout():
                pass
        told.append(ports.live != [])

    async with trio.open_nursery() as nursery:
        async with pool, pool.checkout():
            ports.stop()
            for _ in range(2):
                nursery.start_soon(wait_in_vain)
            await until(lambda: pool.statistics().waiting == 2, "both wait")
            nursery.start_soon(pool.aclose)
            await until(lambda: len(told) == 2, "both are told")
    assert told == [True, True]


async def test_close_does_not_wait_for_a_lease_that_never_comes_back(make_pool: MakePool) -> None:
    """A worker in a caller's hands is ended by force after ``terminate_grace``. [property 79]"""
    failed: list[WorkerDiedError] = []

    async def hold_for_ever(pool: WorkerPool) -> None:
        with pytest.raises(WorkerDiedError) as caught:
            async with pool.checkout() as lease:
                await lease.request(*planned(Plan().stall(deaf=True)))
        failed.append(caught.value)

    ports, grace = make_pool.ports(), 3 * make_pool.unit
    async with trio.open_nursery() as nursery:
        async with make_pool.worker_pool(ports=ports, terminate_grace=grace, close_timeout=30.0) as pool:
            nursery.start_soon(hold_for_ever, pool)
            await until(lambda: ports.ports and ports.ports[0].received[-1:] == ["do"], "the call runs")
            began = trio.current_time()
        assert grace <= trio.current_time() - began < AT_ONCE
    assert not ports.live
    assert "the pool ended it: closed" in failed[0].message


async def test_slow_workers_take_one_grace_together(make_pool: MakePool) -> None:
    """Five workers that ignore end of stdin and SIGTERM are gone after one ``terminate_grace``. [property 87]"""
    ports, grace = make_pool.ports(), 8 * make_pool.unit
    async with make_pool.worker_pool(ports=ports, pool_size=3, terminate_grace=grace) as pool:
        await pool.wait_ready(3)
        for number in (1, 2, 3):
            ports.stop(f"w-{number}")
        began = trio.current_time()
    assert grace <= trio.current_time() - began < 2 * grace
    assert all(port.signals[:3] == ["eof", "terminate", "kill"] for port in ports.ports)


async def test_workers_that_leave_politely_end_the_close_at_once(make_pool: MakePool) -> None:
    """The grace is a bound, not a pause. [property 87]"""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports, pool_size=3, terminate_grace=20.0) as pool:
        await pool.wait_ready(3)
        began = trio.current_time()
    assert trio.current_time() - began < AT_ONCE
    assert all(port.signals == ["eof"] for port in ports.ports)


async def test_cancelled_close_does_not_take_its_grace(make_pool: MakePool) -> None:
    """Once cancelled, closing kills instead of waiting for politeness. [property 81]"""
    ports = make_pool.ports()
    pool = make_pool.worker_pool(ports=ports, pool_size=2, terminate_grace=20.0)
    began = trio.current_time()
    with trio.move_on_after(1e6) as scope:
        async with pool:
            await pool.wait_ready(2)
            ports.stop("w-1")
            ports.stop("w-2")
            began = trio.current_time()
            scope.deadline = began + make_pool.unit
    assert scope.cancelled_caught
    assert trio.current_time() - began < AT_ONCE
    assert not ports.live


def fail() -> None:
    """Fail as a broken hook of the system's would."""
    raise OSError("no goodbye")


async def test_end_that_fails_keeps_no_other_from_being_carried_out(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose goodbye raises is killed all the same; the others leave politely; one report. [property 84]"""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports, pool_size=3) as pool:
        await pool.wait_ready(3)
        monkeypatch.setattr(ports.port("w-2"), "send_eof", fail)
    assert not ports.live
    assert [set(ports.port(f"w-{slot}").signals) for slot in (1, 2, 3)] == [{"eof"}, {"kill"}, {"eof"}]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "the task of worker w-2 failed; the worker is replaced"
    ]


async def test_closing_twice_or_together_is_closing_once(make_pool: MakePool) -> None:
    """A second close, also beside the first, waits for the same end and does nothing more. [property 87]"""
    ports, grace = make_pool.ports(), 4 * make_pool.unit
    pool = make_pool.worker_pool(ports=ports, terminate_grace=grace)
    closed: list[tuple[str, ...]] = []
    pool.telemetry.attach((), lambda event, *_: closed.append(event) if event[-1] == "closed" else None)
    async with pool:
        await pool.wait_ready()
        ports.stop()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(pool.aclose)
        assert grace <= trio.current_time() - began < AT_ONCE
        await pool.aclose()
    assert len(closed) == 1


async def test_pool_that_has_closed_can_be_resized_and_drained(make_pool: MakePool) -> None:
    """The calls do nothing after the ``async with`` block; an impossible size is refused even then. [property 92]"""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports) as pool:
        await pool.wait_ready()
    before = pool.statistics()
    pool.resize(3)
    pool.drain()
    pool.suspend()
    pool.resume()
    assert pool.statistics() == before
    assert ports.started == 1
    with pytest.raises(ValueError, match="at least 1, not 0"):
        pool.resize(0)


async def test_closing_fails_who_waits_for_readiness(make_pool: MakePool) -> None:
    """``wait_ready`` raises PoolClosedError in the moment in which the pool closes. [property 24]"""
    failed: list[bool] = []

    async def wait_for_ever(pool: WorkerPool) -> None:
        with pytest.raises(PoolClosedError):
            await pool.wait_ready(2)
        failed.append(True)

    ports = make_pool.ports(hang_starts=2)
    async with trio.open_nursery() as nursery:
        async with make_pool.worker_pool(ports=ports, pool_size=2, spawn_timeout=100.0) as pool:
            for _ in range(2):
                nursery.start_soon(wait_for_ever, pool)
            await trio.testing.wait_all_tasks_blocked()
            assert failed == []
    assert failed == [True, True]


async def test_closing_notices_at_once_that_the_worker_has_left(make_pool: MakePool) -> None:
    """Without a listener a worker's start and end need no decision; readiness and closing are noticed anyway."""
    async with make_pool.worker_pool(terminate_grace=20.0) as pool:
        await pool.wait_ready()
        began = trio.current_time()
    assert trio.current_time() - began < AT_ONCE, "closing waited for its grace although the worker had left"


async def test_goodbye_does_not_wait_for_a_full_pipe(make_pool: MakePool) -> None:
    """A caller that is stuck in writing to a worker that does not read holds no close up. [property 86]"""
    failed: list[Exception] = []
    ports = make_pool.ports()

    async def write_in_vain(pool: WorkerPool) -> None:
        with pytest.raises(WorkerDiedError) as caught:
            async with pool.checkout() as lease:
                await lease.request("echo", {"data": "x" * 2_000_000})
        failed.append(caught.value)

    async with trio.open_nursery() as nursery:
        async with make_pool.worker_pool(ports=ports, terminate_grace=0.5) as pool:
            await pool.wait_ready()
            ports.stop()
            nursery.start_soon(write_in_vain, pool)
            await until(lambda: ports.ports[0].bytes_sent > 60_000, "the pipe is full")
            began = trio.current_time()
        assert trio.current_time() - began < AT_ONCE
    assert "the pool ended it: closed" in str(failed[0])


async def test_close_while_everybody_is_busy_leaves_nothing(make_pool: MakePool) -> None:
    """Starts, calls, care and a line, all cut off by a close: all callers hear of it. [property 77]"""
    heard: list[type[BaseException]] = []
    ports = make_pool.ports(hang_starts=1)

    async def call(pool: WorkerPool) -> None:
        try:
            async with pool.checkout() as lease:
                await lease.request(*planned(Plan().stall(deaf=True)))
        except (PoolClosedError, WorkerDiedError) as error:
            heard.append(type(error))

    async with trio.open_nursery() as nursery:
        async with make_pool.worker_pool(ports=ports, pool_size=3, terminate_grace=0.3) as pool:
            for _ in range(8):
                nursery.start_soon(call, pool)
            await until(lambda: pool.statistics().leased >= 1, "a call runs")
            assert pool.statistics().starting >= 1
    assert len(heard) == 8
    assert set(heard) == {PoolClosedError, WorkerDiedError}
    assert not ports.live
