"""Disturb an operation at every step of trio's scheduler, in several orders of tasks, and look at the pool each time.

A fault between two awaits shows only if the disturbance hits that very step, and often only if tasks that are ready
together run in a certain order. So a sweep runs an operation once undisturbed and counts its steps, then once for
each step with the disturbance there, and all that for several seeds of trio's order.

    async def ask(pool: WorkerPool) -> None:
        async with pool.checkout() as lease:
            await lease.request("slow")

    sweep(ask, pool_size=2)

An operation that needs more of the world than a pool, a pool in a certain state or somebody beside it, is written as
a scenario: a function of a ``Stage``, which ``sweep_scenario`` plays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import trio

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.session_store import MemorySessionStore
from dspex_testkit.stage import Act, Scenario, Stage, cancel, canned, echo, kill_worker, prove_alive
from dspex_testkit.trio_seam import FairOrder, require_seam, tasks_ordered_by, virtual_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

    from dspex_pool.lease import Lease
    from dspex_testkit.mock_port import MockPortFactory
    from dspex_testkit.trio_seam import Order

__all__ = [
    "Act",
    "Opening",
    "Operation",
    "Scenario",
    "Stage",
    "Swept",
    "cancel",
    "canned",
    "echo",
    "kill_worker",
    "python_pool",
    "sweep",
    "sweep_scenario",
    "worker_pool",
]

SubjectT = TypeVar("SubjectT")

#: What is swept: a coroutine function of what an ``Opening`` gives.
Operation: TypeAlias = Callable[[SubjectT], Awaitable[object]]
#: Opens on a stage what the operation is a function of, and closes it, with ``Stage.guarded`` around its pool.
Opening: TypeAlias = "Callable[[Stage], AbstractAsyncContextManager[Any]]"

#: Virtual seconds after which a run counts as hung.
PATIENCE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep has done."""

    #: Runs with a disturbance: one for each step of each order, for each act.
    points: int
    #: All runs, the undisturbed included.
    runs: int


def worker_pool(**settings: Any) -> Opening:
    """Return what opens a ``WorkerPool`` whose workers are in service; ``settings`` are those of the pool."""
    return lambda stage: stage.pool(**settings)


def python_pool(**settings: Any) -> Opening:
    """Return what opens a ``PythonPool`` on workers with canned programs; ``settings`` are those of the pool."""
    settings = {"pool_size": 1, "health_check_interval": None, "session_ttl": None} | settings

    @contextlib.asynccontextmanager
    async def opened(stage: Stage) -> AsyncIterator[PythonPool]:
        stage.ports.behaviour, stage.proof = canned, prove_alive
        async with PythonPool.open(ports=stage.ports, store=MemorySessionStore(), **settings) as adapter:
            await adapter.wait_ready(settings["pool_size"])
            async with stage.guarded(adapter.sessions.workers):
                yield adapter
        stage.check_closed()

    return opened


def sweep(
    operation: Operation[Any],
    *,
    on: Opening | None = None,
    act: Act | None = None,
    seeds: Iterable[int] = range(4),
    only: tuple[int, int | None] | None = None,
    beside: Operation[Any] | None = None,
    may_complete: bool = False,
    ports: Callable[[], MockPortFactory] | None = None,
    order: Callable[[int], Order] = FairOrder,
    proof: Callable[[Lease, int], Awaitable[object]] | None = None,
    **settings: Any,
) -> Swept:
    """Run ``operation`` undisturbed, then disturbed before each of its steps, for each order of tasks.

    Checked are what the operation checks itself, and: the books agree at each step; a cancellation is not swallowed;
    an operation that is cut short is cut short by an error of the pool; afterwards the pool is back at full strength,
    lends every worker and not one more; a closed pool leaves nothing.

    Args:
        operation: A coroutine function of the pool, called in a task of its own.
        on: Opens something else than a ``WorkerPool``, such as ``python_pool()``.
        act: ``cancel``, ``kill_worker``, or another function of the stage; by default these two, one after the other.
        seeds: Seeds of the order in which trio runs tasks that are ready together.
        only: Seed and step of one run that is to be repeated, as a failure names it; step ``None`` is undisturbed.
        beside: A second operation that runs at the same time and must succeed unless its worker is killed.
        may_complete: Whether the operation may come to its end although it is cancelled, as what cannot be undone.
        ports: Gives the workers for each run; by default such as answer by ``echo``.
        order: Makes of a seed what decides who runs next; see ``trio_seam.Order``.
        proof: Checks with a lease and a number that a worker is still well, in the end; by default with ``echo``,
            or with a ping where a worker has no such command.
        settings: As for ``WorkerPool``; only without ``on``.

    Raises:
        AssertionError: Something does not hold; a note says how the run is repeated.
        SeamBrokenError: This version of trio does not let its order of tasks be decided.
        TypeError: Both ``on`` and settings are given.
        ValueError: There are no seeds, or no step such as ``only`` says.
    """
    if on is not None and settings:
        raise TypeError(f"give settings to what opens the pool: {on!r} takes no {', '.join(settings)} here")
    opening = on if on is not None else worker_pool(**settings)

    async def scenario(stage: Stage) -> None:
        async with opening(stage) as subject:
            stage.proof = proof if proof is not None else stage.proof
            if beside is not None:
                stage.start_witness(beside, subject)
            stage.start(operation, subject)

    scenario.__name__ = getattr(operation, "__name__", repr(operation))
    acts, seeds = [act] if act is not None else [cancel, kill_worker], tuple(seeds)
    swept = [
        sweep_scenario(
            scenario, act=each, seeds=seeds, only=only, may_complete=may_complete, ports=ports, order=order
        )
        for each in acts
    ]
    return Swept(sum(one.points for one in swept), sum(one.runs for one in swept))


def sweep_scenario(
    scenario: Scenario,
    *,
    act: Act = cancel,
    seeds: Iterable[int] = range(4),
    only: tuple[int, int | None] | None = None,
    may_complete: bool = False,
    ports: Callable[[], MockPortFactory] | None = None,
    order: Callable[[int], Order] = FairOrder,
) -> Swept:
    """Play ``scenario`` undisturbed, then with ``act`` before each step of its target, for each order of tasks.

    Args:
        scenario: Called with a fresh ``Stage`` each time, under a fresh clock.
        act: ``cancel``, ``kill_worker``, or another function of the stage.
        seeds: As for ``sweep``.
        only: As for ``sweep``.
        may_complete: As for ``sweep``.
        ports: As for ``sweep``.
        order: As for ``sweep``.

    Raises:
        AssertionError: Something does not hold; a note says how the run is repeated.
        SeamBrokenError: This version of trio does not let its order of tasks be decided.
        ValueError: There are no seeds, or no step such as ``only`` says.
    """
    require_seam()
    player = _Player(scenario, act, may_complete=may_complete, ports=ports, order=order)
    if only is None:
        for seed in seeds:
            player.sweep(seed)
    else:
        player.repeat(*only)
    if not player.runs:
        raise ValueError("a sweep without seeds shows nothing")
    return Swept(player.points, player.runs)


class _Player:
    """Plays one scenario again and again."""

    def __init__(
        self,
        scenario: Scenario,
        act: Act,
        *,
        may_complete: bool,
        ports: Callable[[], MockPortFactory] | None,
        order: Callable[[int], Order],
    ) -> None:
        self.points = self.runs = 0
        self._scenario = scenario
        self._act = act
        self._may_complete = may_complete
        self._ports = ports
        self._order = order

    def sweep(self, seed: int) -> None:
        """Play it with one order of tasks, undisturbed and at each step."""
        calm = self.play(seed, None)
        for step in range(calm.meter.steps + 1):
            self.play(seed, step, must_be_cut_short=self._act is cancel and step < _last_step(calm))

    def repeat(self, seed: int, step: int | None) -> None:
        """Play it as a failure names it.

        Raises:
            ValueError: It does not come to that step.
        """
        stage = self.play(seed, step)
        if step is None:
            return
        if stage.disturbed_at is None:
            raise ValueError(
                f"with seed {seed} the run has {stage.meter.steps} steps and no step {step}, so nothing was disturbed"
            )
        if self._act is cancel and not stage.scope.cancelled_caught:
            # Whether there was anything left to be cancelled at, only the undisturbed run tells.
            self.play(seed, step, must_be_cut_short=step < _last_step(self.play(seed, None)))

    def play(self, seed: int, step: int | None, *, must_be_cut_short: bool = False) -> Stage:
        """Play it once."""
        self.runs += 1
        self.points += step is not None
        try:
            return trio.run(self._play, seed, step, must_be_cut_short, clock=virtual_clock())
        except BaseException as error:
            error.add_note(self._how_to_replay(seed, step))
            raise

    async def _play(self, seed: int, step: int | None, must_be_cut_short: bool) -> Stage:
        stage = Stage(self._act, step, self._ports() if self._ports is not None else None)
        trio.lowlevel.add_instrument(stage.meter)
        try:
            with tasks_ordered_by(self._order(seed)), trio.fail_after(PATIENCE):
                await self._scenario(stage)
        except trio.TooSlowError:
            stage.check_starts()
            raise
        if stage.meter.fault is not None:
            raise stage.meter.fault
        if step is None:
            assert stage.is_complete, f"undisturbed, the target ends with {stage.error!r}"
        if must_be_cut_short and not self._may_complete:
            assert stage.scope.cancelled_caught, "the cancellation is swallowed"
        return stage

    def _how_to_replay(self, seed: int, step: int | None) -> str:
        name, act = (getattr(each, "__name__", repr(each)) for each in (self._scenario, self._act))
        where = "undisturbed" if step is None else f"{act} before step {step} of the target's run"
        return f"sweep: {name}, seed {seed}, {where}; replay with only=({seed}, {step}), act={act}"


def _last_step(calm: Stage) -> int:
    """Return the step of an undisturbed run before which a cancellation must end the target.

    In its last step a target may have nothing left at which it could meet a cancellation. One with a single step must
    meet that of its begin, and one with none cannot.
    """
    own = calm.meter.target_steps
    return own[-2] if len(own) > 1 else len(own)
