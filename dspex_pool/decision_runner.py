"""Carries out the decisions of the pool core under trio: starts, grants, pings, drains, ends.

Nothing is decided here. Every decision is carried out at once and without an await, in ``carry_out``. One task
looks after each worker process for its whole life (``WorkerLife``); one more waits for the core's next wake-up.
"""

from __future__ import annotations

import contextvars
import math
from typing import TYPE_CHECKING, Any

import outcome
import trio

from dspex_pool.core.records import Decision, Drain, Emit, Grant, Granted, Ping, Refuse, Retire, Start, Waiter
from dspex_pool.logs import PoolLog
from dspex_pool.worker_life import WorkerLife

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_pool.errors import DspexPoolError
    from dspex_pool.pool_state import PoolState
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.port import PortFactory
    from dspex_pool.worker import PoolWorker

__all__ = ["DecisionRunner"]

_log = PoolLog("dspex_pool")


class _Place:
    """Where a caller waits for what the core decides of it.

    Args:
        number: Number of the caller in the line.
        take_out: Takes that number out of the line; tells whether it was still in it.
    """

    __slots__ = ("_number", "_take_out", "answer", "sleeper")

    def __init__(self, number: int, take_out: Callable[[int], bool]) -> None:
        self._number = number
        self._take_out = take_out
        #: The caller's task, once it sleeps.
        self.sleeper: trio.lowlevel.Task | None = None
        #: What it gets, if that came before it slept: a telemetry handler may serve or refuse it.
        self.answer: outcome.Value[Granted] | outcome.Error | None = None

    @trio.lowlevel.enable_ki_protection
    def leave(self, _: object) -> trio.lowlevel.Abort:
        """Give up the place, as trio wants it when the caller is cancelled."""
        # If not, its turn has come, and a telemetry handler that was told of that has cancelled it.
        return trio.lowlevel.Abort.SUCCEEDED if self._take_out(self._number) else trio.lowlevel.Abort.FAILED


class DecisionRunner:
    """The hands of a pool.

    Args:
        state: The core whose decisions are carried out.
        ports: Starts worker processes.
        telemetry: Where events go.
        reset: Awaited with each used worker before others may use it, or ``None``.
    """

    def __init__(
        self,
        state: PoolState,
        *,
        ports: PortFactory,
        telemetry: Telemetry,
        reset: Callable[[PoolWorker], Awaitable[object]] | None,
    ) -> None:
        #: The lives of all workers whose process exists or is being started, by incarnation.
        self.lives: dict[int, WorkerLife] = {}
        self._state = state
        self._ports = ports
        self._telemetry = telemetry
        self._reset = reset
        self._parked: dict[int, _Place] = {}
        self._changed = trio.lowlevel.ParkingLot()
        #: How many tasks are in ``until``. Nearly always none, and an empty lot is not looked at for nothing.
        self._watchers = 0
        self._timer = trio.CancelScope()
        # Its deadline, which trio takes long to tell.
        self._timer_at = math.inf
        self._is_carrying_out = False
        self._nursery: trio.Nursery | None = None
        # A worker outlives the caller for whom it is started: what is logged of it is not that caller's, and what
        # the caller has in its context variables is not kept.
        self._context = contextvars.Context()
        self._actions: dict[type[Decision], Callable[[Any], None]] = {
            Start: self._start,
            Grant: self._grant,
            Refuse: self._refuse,
            Ping: self._begin_ping,
            Drain: self._begin_drain,
            Retire: self._retire,
            Emit: self._emit,
        }

    def open(self, nursery: trio.Nursery) -> None:
        """Begin: all tasks of the pool will run in ``nursery``."""
        self._nursery, self._context = nursery, contextvars.copy_context()
        nursery.start_soon(self._keep_time, name="dspex_pool timer")
        self._state.open(trio.current_time())
        self.carry_out()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; it is looked at after every change.

        Cancellation: Changes nothing.
        """
        self._watchers += 1
        try:
            while not condition():
                await self._changed.park()
        finally:
            self._watchers -= 1

    async def stand_in_line(self, waiter: Waiter) -> Granted:
        """Wait for what the core decides of ``waiter``.

        Raises:
            CheckoutError: The core refused it.

        Cancellation: The waiter is out of the line before anything else can happen.
        """
        place = self._parked[waiter.number] = _Place(waiter.number, self._take_out)
        self.carry_out()
        if place.answer is not None:
            return place.answer.unwrap()
        place.sleeper = trio.lowlevel.current_task()
        granted: Granted = await trio.lowlevel.wait_task_rescheduled(place.leave)
        return granted

    def _take_out(self, number: int) -> bool:
        if not self._state.cancel_waiter(number, trio.current_time()):
            return False
        del self._parked[number]
        self.carry_out()
        return True

    def worker(self, number: int) -> PoolWorker | None:
        """Return the worker of an incarnation, if its process exists."""
        life = self.lives.get(number)
        return life.worker if life is not None else None

    def workers(self) -> list[PoolWorker]:
        """Return the workers whose process exists, oldest first."""
        return [life.worker for life in self.lives.values() if life.worker is not None]

    # --- carrying out -------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def carry_out(self) -> None:
        """Carry out all decisions of the core. Never awaits; may be called from anywhere in the trio thread."""
        if self._is_carrying_out:
            # A telemetry handler called the pool; the loop below is on the stack and goes on.
            return
        state = self._state
        if state.outbox:
            self._is_carrying_out = True
            try:
                while state.outbox:
                    for decision in state.decisions():
                        self._actions[type(decision)](decision)
            finally:
                self._is_carrying_out = False
        # Also without decisions: while nobody listens to telemetry, a worker may come or go without any.
        if self._watchers:
            self._changed.unpark_all()
        if state.wake_at < self._timer_at:
            self._timer_at = self._timer.deadline = state.wake_at

    def _start(self, decision: Start) -> None:
        life = WorkerLife(
            decision.number,
            decision.worker_id,
            ports=self._ports,
            grace=self._state.options.terminate_grace,
            on_started=self._worker_started,
            on_failed=self._start_failed,
        )
        self.lives[decision.number] = life
        self._start_task(self._live, life, name=f"dspex_pool {decision.worker_id}")

    def _grant(self, decision: Grant) -> None:
        self._tell(decision.waiter, outcome.Value(decision.lease))

    def _refuse(self, decision: Refuse) -> None:
        self._tell(decision.waiter, outcome.Error(decision.error))

    def _tell(self, waiter: int, answer: outcome.Value[Granted] | outcome.Error) -> None:
        place = self._parked.pop(waiter)
        if place.sleeper is None:
            place.answer = answer
        else:
            trio.lowlevel.reschedule(place.sleeper, answer)

    def _begin_ping(self, decision: Ping) -> None:
        self._begin_care(decision.number, "ping", self._ping)

    def _begin_drain(self, decision: Drain) -> None:
        self._begin_care(decision.number, "drain", self._drain_worker)

    def _begin_care(self, number: int, what: str, care: Callable[[PoolWorker], Awaitable[None]]) -> None:
        life = self.lives[number]
        life.care = trio.CancelScope()
        self._start_task(self._take_care, life, what, care, name=f"dspex_pool {life.worker_id} {what}")

    def _start_task(self, function: Callable[..., Awaitable[None]], *args: Any, name: str) -> None:
        """Start a task of the pool, whoever made the pool decide so."""
        assert self._nursery is not None
        self._context.run(self._nursery.start_soon, function, *args, name=name)

    def _retire(self, decision: Retire) -> None:
        life = self.lives.get(decision.number)
        if life is not None:
            if life.worker is not None:
                life.worker.retired_because = decision.reason
            life.add_last_words(decision.error)
            life.end(polite=decision.polite)

    def _emit(self, decision: Emit) -> None:
        self._telemetry.emit(decision.name, decision.measurements, decision.metadata)

    # --- the pool's own tasks -----------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _keep_time(self) -> None:
        while True:
            self._timer_at = min(
                self._state.wake_at, *(worker.deadline for worker in self.workers()), math.inf
            )
            self._timer = trio.CancelScope(deadline=self._timer_at)
            with self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            for worker in self.workers():
                if worker.deadline <= now:
                    worker.deadline = math.inf
                    _expire(worker)
            self._state.tick(now)
            self.carry_out()

    def _watch_deadline(self, deadline: float) -> None:
        """Have the deadline of a worker's request watched, without a cancel scope for each request."""
        if deadline < self._timer_at:
            self._timer_at = self._timer.deadline = deadline

    @trio.lowlevel.enable_ki_protection
    async def _live(self, life: WorkerLife) -> None:
        exit_text = None
        try:
            exit_text = await life.run()
        except Exception:
            _log.exception("the task of worker %s failed; the worker is replaced", life.worker_id)
        finally:
            del self.lives[life.number]
            self._state.worker_gone(life.number, trio.current_time(), exit_text=exit_text)
            self.carry_out()

    def _worker_started(self, number: int) -> None:
        worker = self.worker(number)
        assert worker is not None
        worker.watch, worker.now = self._watch_deadline, trio.lowlevel.current_clock().current_time
        self._state.worker_started(number, trio.current_time())
        self.carry_out()

    def _start_failed(self, number: int, error: DspexPoolError) -> None:
        self._state.worker_failed(number, trio.current_time(), "start_failed", error=error)
        self.carry_out()

    @trio.lowlevel.enable_ki_protection
    async def _take_care(
        self, life: WorkerLife, what: str, care: Callable[[PoolWorker], Awaitable[None]]
    ) -> None:
        """Do something with a worker that nobody has, and report whether it may serve again."""
        worker = life.worker
        assert worker is not None
        reason: str | None = f"{what}_failed"
        error: BaseException | None = None
        with life.care:
            try:
                await care(worker)
                reason = worker.why_unclean()
            except Exception as failure:
                error = failure
                _log.info("worker %s: %s failed: %s", life.worker_id, what, failure)
        if life.care.cancelled_caught:
            return
        now = trio.current_time()
        if reason is not None:
            self._state.worker_failed(life.number, now, reason, error=error)
        elif what == "ping":
            self._state.ping_answered(life.number, now)
        else:
            self._state.drained(life.number, now)
        self.carry_out()

    async def _ping(self, worker: PoolWorker) -> None:
        await worker.request("ping", {"worker_id": worker.worker_id})

    async def _drain_worker(self, worker: PoolWorker) -> None:
        await worker.settle()
        if self._reset is not None:
            await self._reset(worker)


def _expire(worker: PoolWorker) -> None:
    try:
        worker.expire()
    except Exception:
        # A port of somebody's own. Nothing else ends the call in time, and the timer of all others must go on.
        _log.exception(
            "worker %s cannot be told that the time of its call is up; it is killed", worker.worker_id
        )
        worker.port.kill()
