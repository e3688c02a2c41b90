"""Granting against leaving: no worker is lost between the line and its caller. Block A of the pool's rules."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import dspex_pool
from dspex_pool.core.records import Outcome
from dspex_pool.errors import CheckoutTimeoutError, ProgramError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.invariants import check_books
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.pool_driver import PoolDriver
from dspex_testkit.sweep import Stage, cancel, echo, kill_worker
from dspex_testkit.sweep import sweep as sweep_orders
from tests.search_profiles import depth

if TYPE_CHECKING:
    from types import FrameType

    from dspex_pool.lease import Lease
    from dspex_pool.worker import PoolWorker
    from dspex_testkit.mock_port import MockPort
    from dspex_testkit.sweep import Act, Scenario

both_acts = pytest.mark.parametrize("act", [cancel, kill_worker])


def sweep(scenario: Scenario, act: Act = cancel, *, orders: int = 1) -> int:
    """Sweep in so many orders of tasks; at night in twenty."""
    return sweep_orders(scenario, act=act, seeds=range(depth(orders, 20)))


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
    assert sweep(at_once, act) > 3


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


async def in_line(stage: Stage) -> None:
    """Two callers wait for a lent worker; the first is disturbed while it comes back."""
    async with stage.pool() as pool:
        async with pool.checkout():
            stage.start(borrow, pool)
            await wait_all_tasks_blocked()
            stage.start_witness(borrow, pool)
            await wait_all_tasks_blocked()


@both_acts
@pytest.mark.budget(0.15)
def test_waiter_gets_its_worker_or_never_had_it_and_the_next_is_served(act: Act) -> None:
    """However its cancellation and the check-in meet, it enters the block or is out of the line; nobody is forgotten.

    [property 1, 2, 7]
    """
    assert sweep(in_line, act, orders=2 if act is cancel else 1) > 5


def test_waiter_cancelled_before_a_check_in_is_not_looked_at() -> None:
    """Cancelled in the step before the release, the head is gone and the next one gets the worker. [property 1]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    first, second = driver.wait(), driver.wait()
    driver.cancel(first)
    driver.checkin(lease)
    assert list(driver.granted) == [second]
    assert driver.state.counters.cancelled == 1


async def start_on_demand(stage: Stage) -> None:
    """A checkout from a pool that has no worker yet."""
    stage.ports.start_delay = 1.0
    async with stage.pool(is_ready=False, lazy=True, min_idle=0) as pool:
        stage.start(borrow, pool)


@both_acts
@pytest.mark.budget(0.1)
def test_start_outlives_the_caller_who_asked_for_it(act: Act) -> None:
    """Cancelled anywhere while its worker starts, the caller leaves a usable worker behind. [property 44, 7]"""
    sweep(start_on_demand, act)


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


async def set_up(lease: Lease) -> None:
    """Prepare a lease, at some length."""
    await lease.request("prepare")
    await trio.sleep(1.0)


async def with_set_up(stage: Stage) -> None:
    """A checkout with a set-up step, and somebody behind it in line."""
    async with stage.pool(setup=set_up) as pool:
        stage.start(borrow, pool)
        await wait_all_tasks_blocked()
        stage.start_witness(borrow, pool)


@both_acts
@pytest.mark.budget(0.2)
def test_disturbed_set_up_costs_its_worker_and_not_the_slot(act: Act) -> None:
    """Cancelled or bereft anywhere in its set-up, a checkout leaves a whole pool, and the next is served.

    [property 6]
    """
    sweep(with_set_up, act)


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


async def reset(worker: PoolWorker) -> None:
    """Clean a worker up, in two steps."""
    await worker.request("reset", {})
    await trio.sleep(0.5)


async def with_check_in(stage: Stage) -> None:
    """A check-in that leaves an answer due and a reset to do; the worker answers late."""
    stage.ports.behaviour = late_to_answer
    async with stage.pool(reset=reset, cancel_grace=5.0) as pool:
        stage.start(time_out_then_check_in, pool)


def late_to_answer(port: MockPort) -> None:
    """Have ``late`` answered in three seconds, whoever interrupts."""
    echo(port)
    port.answer("late", lambda _: Plan().late_reply("too late", after=3.0))


@both_acts
@pytest.mark.budget(0.15)
def test_check_in_decides_the_workers_fate_whatever_happens(act: Act) -> None:
    """Cancelled during check-in, the caller leaves and the worker is clean or replaced in time. [property 8]"""
    sweep(with_check_in, act)


async def with_silent_worker(stage: Stage) -> None:
    """A request to a worker that never speaks again."""
    stage.ports.behaviour = lambda port: echo(port.answer("late", lambda _: Plan().stall(deaf=True)))
    async with stage.pool() as pool:
        stage.start(time_out_then_check_in, pool)


@pytest.mark.budget(0.1)
def test_caller_does_not_wait_for_a_silent_worker() -> None:
    """Cancelled at any step of a request to a stopped worker, the caller is released. [property 9]"""
    sweep(with_silent_worker)


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


# --- starting ---------------------------------------------------------------------------------------------


async def open_and_close(stage: Stage) -> None:
    """Open a pool and leave it; the target is the pool's own block."""
    stage.ports.start_delay = 1.0
    pool = WorkerPool(stage.ports, pool_size=2, max_starting=2)

    async def live() -> None:
        async with stage.watched(pool):
            await pool.wait_ready(2)

    await stage.perform(live)


@pytest.mark.budget(0.1)
def test_cancelled_opening_leaves_no_worker() -> None:
    """Cancelled at any step of starting its workers or of closing, a pool ends all of them. [property 10]"""
    assert sweep(open_and_close) > 20


def give_up_starts(stage: Stage) -> None:
    """End whatever is starting or started, as after ``spawn_timeout``."""
    for number in list(stage.open_pool._state.workers):
        stage.open_pool._state.worker_failed(number, trio.current_time(), "spawn_timeout")
    stage.open_pool._runner.carry_out()


@pytest.mark.budget(0.15)
def test_cancelled_start_leaves_no_worker_that_nobody_owns() -> None:
    """A start that is given up at any of its steps leaves no process, and a replacement comes. [property 10]"""
    sweep(start_on_demand, give_up_starts)


async def wait_for_readiness(stage: Stage) -> None:
    """Wait until all workers are in service."""
    stage.ports.start_delay = 1.0
    async with stage.pool(is_ready=False) as pool:
        stage.start(pool.wait_ready)


@pytest.mark.budget(0.1)
def test_who_waits_for_readiness_may_leave_at_any_step() -> None:
    """Waiting for the pool holds nothing of it, and leaving it starts and ends nothing. [property 10]"""
    sweep(wait_for_readiness)


async def close_slowly(stage: Stage) -> None:
    """Close a pool whose workers take their time to leave, one of them lent."""
    stage.ports.behaviour = lambda port: setattr(port.reactions, "eof", 1.0)
    async with stage.watched(WorkerPool(stage.ports, pool_size=2, terminate_grace=4.0)) as pool:
        await pool.wait_ready(2)
        async with pool.checkout():
            await stage.perform(pool.aclose)
            assert not stage.ports.live
            if stage.scope.cancelled_caught:
                assert trio.current_time() == stage.disturbed_at, "nothing needs patience any more"


@pytest.mark.budget(0.1)
def test_cancelled_close_ends_every_worker_before_it_lets_go() -> None:
    """Cancelled at any step, closing still leaves no process when the cancellation leaves. [property 81, 10]"""
    sweep(close_slowly)


# --- interrupts -------------------------------------------------------------------------------------------


PACKAGE = str(Path(dspex_pool.__file__).parent)


class Interrupt:
    """Sends this process SIGINT before one line of the pool's own code, as a user's Ctrl-C would.

    Args:
        at_line: Number of the line, counted from the beginning; or the name of a function, for the second line that
            is run in it, when its books are half written.
    """

    def __init__(self, at_line: int | str | None) -> None:
        self.lines = 0
        self.is_done = False
        self._at_line = at_line
        self._lines_within = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.lines += 1
            self._lines_within += frame.f_code.co_name == self._at_line
            if not self.is_done and (self.lines == self._at_line or self._lines_within == 2):
                self.is_done = True
                signal.raise_signal(signal.SIGINT)
        return self


async def work_through_an_interrupt(ports: MockPortFactory) -> None:
    """Use a pool in all ordinary ways; if the interrupt meets the caller's own code, go on with the pool."""
    async with WorkerPool(ports, pool_size=1, health_check_interval=5.0) as pool:
        try:
            await borrow(pool)
            pool.resize(2)
            await pool.wait_ready(2)
            pool.drain()
            with trio.move_on_after(0.5):
                async with pool.checkout() as lease:
                    await lease.request("late")
            await trio.sleep(6.0)
        except KeyboardInterrupt:
            check_books(pool._state)
            await borrow(pool)
            raise


@pytest.mark.budget(0.1)
def test_keyboard_interrupt_leaves_books_that_agree() -> None:
    """Ctrl-C amid moves of the books, at night before any line: the pool serves on, or closes. [property 11]"""
    places: list[int | str] = ["_lend", "checkin", "_retire", "close", "abandon"]
    if many := depth(0, 800):
        lines = run_interrupted(None).lines
        places += range(1, lines, lines // many)
    for place in places:
        # How many lines are run may differ a little from run to run, so the last one may not come.
        assert run_interrupted(place).is_done or isinstance(place, int)


def run_interrupted(at_line: int | str | None) -> Interrupt:
    """Run the scenario with an interrupt before that line, and check that nothing is left."""
    ports = MockPortFactory(late_to_answer)
    interrupt = Interrupt(at_line)
    tracer = sys.gettrace()  # of whoever measures coverage
    sys.settrace(interrupt)
    try:
        trio.run(work_through_an_interrupt, ports, clock=MockClock(autojump_threshold=0))
    except* KeyboardInterrupt:
        assert at_line is not None
    finally:
        sys.settrace(tracer)
    assert not ports.live, f"line {at_line}"
    return interrupt
