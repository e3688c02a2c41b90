"""The sweep finds what it is for, says where, and leaves trio as it was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import WorkerDiedError
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.ports.kinds import SimulatedKind
from dspex_testkit.sweep import (
    Stage,
    Swept,
    cancel,
    canned,
    kill_worker,
    sweep,
    sweep_scenario,
    worker_pool,
)

if TYPE_CHECKING:
    from dspex_pool.lease import Lease
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.trio_seam import Order


def complaint_about(target: Any, **options: Any) -> str:
    """Sweep a faulty target and return everything that is said of it."""
    how: dict[str, Any] = {"act": cancel, "seeds": [0]} | options
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        sweep(target, **how)
    error: BaseException = caught.value
    said = [str(error), *getattr(error, "__notes__", [])]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        said += [str(error), *getattr(error, "__notes__", [])]
    return " ".join(said)


async def forget_to_return(pool: WorkerPool) -> None:
    """Borrow without a block; a cancellation before the end loses the worker."""
    checkout = pool.checkout()
    await checkout.__aenter__()
    await trio.lowlevel.checkpoint()
    await checkout.__aexit__()


async def ask_at_once(pool: WorkerPool) -> None:
    """Ask what is answered without a wait: the task lets others run once, and then is done."""
    async with pool.checkout() as lease:
        await lease.request("echo")


async def do_nothing(pool: WorkerPool) -> None:
    """Let nobody else run."""


async def swallow(pool: WorkerPool) -> None:
    """Take a cancellation for an answer."""
    async with pool.checkout() as lease:
        try:
            await lease.request("slow")
        except trio.Cancelled:
            return
        await trio.lowlevel.checkpoint()


async def spoil_the_books(pool: WorkerPool) -> None:
    """Count somebody who is not there, for one step."""
    pool._state.counters.attempts += 1
    await trio.lowlevel.checkpoint()
    pool._state.counters.attempts -= 1


async def fail(_: WorkerPool) -> None:
    """Fail for a reason of the pool's, with nothing done to it."""
    raise WorkerDiedError("by itself")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (forget_to_return, "forget_to_return, seed 0, cancel before step"),
        (swallow, "the cancellation is swallowed"),
        (spoil_the_books, "I8"),
        (fail, "undisturbed, the target ends with WorkerDiedError"),
    ],
)
def test_sweep_finds_what_is_wrong_and_says_where(target: Any, says: str) -> None:
    """A lost worker, a swallowed cancellation, books that disagree for one step, a scenario that fails by itself."""
    assert says in complaint_about(target)


def test_failure_says_how_its_run_is_repeated() -> None:
    """The seed and the step that a failure names, given as ``only``, repeat that run and no other."""
    said = re.search(r"only=\((\d), (\d+)\)", complaint_about(forget_to_return, seeds=[3]))
    assert said is not None
    seed, step = int(said[1]), int(said[2])
    again = complaint_about(forget_to_return, only=(seed, step))
    assert f"only=(3, {step})" in again
    assert sweep(forget_to_return, act=cancel, only=(seed, step - 1)) == Swept(points=1, runs=1)
    assert sweep(forget_to_return, act=cancel, only=(seed, None)) == Swept(points=0, runs=1)


def test_swallowed_cancellation_is_found_again_at_its_step() -> None:
    """What a failure gave as ``only`` passed: that a cancellation must end the operation was not asked there."""
    said = re.search(r"only=\((\d), (\d+)\)", complaint_about(swallow, seeds=[3]))
    assert said is not None
    again = complaint_about(swallow, only=(int(said[1]), int(said[2])))
    assert "the cancellation is swallowed" in again
    assert said[0] in again


def test_last_step_may_be_repeated_too() -> None:
    """There nothing is left to be cancelled at, which is no swallowed cancellation."""
    last = sweep(ask_at_once, seeds=[0], act=cancel).points - 1
    assert sweep(ask_at_once, act=cancel, only=(0, last)).points


def test_step_that_is_not_there_is_no_pass() -> None:
    """A run that was to be repeated at a step that it no longer has was disturbed nowhere, and passed."""
    with pytest.raises(ValueError, match=r"the run has \d+ steps and no step 1000, so nothing was disturbed"):
        sweep(ask_at_once, only=(0, 1000))


def test_sweep_cancels_and_kills_unless_told_otherwise() -> None:
    """Without an act, every step is met by both."""

    async def borrow(pool: WorkerPool) -> None:
        async with pool.checkout():
            await trio.lowlevel.checkpoint()

    both, one = sweep(borrow, seeds=[0]), sweep(borrow, seeds=[0], act=kill_worker)
    assert both.points == 2 * one.points > 2
    assert both.runs == both.points + 2


def test_sweep_takes_settings_once() -> None:
    """Settings that what opens the pool would not hear of are refused."""
    with pytest.raises(TypeError, match="takes no pool_size here"):
        sweep(swallow, on=worker_pool(), pool_size=2)


async def nap(_: WorkerPool) -> None:
    """Do nothing for a while."""
    await trio.sleep(1.0)


def test_sweep_proves_workers_by_a_ping_where_they_do_not_echo() -> None:
    """Workers with commands of their own are well if they answer a ping, or as the sweep is told."""
    proved: list[int] = []

    async def prove(lease: Lease, number: int) -> None:
        proved.append(number)
        assert not lease.is_ended

    assert sweep(nap, act=cancel, seeds=[0], ports=lambda: MockPortFactory(canned)).points
    runs = sweep(nap, act=cancel, seeds=[0], pool_size=2, proof=prove).runs
    assert sorted(proved) == sorted([0, 1] * runs)


def test_sweep_runs_tasks_in_the_order_that_it_is_given() -> None:
    """What decides who runs next is made of each seed."""
    made: list[int] = []

    def order(seed: int) -> Order:
        made.append(seed)
        return lambda ready: ready

    runs = sweep(nap, act=cancel, seeds=[5, 6], order=order).runs
    assert len(made) == runs
    assert set(made) == {5, 6}


def test_sweep_keeps_the_error_of_a_disturbed_target() -> None:
    """A worker killed in the target's hands ends it with an error of the pool, which the scenario may look at."""
    kinds = set()

    async def ask(pool: WorkerPool) -> None:
        async with pool.checkout() as lease:
            await lease.request("slow")

    async def scenario(stage: Stage) -> None:
        async with stage.pool() as pool:
            stage.start(ask, pool)
        kinds.add(type(stage.error))

    assert sweep_scenario(scenario, act=kill_worker, seeds=[0]).points > 2
    assert kinds == {type(None), WorkerDiedError}


@pytest.mark.parametrize("is_allowed", [False, True])
def test_sweep_tolerates_the_death_of_a_witness_only_where_workers_are_killed(is_allowed: bool) -> None:
    """Somebody beside the target may lose a worker that the act kills, but none otherwise."""

    async def die(_: WorkerPool) -> None:
        raise WorkerDiedError("in a bystander's hands")

    if is_allowed:
        assert sweep(nap, beside=die, act=kill_worker, seeds=[0]).points > 1
    else:
        with pytest.raises(ExceptionGroup):
            sweep(nap, beside=die, act=cancel, seeds=[0])


def order_of_ten(seed: int) -> tuple[int, ...]:
    """Return the order in which ten tasks begin that are ready together."""
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    async def scenario(stage: Stage) -> None:
        order.clear()
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(note, number)
        await stage.perform(trio.lowlevel.checkpoint)

    sweep_scenario(scenario, seeds=[seed])
    return tuple(order)


def test_order_of_tasks_is_decided_by_the_seed() -> None:
    """The same seed gives the same order, others give others."""
    assert order_of_ten(1) == order_of_ten(1)
    assert len({order_of_ten(seed) for seed in range(4)}) == 4


def test_worker_that_cannot_start_is_no_mere_hang() -> None:
    """A misspelt handler was tried again and again until the patience ended, and only that was told."""
    ports = SimulatedKind(handler="dspex_testkit.children.echo:EcoHandler").factory
    said = complaint_about(ask_at_once, ports=ports)
    assert "no worker is in service, and the last start failed: " in said
    assert "EcoHandler" in said
    assert "seed 0, undisturbed" in said


def test_sweep_without_seeds_is_refused() -> None:
    """It played nothing, and passed."""
    for act in (None, cancel):
        with pytest.raises(ValueError, match="a sweep without seeds shows nothing"):
            sweep(ask_at_once, seeds=[], act=act)
    assert sweep(ask_at_once, seeds=iter([0])).runs > 2


@pytest.mark.parametrize("brief", [ask_at_once, do_nothing])
def test_operation_with_nothing_left_to_be_cancelled_at_swallows_nothing(brief: Any) -> None:
    """Of a target with one step the sweep said that it swallowed a cancellation; at one with none it broke down."""
    assert sweep(brief, pool_size=2).points >= 2 * 4
