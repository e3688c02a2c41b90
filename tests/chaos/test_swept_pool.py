"""Every operation of the pool, disturbed before each of its steps in several orders of tasks.

Each scenario tells who does what; the sweep cancels its target, or kills its worker, at every step, and checks that
the pool's books agree, that nobody is forgotten and that nothing is left. Block A of the pool's rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.plan import Plan
from dspex_testkit.sweep import Stage, cancel, echo, kill_worker, sweep_scenario
from tests.search_profiles import depth

if TYPE_CHECKING:
    from dspex_pool.lease import Lease
    from dspex_pool.worker import PoolWorker
    from dspex_testkit.mock_port import MockPort
    from dspex_testkit.sweep import Act, Scenario

pytestmark = pytest.mark.chaos

both_acts = pytest.mark.parametrize("act", [cancel, kill_worker])


def sweep(scenario: Scenario, act: Act = cancel) -> int:
    """Sweep in four orders of tasks; at night in twenty."""
    return sweep_scenario(scenario, act=act, seeds=range(depth(4, 20))).points


async def borrow(pool: WorkerPool, **asked: Any) -> None:
    """Be a caller: one checkout, one request, one more step with the lease in hand."""
    async with pool.checkout(**asked) as lease:
        assert await lease.request("slow", {"mine": 1}) == {"mine": 1}
        await trio.lowlevel.checkpoint()


async def at_once(stage: Stage) -> None:
    """A checkout that finds an idle worker."""
    async with stage.pool(pool_size=2) as pool:
        stage.start(borrow, pool)


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


async def in_line(stage: Stage) -> None:
    """Two callers wait for a lent worker; the first is disturbed while it comes back."""
    async with stage.pool() as pool:
        async with pool.checkout():
            stage.start(borrow, pool)
            await wait_all_tasks_blocked()
            stage.start_witness(borrow, pool)
            await wait_all_tasks_blocked()


@both_acts
def test_waiter_gets_its_worker_or_never_had_it_and_the_next_is_served(act: Act) -> None:
    """However its cancellation and the check-in meet, it enters the block or is out of the line; nobody is forgotten.

    [property 1, 2, 7]
    """
    assert sweep(in_line, act) > 5


async def start_on_demand(stage: Stage) -> None:
    """A checkout from a pool that has no worker yet."""
    stage.ports.start_delay = 1.0
    async with stage.pool(is_ready=False, lazy=True, min_idle=0) as pool:
        stage.start(borrow, pool)


@both_acts
def test_start_outlives_the_caller_who_asked_for_it(act: Act) -> None:
    """Cancelled anywhere while its worker starts, the caller leaves a usable worker behind. [property 44, 7]"""
    sweep(start_on_demand, act)


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
def test_disturbed_set_up_costs_its_worker_and_not_the_slot(act: Act) -> None:
    """Cancelled or bereft anywhere in its set-up, a checkout leaves a whole pool, and the next is served.

    [property 6]
    """
    sweep(with_set_up, act)


async def reset(worker: PoolWorker) -> None:
    """Clean a worker up, in two steps."""
    await worker.request("reset", {})
    await trio.sleep(0.5)


async def with_check_in(stage: Stage) -> None:
    """A check-in that leaves an answer due and a reset to do; the worker answers late."""
    stage.ports.behaviour = late_to_answer
    async with stage.pool(reset=reset, cancel_grace=5.0) as pool:
        stage.start(time_out_then_check_in, pool)


@both_acts
def test_check_in_decides_the_workers_fate_whatever_happens(act: Act) -> None:
    """Cancelled during check-in, the caller leaves and the worker is clean or replaced in time. [property 8]"""
    sweep(with_check_in, act)


async def with_silent_worker(stage: Stage) -> None:
    """A request to a worker that never speaks again."""
    stage.ports.behaviour = lambda port: echo(port.answer("late", lambda _: Plan().stall(deaf=True)))
    async with stage.pool() as pool:
        stage.start(time_out_then_check_in, pool)


def test_caller_does_not_wait_for_a_silent_worker() -> None:
    """Cancelled at any step of a request to a stopped worker, the caller is released. [property 9]"""
    sweep(with_silent_worker)


async def open_and_close(stage: Stage) -> None:
    """Open a pool and leave it; the target is the pool's own block."""
    stage.ports.start_delay = 1.0
    pool = WorkerPool(stage.ports, pool_size=2, max_starting=2)

    async def live() -> None:
        async with stage.watched(pool):
            await pool.wait_ready(2)

    await stage.perform(live)


def test_cancelled_opening_leaves_no_worker() -> None:
    """Cancelled at any step of starting its workers or of closing, a pool ends all of them. [property 10]"""
    assert sweep(open_and_close) > 20


def give_up_starts(stage: Stage) -> None:
    """End whatever is starting or started, as after ``spawn_timeout``."""
    for number in list(stage.open_pool._state.workers):
        stage.open_pool._state.worker_failed(number, trio.current_time(), "spawn_timeout")
    stage.open_pool._runner.carry_out()


def test_cancelled_start_leaves_no_worker_that_nobody_owns() -> None:
    """A start that is given up at any of its steps leaves no process, and a replacement comes. [property 10]"""
    sweep(start_on_demand, give_up_starts)


async def wait_for_readiness(stage: Stage) -> None:
    """Wait until all workers are in service."""
    stage.ports.start_delay = 1.0
    async with stage.pool(is_ready=False) as pool:
        stage.start(pool.wait_ready)


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


def test_cancelled_close_ends_every_worker_before_it_lets_go() -> None:
    """Cancelled at any step, closing still leaves no process when the cancellation leaves. [property 81, 10]"""
    sweep(close_slowly)


def stubborn(port: MockPort) -> None:
    """Have a worker end only when it is killed."""
    port.answer("echo", "hello").answer("hang", Plan().stall(deaf=True))
    port.reactions.eof = port.reactions.terminate = None


def test_close_at_any_step_of_a_start_leaves_nothing() -> None:
    """Wherever a start stands when the pool closes, its process ends and never serves. [property 78]"""
    pools: list[WorkerPool] = []

    async def start(stage: Stage) -> None:
        stage.ports.start_delay = 1.0
        stage.ports.behaviour = lambda port: port.answer_handshake(Plan().after(1.0).reply({"status": "ok"}))
        pools.append(WorkerPool(stage.ports, pool_size=1, terminate_grace=2.0))
        await stage.perform(open_until_ready, stage, pools[-1])
        stage.check_closed()
        counters = pools[-1].statistics().counters
        assert counters.starts == counters.reaped
        assert counters.granted == 0

    assert sweep(start, lambda _: pools[-1].refuse_all()) > 10


async def open_until_ready(stage: Stage, pool: WorkerPool) -> None:
    """Open a pool, wait until it is ready, and close it."""
    async with stage.watched(pool):
        await pool.wait_ready(pool.options.pool_size)


def test_close_that_is_cancelled_at_any_step_ends_every_process() -> None:
    """A cancellation leaves a closing pool only when all its processes are reaped. [property 81]"""

    async def close_slowly(stage: Stage) -> None:
        stage.ports.behaviour = stubborn
        pool = WorkerPool(stage.ports, pool_size=1, terminate_grace=4.0)
        await stage.perform(open_until_ready, stage, pool)
        stage.check_closed()

    assert sweep(close_slowly) > 10


async def idle_beside(stage: Stage) -> None:
    """A pool that is left alone until its workers have been pinged."""
    async with stage.pool(pool_size=2, health_check_interval=20.0):
        stage.start(trio.sleep, 20.5)


def test_worker_that_dies_at_any_step_of_its_idleness_is_replaced() -> None:
    """Killed between or during pings, a worker is noticed and replaced without any caller. [property 35]"""
    sweep(idle_beside, kill_worker)


async def borrow_a_slow_reader(pool: WorkerPool) -> None:
    """Send a request that the worker takes in pieces."""
    async with pool.checkout() as lease:
        port: Any = lease.worker.port
        port.accept_only(9)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_the_rest, port)
            await lease.request("echo", {"a": 1})
        await trio.lowlevel.checkpoint()


async def take_the_rest(port: MockPort) -> None:
    """Read on after a while."""
    await trio.sleep(1.0)
    port.go_on()


async def with_slow_reader(stage: Stage) -> None:
    """A request that is written in two pieces."""
    async with stage.pool() as pool:
        stage.start(borrow_a_slow_reader, pool)


def test_call_cancelled_at_any_step_of_writing_costs_no_one_else() -> None:
    """Wherever in its frame a call is cancelled, the next caller gets a worker that is clean. [property 49]"""
    sweep(with_slow_reader)
