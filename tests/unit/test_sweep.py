"""The sweep finds what it is for, says where, and leaves trio as it was."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio._core import _run as scheduler

from dspex_pool.errors import WorkerDiedError
from dspex_testkit.sweep import Stage, kill_worker, order_of_tasks, sweep

if TYPE_CHECKING:
    from dspex_pool.worker_pool import WorkerPool


def scenario_of(target: Any, **settings: Any) -> Any:
    """Return the scenario in which one task does ``target`` with a pool."""

    async def scenario(stage: Stage) -> None:
        async with stage.pool(**settings) as pool:
            stage.start(target, pool)

    return scenario


def complaint_about(target: Any, **options: Any) -> str:
    """Sweep a faulty target and return everything that is said of it."""
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        sweep(scenario_of(target), seeds=[0], **options)
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
        (forget_to_return, "seed 0, disturbed before step"),
        (swallow, "the cancellation is swallowed"),
        (spoil_the_books, "I8"),
        (fail, "undisturbed, the target ends with WorkerDiedError"),
    ],
)
def test_sweep_finds_what_is_wrong_and_says_where(target: Any, says: str) -> None:
    """A lost worker, a swallowed cancellation, books that disagree for one step, a scenario that fails by itself."""
    assert says in complaint_about(target)


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

    assert sweep(scenario, act=kill_worker, seeds=[0]) > 3
    assert kinds == {type(None), WorkerDiedError}


@pytest.mark.parametrize("is_allowed", [False, True])
def test_sweep_tolerates_the_death_of_a_witness_only_where_workers_are_killed(is_allowed: bool) -> None:
    """Somebody beside the target may lose a worker that the act kills, but none otherwise."""

    async def die(_: WorkerPool) -> None:
        raise WorkerDiedError("in a bystander's hands")

    async def scenario(stage: Stage) -> None:
        async with stage.pool() as pool:
            stage.start_witness(die, pool)
            stage.start(trio.sleep, 1.0)

    if is_allowed:
        assert sweep(scenario, act=kill_worker, seeds=[0]) > 1
    else:
        with pytest.raises(ExceptionGroup):
            sweep(scenario, seeds=[0])


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

    sweep(scenario, seeds=[seed])
    return tuple(order)


def test_order_of_tasks_is_decided_by_the_seed() -> None:
    """The same seed gives the same order, others give others."""
    assert order_of_ten(1) == order_of_ten(1)
    assert len({order_of_ten(seed) for seed in range(4)}) == 4


def test_order_is_trios_own_again_afterwards() -> None:
    """Neither the switch nor the state of the random numbers is changed afterwards, also when a run fails."""
    seam: Any = scheduler
    before = (seam._ALLOW_DETERMINISTIC_SCHEDULING, seam._r.getstate())
    with contextlib.suppress(KeyError), order_of_tasks(7):
        assert seam._ALLOW_DETERMINISTIC_SCHEDULING is True
        raise KeyError("a run that fails")
    assert (seam._ALLOW_DETERMINISTIC_SCHEDULING, seam._r.getstate()) == before


def test_sweep_says_so_when_trio_has_no_such_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of trio that keeps its order elsewhere gives a clear error, not a sweep of one order."""
    monkeypatch.delattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING")
    with pytest.raises(RuntimeError, match="does not let its order of tasks be seeded"):
        order_of_ten(0)
