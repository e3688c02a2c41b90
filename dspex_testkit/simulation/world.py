"""A whole pool in a simulated world: its own code unchanged, on simulated workers, in virtual time.

A world plays workloads and holds the pool to its promises, whatever the faults: a worker has one holder, a call has
one lawful outcome and gets its own answer, callers keep their places in line, the books agree, starts do not storm.
When the faults are over the pool is whole again, as exactly as can be measured; when it is closed nothing is left.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_pool.errors import DspexPoolError
from dspex_pool.telemetry import Telemetry
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.invariants import check_books, check_gone, check_steady
from dspex_testkit.report.recorder import BEGAN, ENDED, EVENT, LENT, Recorder
from dspex_testkit.seeds import random_of
from dspex_testkit.simulation.faults import GRID, OnWorker
from dspex_testkit.simulation.outcomes import (
    ANSWER,
    CANCELLED,
    OWN_ERROR,
    BrokenPromiseError,
    Outcome,
    Outcomes,
    OwnError,
)
from dspex_testkit.simulation.workers import SimulatedWorkers
from dspex_testkit.simulation.workload import Workload, draw_workload
from dspex_testkit.trio_seam import sleep_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from dspex_pool.lease import Lease
    from dspex_testkit.simulation.faults import Fault
    from dspex_testkit.simulation.workload import Call, Case

__all__ = ["PATIENCE", "World"]

#: Virtual seconds after which a run counts as hung.
PATIENCE: Final = 100_000.0

#: Events up to which the books are checked after each.
OFTEN: Final = 1_000

#: Settings of the pool, on the same grid as the workload; a test may give others.
SETTINGS: Final[dict[str, Any]] = {
    "pool_size": 2,
    "checkout_timeout": 30.0,
    "spawn_timeout": 10.0,
    "health_check_interval": 8.0,
    "ping_timeout": 2.0,
    "cancel_grace": 1.0,
    "terminate_grace": 2.0,
    "backoff_min": 1.0,
    "backoff_max": 4.0,
}


class World:
    """One simulated run.

    Args:
        case: What the run depends on.
        settings: Settings of the pool, as for ``WorkerPool``, over those of a world.
        faults: Kinds of faults that may be drawn.
        cancel: Which cancellations may be drawn: none, ``ticks`` or ``everywhere``.
    """

    def __init__(
        self,
        case: Case,
        *,
        settings: Mapping[str, Any] | None = None,
        faults: Sequence[type[Fault]] = (),
        cancel: str = "",
    ) -> None:
        #: What happened, in order: when, what, and to whom.
        self.log: list[tuple[Any, ...]] = []
        #: The workloads that were played.
        self.workloads: list[Workload] = []
        #: The outcomes of all calls of all workloads.
        self.outcomes = Outcomes()
        #: The same with all that a picture of it needs.
        self.recorder = Recorder()
        self.workers = SimulatedWorkers(self._check_holder, self._check_size, self.recorder)
        self.case = case
        self._faults, self._cancel = tuple(faults), cancel
        self.telemetry = Telemetry()
        self.telemetry.attach((), self._note_event)
        #: Settings of the pool.
        self.settings = SETTINGS | dict(settings or {})
        self.pool = WorkerPool(
            self.workers, telemetry=self.telemetry, random=random_of(case.seed, "pool"), **self.settings
        )
        self._lent: set[int] = set()
        #: What was seen to be wrong where it could not be raised.
        self.fault: AssertionError | None = None
        self._scope = trio.CancelScope()
        self._checked = 0
        self._holders: dict[int, int] = {}
        #: Workers whose last caller's own code has failed.
        self._own_errors: set[int] = set()
        self._doomed = _Doomed()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[World]:
        """Open the pool; with the block's end check that it is whole, close it, and check that nothing is left.

        Cancellation: Closes the pool.
        """
        with self.recorder, self._scope, trio.fail_after(PATIENCE):
            async with self._open_pool():
                with self.recorder.noting_failure():
                    yield self
                    self.workers.heal()
                    await self._check_recovery()
            check_gone(self.pool, self.workers)

    @contextlib.asynccontextmanager
    async def _open_pool(self) -> AsyncIterator[None]:
        async with self.pool:
            yield

    def _accuse(self, error: AssertionError) -> None:
        """End the run with ``error``, wherever in the pool or in trio this is called: nobody there could raise it."""
        if self.fault is None:
            self.fault = error
            self.recorder.fail()
            self._scope.cancel()

    async def run(self, *, clients: int = 8, calls: int = 60) -> Outcomes:
        """Play a workload to its end, and check how its calls ended.

        Args:
            clients: How many calls are under way at a time, more or less.
            calls: Number of calls.

        Raises:
            BrokenPromiseError: A call ended unlawfully.
            ValueError: There is to be no client, or no call.

        Cancellation: Every call is cancelled.
        """
        workload = self._workload(clients, calls)
        self.workloads.append(workload)
        outcomes = Outcomes()
        begin = trio.current_time()
        await self._play(workload, begin, outcomes)
        outcomes.check(
            patience=self.pool.options.checkout_timeout,
            hit=self.workers.hit,
            starts_failed=bool(self.workers.failed or self.workers.cancelled),
            declines=self._undone_grants(),
        )
        return outcomes

    def _undone_grants(self) -> set[float]:
        """Return the moments at which a grant may have come to nothing: its worker was unclean, or died before."""
        return {
            entry[0]
            for entry in self.log
            if entry[1] == "checkout_declined" or (entry[1] == "worker_retiring" and entry[3] == "died")
        }

    def _workload(self, clients: int, calls: int) -> Workload:
        number = len(self.workloads)
        if number < len(self.case.workloads):
            return self.case.workloads[number]
        return draw_workload(
            random_of(self.case.seed, f"workload {number}"),
            clients=clients,
            calls=calls,
            workers=self.pool.options.pool_size,
            faults=self._faults,
            cancel=self._cancel,
        )

    async def _play(self, workload: Workload, begin: float, outcomes: Outcomes) -> None:
        # At the same moment a fault comes before the calls.
        arrivals: list[tuple[int, Call | OnWorker]] = [
            (fault.at, fault) for fault in self.workers.expect(workload.faults)
        ]
        arrivals += [(call.at, call) for call in workload.calls]
        async with trio.open_nursery() as nursery:
            for at, arrival in sorted(arrivals, key=lambda one: one[0]):
                await sleep_until(begin + at * GRID)
                if isinstance(arrival, OnWorker):
                    self.workers.strike(arrival)
                else:
                    nursery.start_soon(self._call, arrival, outcomes)

    # --- one call --------------------------------------------------------------------------------------

    async def _call(self, call: Call, outcomes: Outcomes) -> None:
        now = trio.current_time()
        outcome = Outcome(call, now)
        self.recorder.entries.append((now, BEGAN, 0, call.number, "waiting"))
        outcomes.all.append(outcome)
        self.outcomes.all.append(outcome)
        if call.cancel or call.cancel_step:
            with trio.CancelScope() as scope:
                self._doom(call, scope)
                await self._attempt(call, outcome)
            if scope.cancelled_caught:
                outcome.kind = CANCELLED
        else:
            await self._attempt(call, outcome)
        outcome.ended = trio.current_time()
        self.recorder.entries.append((outcome.ended, ENDED, 0, call.number, outcome.kind))
        self.log.append((outcome.ended, "ended", call.number, outcome.kind))

    async def _attempt(self, call: Call, outcome: Outcome) -> None:
        try:
            await self._borrow(call, outcome)
            outcome.kind = ANSWER
        except OwnError:
            outcome.kind = OWN_ERROR
        except (DspexPoolError, trio.WouldBlock) as error:
            outcome.kind = type(error).__name__

    def _doom(self, call: Call, scope: trio.CancelScope) -> None:
        """Have the call cancelled when its workload says so."""
        if call.cancel:
            scope.deadline = trio.current_time() + call.cancel * GRID
        if call.cancel_step:
            if not self._doomed.scopes:
                trio.lowlevel.add_instrument(self._doomed)
            self._doomed.scopes[trio.lowlevel.current_task()] = [call.cancel_step, scope]

    async def _borrow(self, call: Call, outcome: Outcome) -> None:
        patience = {0: None, -1: 0.0}.get(call.patience, call.patience * GRID)
        session = f"s-{call.session}" if call.session else None
        checkout = (
            self.pool.checkout_nowait(session=session)
            if call.patience < 0
            else self.pool.checkout(timeout=patience, session=session)
        )
        async with checkout as lease:
            outcome.granted = trio.current_time()
            outcome.incarnation = lease.worker.incarnation
            self._take(call.number, outcome)
            if lease.worker.port.has_unread():
                raise BrokenPromiseError(f"call {call.number} is lent a worker that is no good")
            try:
                await self._use(call, lease, outcome)
            except OwnError:
                self._own_errors.add(outcome.incarnation)
                raise
            finally:
                del self._holders[outcome.incarnation]
                self._note("returned", call.number, outcome.incarnation)

    async def _use(self, call: Call, lease: Lease, outcome: Outcome) -> None:
        for ask in range(call.more + 1):
            outcome.asked = trio.current_time()
            answer = await lease.request(
                "work",
                {"call": call.number, "ask": ask, "work": call.work * GRID},
                timeout=call.limit,
            )
            if answer != {"call": call.number, "ask": ask}:
                raise BrokenPromiseError(f"call {call.number} got the answer {answer}", calls=(call.number,))
            if call.fails:
                raise OwnError
        if call.keep:
            await trio.sleep(call.keep * GRID)

    def _take(self, number: int, outcome: Outcome) -> None:
        worker = outcome.incarnation
        self.log.append((outcome.granted, "lent", number, worker))
        self.recorder.entries.append((outcome.granted, LENT, 0, number, worker))
        if worker in self._holders:
            raise BrokenPromiseError(
                f"worker {worker} is lent to call {number} while call {self._holders[worker]} has it",
                calls=(number, self._holders[worker]),
            )
        self._holders[worker] = number

    def _check_holder(self, worker: int, number: int) -> None:
        holder = self._holders.get(worker)
        if holder != number:
            self._accuse(
                BrokenPromiseError(
                    f"worker {worker} works for call {number}, and call {holder} has it",
                    calls=(number,) if holder is None else (number, holder),
                )
            )

    # --- what is seen ----------------------------------------------------------------------------------

    def _note(self, *what: Any) -> None:
        self.log.append((trio.current_time(), *what))

    def _note_event(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        now, name = trio.current_time(), event[-1]
        self.log.append((now, name, metadata.get("worker_id", ""), str(metadata.get("reason", ""))))
        self.recorder.entries.append((now, EVENT, 0, name, measurements, metadata, None))
        if name in ("checkout", "ping_start"):
            self._check_lives(metadata["incarnation"], now)

    def check_round(self) -> None:
        """Check the books, if enough has happened since they were last checked: the pool tells all that it does.

        In a long run that is every few events: what went wrong stays wrong, and an hour has tens of thousands.
        """
        if self.fault is None and len(self.log) - self._checked > len(self.log) // OFTEN:
            self._checked = len(self.log)
            try:
                check_books(self.pool._state)
                self._check_callers_blame()
            except AssertionError as error:
                self._accuse(error)

    def _check_callers_blame(self) -> None:
        """Check that no worker has to go because its caller's own code failed."""
        for number in self._own_errors - self.workers.hit:
            record = self.pool._state.workers.get(number)
            if record is not None and (record.condemned or "").startswith("caller"):
                raise BrokenPromiseError(f"worker {number} is replaced because its caller failed")

    def _check_lives(self, number: int, now: float) -> None:
        """Check that a worker that is lent or pinged was not killed at an earlier moment."""
        if self.workers.killed.get(number, now) < now:
            self._accuse(BrokenPromiseError(f"worker {number}, long dead, is still in service"))

    def _check_size(self) -> None:
        options = self.pool.options
        alive = len(self.workers.live) + self.workers.starting
        if alive > options.pool_size + options.max_overflow:
            self._accuse(BrokenPromiseError(f"{alive} processes live in a pool of {options.pool_size}"))

    # --- afterwards --------------------------------------------------------------------------------------

    async def _check_recovery(self) -> None:
        options = self.pool.options
        await trio.sleep(options.spawn_timeout + 2 * options.backoff_max + options.overflow_ttl + PAUSE)
        check_books(self.pool._state)
        check_steady(self.pool._state)
        self._check_nothing_unread()
        self._check_starts()
        await self.check_parallelism()

    def _check_nothing_unread(self) -> None:
        for port in self.workers.live:
            if port.has_unread() or port.model.outstanding:
                raise BrokenPromiseError(f"{port} is at rest with something unread or unanswered")

    def _check_starts(self) -> None:
        """Check that starts that fail are tried again with pauses between them."""
        failures, room = self.workers.failures, self.pool.options.max_starting + 1
        for first, last in zip(failures, failures[room:], strict=False):
            if last - first < self.pool.options.backoff_min:
                raise BrokenPromiseError(f"{room + 1} starts fail within {last - first} s")

    async def check_parallelism(self) -> None:
        """Check that exactly as many calls run at a time as the pool has workers: two rounds end in two beats.

        Cancellation: Reaches the calls.
        """
        room = self.pool.options.pool_size + self.pool.options.max_overflow
        begin = trio.current_time()
        ends: list[float] = []

        async def beat() -> None:
            async with self.pool.checkout() as lease:
                await lease.request("work", {"ask": 0})
                await trio.sleep(GRID)
            ends.append(round(trio.current_time() - begin, 6))

        async with trio.open_nursery() as nursery:
            for _ in range(2 * room):
                nursery.start_soon(beat)
        if ends != [GRID] * room + [2 * GRID] * room:
            raise BrokenPromiseError(f"{2 * room} calls in a pool of {room} end after {ends} s")


class _Doomed(trio.abc.Instrument):
    """Cancels scopes after so many steps of their tasks."""

    def __init__(self) -> None:
        #: By task: the steps left, and the scope.
        self.scopes: dict[trio.lowlevel.Task, list[Any]] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        entry = self.scopes.get(task)
        if entry is not None:
            entry[0] -= 1
            if entry[0] == 0:
                entry[1].cancel()


#: Seconds beyond all that a pool may need until it is whole.
PAUSE: Final = 60.0
