"""One run of a scenario on a simulated pool, in which something happens to its target at one step.

A ``Stage`` holds what a run needs: the workers, the pool, the target and the moment. It checks the pool's books at
every step, and afterwards that the pool is whole. ``sweep.py`` plays a scenario on one stage after the
other, a step later each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from dspex_pool.errors import DspexPoolError, ProgramError, WorkerDiedError
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.invariants import check_books, check_gone, check_steady
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_pool.lease import Lease

__all__ = ["Act", "Scenario", "Stage", "cancel", "canned", "echo", "kill_worker"]

#: Virtual seconds within which a pool must be back at full strength, whatever happened to it.
RECOVERY: Final = 30.0


def echo(port: MockPort) -> None:
    """Have a worker answer every command with its arguments, and ``slow`` after a second."""
    port.answer("*", lambda args: args)
    port.answer("slow", lambda args: Plan().after(1.0).reply(args))


def canned(port: MockPort) -> None:
    """Have a worker answer as the DSPy bridge does, without DSPy; see ``CannedBridge``."""
    port.answer_rest(CannedBridge(worker_id=port.worker_id, clock=trio.current_time).plan)


async def prove_own_answer(lease: Lease, number: int) -> None:
    """Check that a worker gives ``number`` back for ``echo``; one that knows no such command must answer a ping.

    Cancellation: Reaches the request.
    """
    try:
        assert await lease.request("echo", {"n": number}) == {"n": number}
    except ProgramError as error:
        if error.type != "UnknownCommand":
            raise
        await prove_alive(lease, number)


async def prove_alive(lease: Lease, number: int) -> None:
    """Check that a worker answers a ping.

    Cancellation: Reaches the request.
    """
    assert await lease.request("ping") is not None, f"worker {number} answers nothing"


class Stage:
    """One run of a scenario.

    Args:
        act: What happens to the target.
        at_step: The step before which it happens, counted from the target's begin; ``None`` for never.
        ports: Starts the workers; by default such as answer by ``echo``.
    """

    def __init__(self, act: Act, at_step: int | None, ports: MockPortFactory | None = None) -> None:
        #: Starts the workers.
        self.ports = ports if ports is not None else MockPortFactory(echo)
        #: What every worker must still be able to do at the end; called with a lease and a number.
        self.proof: Callable[[Lease, int], Awaitable[object]] = prove_own_answer
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
        #: Set when the target has come to its end, in whatever way.
        self.ended = trio.Event()
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
            async with self.guarded(pool):
                yield pool

    @contextlib.asynccontextmanager
    async def guarded(self, pool: WorkerPool) -> AsyncIterator[WorkerPool]:
        """Have the books of an open pool checked at every step; when the block ends, wait for the target, and check
        that the pool is whole, unless the target has closed it.

        Who closes the pool then calls ``check_closed``.

        Cancellation: Reaches the target.
        """
        self._pool = pool
        async with trio.open_nursery() as self._nursery:
            yield pool
        if not pool.statistics().closed:
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
                self.ended.set()

    def check_step(self) -> None:
        """Check the books, at any moment."""
        if self._pool is not None:
            check_books(self._pool._state)

    def check_starts(self) -> None:
        """Check that a pool without any worker has not come to that because none can be started.

        Raises:
            AssertionError: With the error of the last start.
        """
        if self._pool is None or self._pool._state.ready_count:
            return
        if (error := self._pool._state.last_start_error) is not None:
            raise AssertionError(f"no worker is in service, and the last start failed: {error}") from error

    async def _check_strength(self, pool: WorkerPool) -> None:
        """Check that no worker is lost: all come back in time, and all can be borrowed at once, but no more."""
        await trio.sleep(RECOVERY)
        check_books(pool._state)
        check_steady(pool._state)
        size = pool.options.pool_size
        together = _Together(size, self.proof)
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
        check_gone(self._pool, self.ports)


class _Together:
    """Callers who hold a worker each until all have one."""

    def __init__(self, size: int, proof: Callable[[Lease, int], Awaitable[object]]) -> None:
        self.complete, self.enough = trio.Event(), trio.Event()
        self._missing = size
        self._proof = proof

    async def borrow(self, pool: WorkerPool, number: int) -> None:
        async with pool.checkout(timeout=RECOVERY) as lease:
            await self._proof(lease, number)
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
