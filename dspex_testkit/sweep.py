"""Disturb a scenario at every step of trio's scheduler, in several orders, and look at the pool after each run.

A fault between two awaits shows only if the disturbance hits that very step, and often only if tasks that are ready
together run in a certain order. So a sweep runs a scenario once undisturbed and counts its steps, then once for each
step with the disturbance there, and all that for several seeds of trio's order.

    async def two_callers(stage: Stage) -> None:
        async with stage.pool(pool_size=1) as pool:
            async with pool.checkout():
                stage.start(borrow, pool)
                await trio.testing.wait_all_tasks_blocked()

    sweep(two_callers)
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

from dspex_pool.errors import DspexPoolError, WorkerDiedError
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.invariants import check_books, check_steady
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

__all__ = ["Act", "Scenario", "Stage", "cancel", "echo", "kill_worker", "order_of_tasks", "sweep"]

#: Virtual seconds within which a pool must be back at full strength, whatever happened to it.
RECOVERY: Final = 30.0
#: Virtual seconds after which a run counts as hung.
PATIENCE: Final = 600.0


def echo(port: MockPort) -> None:
    """Have a worker answer every command with its arguments, and ``slow`` after a second."""
    port.answer("*", lambda args: args)
    port.answer("slow", lambda args: Plan().after(1.0).reply(args))


class Stage:
    """One run of a scenario.

    Args:
        act: What happens to the target.
        at_step: The step before which it happens, counted from the target's begin; ``None`` for never.
    """

    def __init__(self, act: Act, at_step: int | None) -> None:
        #: Starts the workers.
        self.ports = MockPortFactory(echo)
        #: What the target runs in.
        self.scope = trio.CancelScope()
        #: The error of the pool that the target ended with, if any.
        self.error: DspexPoolError | None = None
        #: When the act was done, in virtual seconds; ``None`` before.
        self.disturbed_at: float | None = None
        #: Whether a worker may die in somebody's hands.
        self.may_kill = act is not cancel
        #: Whether the target has come to its end undisturbed.
        self.is_complete = False
        self.meter = _Meter(self, act, at_step)
        self._pool: WorkerPool | None = None
        self._nursery: trio.Nursery | None = None

    @contextlib.asynccontextmanager
    async def pool(self, *, is_ready: bool = True, **settings: Any) -> AsyncIterator[WorkerPool]:
        """Open the pool; when the block ends, wait for the target, check that the pool is whole, and close it.

        Args:
            is_ready: Whether to wait until all workers are in service.
            settings: As for ``WorkerPool``.

        Cancellation: Closes the pool.
        """
        settings = {"pool_size": 1, "health_check_interval": None} | settings
        async with self.watched(WorkerPool(self.ports, **settings)) as pool:
            if is_ready:
                await pool.wait_ready(pool.options.pool_size)
            async with trio.open_nursery() as self._nursery:
                yield pool
            await self._check_strength(pool)

    @contextlib.asynccontextmanager
    async def watched(self, pool: WorkerPool) -> AsyncIterator[WorkerPool]:
        """Open ``pool`` and have its books checked at every step; close it with the block, and see that all is gone.

        Cancellation: Closes the pool.
        """
        self._pool = pool
        async with pool:
            yield pool
        self.check_closed()

    @property
    def open_pool(self) -> WorkerPool:
        """The pool of this run."""
        assert self._pool is not None, "no pool is open"
        return self._pool

    def start(self, target: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run the target in a task of its own, within the block of ``pool``."""
        assert self._nursery is not None
        self._nursery.start_soon(self.perform, target, *args)

    def start_witness(self, task: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task beside the target. It must succeed, unless the worker dies in its hands."""
        assert self._nursery is not None
        self._nursery.start_soon(self._witness, task, *args)

    async def _witness(self, task: Callable[..., Awaitable[object]], *args: Any) -> None:
        try:
            await task(*args)
        except WorkerDiedError:
            if not self.may_kill:
                raise

    async def perform(self, target: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run the target in this task. An error of the pool ends it, and is kept.

        Cancellation: Reaches the target.
        """
        with self.scope:
            self.meter.begin()
            try:
                await target(*args)
                self.is_complete = True
            except DspexPoolError as error:
                self.error = error
            finally:
                self.meter.end()

    def check_step(self) -> None:
        """Check the books, at any moment."""
        if self._pool is not None:
            check_books(self._pool._state)

    async def _check_strength(self, pool: WorkerPool) -> None:
        """Check that no worker is lost: all come back in time, and all can be borrowed at once, but no more."""
        await trio.sleep(RECOVERY)
        check_books(pool._state)
        check_steady(pool._state)
        size = pool.options.pool_size
        together = _Together(size)
        async with trio.open_nursery() as nursery:
            for number in range(size):
                nursery.start_soon(together.borrow, pool, number)
            await together.complete.wait()
            with contextlib.suppress(trio.WouldBlock):
                async with pool.checkout_nowait():
                    raise AssertionError(f"{size + 1} workers are lent by a pool of {size}")
            together.enough.set()

    def check_closed(self) -> None:
        """Check that nothing is left of a closed pool."""
        assert self._pool is not None
        assert not self.ports.live, f"left alive: {self.ports.live}"
        assert self.ports.starting == 0, "a start is still under way"
        assert not self._pool.statistics().processes, "the books of a closed pool hold workers"
        assert not self._pool._runner.lives, "a worker's task is left"
        assert not self._pool._runner._parked, "somebody waits for a closed pool"


class _Together:
    """Callers who hold a worker each until all have one."""

    def __init__(self, size: int) -> None:
        self.complete, self.enough = trio.Event(), trio.Event()
        self._missing = size

    async def borrow(self, pool: WorkerPool, number: int) -> None:
        async with pool.checkout(timeout=RECOVERY) as lease:
            assert await lease.request("echo", {"n": number}) == {"n": number}
            self._missing -= 1
            if not self._missing:
                self.complete.set()
            await self.enough.wait()


class _Meter(trio.abc.Instrument):
    """Counts the steps of all tasks while the target runs, checks the books at each, and acts at one."""

    def __init__(self, stage: Stage, act: Act, at_step: int | None) -> None:
        self.steps = 0
        #: The steps of the target's own task.
        self.target_steps: list[int] = []
        #: What was found wrong; trio would only log what an instrument raises.
        self.fault: BaseException | None = None
        self._stage = stage
        self._act = act
        self._at_step = at_step
        self._target: trio.lowlevel.Task | None = None

    def begin(self) -> None:
        self._target = trio.lowlevel.current_task()
        self._act_if_due()

    def end(self) -> None:
        self._target = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._target is None or self.fault is not None:
            return
        self.steps += 1
        if task is self._target:
            self.target_steps.append(self.steps)
        try:
            self._stage.check_step()
            self._act_if_due()
        except Exception as error:
            self.fault = error

    def _act_if_due(self) -> None:
        if self.steps == self._at_step:
            self._stage.disturbed_at = trio.current_time()
            self._act(self._stage)


#: What a scenario does with its stage.
Scenario: TypeAlias = Callable[[Stage], Awaitable[object]]
#: What happens to the target of a scenario.
Act: TypeAlias = Callable[[Stage], object]


def cancel(stage: Stage) -> None:
    """Cancel the target."""
    stage.scope.cancel()


def kill_worker(stage: Stage) -> None:
    """Let the oldest living worker die, as by SIGKILL from outside."""
    if stage.ports.live:
        stage.ports.live[0].die(signal=9)


def sweep(scenario: Scenario, *, act: Act = cancel, seeds: Iterable[int] = range(2)) -> int:
    """Run ``scenario`` undisturbed, then with ``act`` before each step of its target, for each order of tasks.

    Besides what the scenario checks itself: the books agree at each step; a cancellation is not swallowed; afterwards
    the pool is back at full strength, lends every worker and not one more; a closed pool leaves nothing.

    Args:
        scenario: Called with a fresh ``Stage`` each time.
        act: ``cancel``, ``kill_worker``, or another function of the stage.
        seeds: Seeds of the order in which trio runs tasks that are ready together.

    Returns:
        The number of runs.

    Raises:
        AssertionError: Something does not hold; a note names the seed and the step.
        RuntimeError: This version of trio does not let its order of tasks be decided.
    """
    if not hasattr(scheduler, "_r") or not hasattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING"):
        raise RuntimeError(
            f"trio {trio.__version__} does not let its order of tasks be seeded as the sweep knows it. "
            "Look in trio._core._run for what replaced _r and _ALLOW_DETERMINISTIC_SCHEDULING."
        )
    return trio.run(_sweep, scenario, act, list(seeds), clock=MockClock(autojump_threshold=0))


async def _sweep(scenario: Scenario, act: Act, seeds: list[int]) -> int:
    runs = 0
    for seed in seeds:
        calm = await _play(scenario, act, seed, None)
        assert calm.is_complete, f"undisturbed, the target ends with {calm.error!r}"
        for step in range(calm.meter.steps + 1):
            stage = await _play(scenario, act, seed, step)
            if act is cancel and step < calm.meter.target_steps[-2:][0]:
                assert stage.scope.cancelled_caught, (
                    f"seed {seed}, step {step}: the cancellation is swallowed"
                )
        runs += calm.meter.steps + 2
    return runs


async def _play(scenario: Scenario, act: Act, seed: int, step: int | None) -> Stage:
    stage = Stage(act, step)
    trio.lowlevel.add_instrument(stage.meter)
    try:
        with order_of_tasks(seed), trio.fail_after(PATIENCE):
            await scenario(stage)
        if stage.meter.fault is not None:
            raise stage.meter.fault
    except BaseException as error:
        error.add_note(f"sweep: seed {seed}, disturbed before step {step} of the target's run")
        raise
    finally:
        trio.lowlevel.remove_instrument(stage.meter)
    return stage


@contextlib.contextmanager
def order_of_tasks(seed: int) -> Iterator[None]:
    """Have trio run tasks that are ready together in an order that ``seed`` decides."""
    seam: Any = scheduler
    was_allowed, state = seam._ALLOW_DETERMINISTIC_SCHEDULING, seam._r.getstate()
    seam._ALLOW_DETERMINISTIC_SCHEDULING = True
    seam._r.seed(seed)
    try:
        yield
    finally:
        seam._ALLOW_DETERMINISTIC_SCHEDULING = was_allowed
        seam._r.setstate(state)
