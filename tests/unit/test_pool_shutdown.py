"""Closing: everybody is told at once, everything ends, within one bound. Block G of the pool's rules."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.core.records import Outcome
from dspex_pool.errors import PoolClosedError, WorkerDiedError
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


@pytest.mark.trio
async def test_waiters_hear_of_the_close_at_once(autojump_clock: MockClock) -> None:
    """Whoever waits has its error while slow workers and a holder still take their time. [property 76]"""
    told: list[float] = []

    async def wait_in_vain(pool: WorkerPool) -> None:
        with pytest.raises(PoolClosedError):
            async with pool.checkout():
                pass
        told.append(trio.current_time())

    pool = WorkerPool(MockPortFactory(stubborn), pool_size=1, terminate_grace=6.0)
    async with trio.open_nursery() as nursery:
        async with pool, pool.checkout():
            for _ in range(2):
                nursery.start_soon(wait_in_vain, pool)
            await trio.sleep(3.0)
            nursery.start_soon(pool.aclose)
            await trio.sleep(2.0)
            assert told == [3.0, 3.0]


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
async def test_close_does_not_wait_for_a_lease_that_never_comes_back(autojump_clock: MockClock) -> None:
    """A worker in a caller's hands is ended by force after ``terminate_grace``. [property 79]"""
    failed: list[WorkerDiedError] = []

    async def hold_for_ever(pool: WorkerPool) -> None:
        with pytest.raises(WorkerDiedError) as caught:
            async with pool.checkout() as lease:
                await lease.request("hang")
        failed.append(caught.value)

    ports = MockPortFactory(stubborn)
    async with trio.open_nursery() as nursery:
        async with WorkerPool(ports, pool_size=1, terminate_grace=3.0, close_timeout=10.0) as pool:
            nursery.start_soon(hold_for_ever, pool)
            await trio.sleep(1.0)
        assert trio.current_time() == 4.0
    assert not ports.live
    assert "the pool ended it: closed" in failed[0].message


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


@pytest.mark.trio
async def test_slow_workers_take_one_grace_together(autojump_clock: MockClock) -> None:
    """Five workers that ignore end of stdin and SIGTERM are gone after one ``terminate_grace``. [property 87]"""
    ports = MockPortFactory(stubborn)
    async with WorkerPool(ports, pool_size=5, max_starting=5, terminate_grace=4.0) as pool:
        await pool.wait_ready(5)
    assert trio.current_time() == 4.0
    assert all(port.signals[:3] == ["eof", "terminate", "kill"] for port in ports.ports)


@pytest.mark.trio
async def test_workers_that_leave_politely_end_the_close_at_once(autojump_clock: MockClock) -> None:
    """The grace is a bound, not a pause. [property 87]"""
    ports = MockPortFactory()
    async with WorkerPool(ports, pool_size=3, max_starting=3) as pool:
        await pool.wait_ready(3)
    assert trio.current_time() == 0.0
    assert all(port.signals == ["eof"] for port in ports.ports)


# --- cancelled, failing, repeated -----------------------------------------------------------------------


@pytest.mark.trio
async def test_cancelled_close_does_not_take_its_grace(autojump_clock: MockClock) -> None:
    """Once cancelled, closing kills instead of waiting for politeness. [property 81]"""
    ports = MockPortFactory(stubborn)
    pool = WorkerPool(ports, pool_size=2, terminate_grace=20.0)
    with trio.move_on_after(3.0) as scope:
        async with pool:
            await pool.wait_ready(2)
    assert scope.cancelled_caught
    assert trio.current_time() == 3.0
    assert not ports.live


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


def fail() -> None:
    """Fail as a broken hook of the system's would."""
    raise OSError("no goodbye")


@pytest.mark.trio
async def test_end_that_fails_keeps_no_other_from_being_carried_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose goodbye raises is killed all the same; the others leave politely; one report. [property 84]"""
    ports = MockPortFactory()
    async with WorkerPool(ports, pool_size=3, max_starting=3) as pool:
        await pool.wait_ready(3)
        monkeypatch.setattr(ports.port("w-2"), "send_eof", fail)
    assert not ports.live
    assert [ports.port(f"w-{slot}").signals for slot in (1, 2, 3)] == [["eof"], ["kill"], ["eof"]]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "the task of worker w-2 failed; the worker is replaced"
    ]


@pytest.mark.trio
async def test_closing_twice_or_together_is_closing_once(autojump_clock: MockClock) -> None:
    """A second close, also beside the first, waits for the same end and does nothing more. [property 87]"""
    ports = MockPortFactory(stubborn)
    pool = WorkerPool(ports, pool_size=1, terminate_grace=4.0)
    closed: list[tuple[str, ...]] = []
    pool.telemetry.attach((), lambda event, *_: closed.append(event) if event[-1] == "closed" else None)
    async with pool:
        await pool.wait_ready()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(pool.aclose)
        assert trio.current_time() == 4.0
        await pool.aclose()
    assert trio.current_time() == 4.0
    assert len(closed) == 1
