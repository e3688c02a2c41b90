"""A whole pool under random commands, with workers of your own: a machine to be subclassed.

    class MyMachine(PoolStateMachine):
        def make_ports(self) -> PortFactory:
            return MockPortFactory(my_worker)

        def calls(self) -> st.SearchStrategy[Call]:
            return st.builds(Call, st.just("double"), st.fixed_dictionaries({"n": st.integers()}))

        def check_answer(self, call: Call, answer: Any) -> None:
            assert answer == 2 * call.args["n"]

    TestMyMachine = MyMachine.TestCase

The pool runs unchanged in a guest run of trio, under a clock that only the rule ``advance`` moves. Callers are tasks
that live from one rule to the next. What a rule needs is drawn before trio runs, so that a failure shrinks.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.guest_run import GuestRun
from dspex_testkit.invariants import check_books, check_steady, check_timers
from dspex_testkit.machine_callers import Caller, KnownPorts
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.plan import Exit, Fail, Oversize, PartialFrame, Plan, Raw, Repeat, Reply, Stall
from dspex_testkit.pool_core_machine import AFFINITIES, PATIENCE, PICK, SESSIONS
from dspex_testkit.strategies import fault_plans, plans, seconds, simulated_settings
from dspex_testkit.trio_seam import order_of_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from dspex_pool.errors import DspexPoolError
    from dspex_pool.transport.port import PortFactory

__all__ = ["Call", "PoolStateMachine"]

ACTS = st.sampled_from(["drain", "suspend", "resume", "grow", "shrink", "forget", "close"])
SETTINGS = simulated_settings()
#: Longer than the longest back-off, and than an idle worker beyond ``pool_size`` may stay.
RECOVERY = 31.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a caller."""

    #: Name of the command.
    command: str
    #: Its arguments, a JSON object.
    args: Mapping[str, Any] = field(default_factory=dict)
    #: What the machine's own workers do for it; given to them by the number in ``args["play"]``.
    plan: Plan | None = None
    #: Whether the worker may fail, die or break the protocol by it.
    is_faulty: bool = False
    #: Seconds that the caller waits for the answer; ``None`` for as long as it takes.
    timeout: float | None = None


#: A second answer to a number that is still to be asked for is a lie that no client can see through.
_FAULTS = (Raw, PartialFrame, Oversize, Repeat, Stall, Exit)
_TIMEOUTS = st.sampled_from([None, 2.0, 5.0])
HONEST = st.builds(Call, st.just("play"), plan=plans(), timeout=_TIMEOUTS)
FAULTY = st.builds(
    Call, st.just("play"), plan=fault_plans(*_FAULTS), is_faulty=st.just(True), timeout=_TIMEOUTS
)
# Mostly honest: a worker that has broken the protocol is soon of no use to any other rule.
CALLS = st.one_of(HONEST, HONEST, HONEST, FAULTY)


class PoolStateMachine(RuleBasedStateMachine):
    """Callers, dying workers, time and the administrator, in any order, on a real ``WorkerPool``.

    After every rule the books agree, nothing is overdue, and no worker is in two hands; every answer is the caller's
    own; a call fails only for a reason that the machine knows. At the end the world is healed: nobody waits, all
    workers can be borrowed at once, and closing leaves nothing.
    """

    pool: WorkerPool

    # --- to be overridden -------------------------------------------------------------------------------

    def make_ports(self) -> PortFactory:
        """Return what starts the workers; simulated ones, because the clock is."""
        return MockPortFactory(self._play)

    def settings_of_pool(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy of the pool's settings."""
        return SETTINGS

    def calls(self) -> st.SearchStrategy[Call]:
        """Return the strategy of the callers' requests."""
        return CALLS

    def check_answer(self, call: Call, answer: Any) -> None:
        """Check the answer to a call. Override it together with ``calls``."""
        if call.plan is not None and not call.is_faulty:
            final = call.plan.steps[-1]
            assert isinstance(final, Reply), f"{call} was answered with {answer!r}"
            assert answer == final.result, f"{call} got an answer that is not its own: {answer!r}"

    def check_error(self, call: Call, error: DspexPoolError) -> None:
        """Check why a call failed whose worker nobody has disturbed."""
        if call.plan is not None and isinstance(call.plan.steps[-1], Fail):
            assert error.worker_survives, f"{call} should have failed in its program, not with {error!r}"
        else:
            raise AssertionError(f"{call} failed for no reason: {error!r}") from error

    # --- opening ----------------------------------------------------------------------------------------

    @initialize(
        settings=st.runner().flatmap(lambda machine: machine.settings_of_pool()), schedule=st.integers(0, 3)
    )
    def begin(self, settings: dict[str, Any], schedule: int) -> None:
        """Open the pool, with one order of tasks that are ready together."""
        self.callers: list[Caller] = []
        #: The plans of the machine's own calls, by number.
        self.played: dict[int, Plan] = {}
        #: Who has which worker, by incarnation.
        self.held: dict[int, Caller] = {}
        #: How the calls ended, by the name of the error; the answered under ``answered``.
        self.outcomes: Counter[str] = Counter()
        self.settings = settings
        self._processes = 0
        self._order: AbstractContextManager[None] = order_of_tasks(schedule)
        self._order.__enter__()
        self.host = GuestRun()
        self.ports = KnownPorts(self.make_ports())
        self.pool = WorkerPool(self.ports, **settings)
        self.host.run(self._open)
        self.host.settle()

    async def _open(self) -> None:
        self._closing = trio.Event()
        await self.host.nursery.start(self._keep_open)

    async def _keep_open(self, task_status: trio.TaskStatus[None]) -> None:
        async with self.pool:
            task_status.started()
            await self._closing.wait()

    def _play(self, port: MockPort) -> None:
        port.answer("ping", {"status": "ok"}).answer("play", lambda args: self.played[args["play"]])

    # --- callers ----------------------------------------------------------------------------------------

    @rule(
        session=SESSIONS,
        affinity=AFFINITIES,
        timeout=PATIENCE,
        wait=st.sampled_from([True, True, False]),
        first=st.runner().flatmap(lambda machine: st.none() | machine.calls()),
    )
    def checkout(
        self, session: str | None, affinity: str, timeout: float, wait: bool, first: Call | None
    ) -> None:
        """Let somebody ask for a worker, ask it for something at once or not, and keep it."""
        caller = Caller(
            self, {"session": session, "affinity": affinity, "timeout": timeout if wait else None}
        )
        self.callers.append(caller)
        if first is not None:
            caller.ask(self._numbered(first))
        self._in_background(caller.live)

    @rule(pick=PICK, call=st.runner().flatmap(lambda machine: machine.calls()))
    def call(self, pick: int, call: Call) -> None:
        """Let a holder ask its worker for something."""
        caller = self._some([each for each in self.callers if each.is_idle], pick)
        if caller is not None:
            caller.ask(self._numbered(call))
            self.host.settle()

    def _numbered(self, call: Call) -> Call:
        """Note what the machine's workers do for a call under a number, which the call tells them."""
        if call.plan is None:
            return call
        number = len(self.played)
        self.played[number] = call.plan
        return replace(call, args={**call.args, "play": number})

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        """Cancel somebody, whatever he waits for."""
        caller = self._some(self.callers, pick)
        if caller is not None:
            caller.scope.cancel()
            self.host.settle()

    @rule(pick=PICK, retire=st.sampled_from([False, False, True]))
    def checkin(self, pick: int, retire: bool) -> None:
        """Let a holder return its worker, or have it replaced."""
        caller = self._some([each for each in self.callers if each.is_idle], pick)
        if caller is not None:
            caller.leave(retire=retire)
            self.host.settle()

    # --- the world --------------------------------------------------------------------------------------

    @rule(pick=PICK)
    def kill(self, pick: int) -> None:
        """Let a worker die, whoever has it."""
        port = self._some(self.ports.live, pick)
        if port is not None:
            self.ports.disturbed.add(self.ports.number_of(port))
            port.kill()
            self.host.settle()

    @rule(duration=seconds(high=10.0) | st.sampled_from([30.0, 60.0]))
    def advance(self, duration: float) -> None:
        """Let time pass."""
        self.host.advance(duration)

    @rule(act=ACTS, pick=PICK)
    def administer(self, act: str, pick: int) -> None:
        """Do what an administrator may do. Only a pool that has served somebody is closed."""
        pool = self.pool
        if act == "close":
            if sum(self.outcomes.values()) > 2:
                self._closing.set()
        elif act == "forget":
            pool.forget_session("abc"[pick % 3])
        elif act in ("grow", "shrink"):
            size = pool.statistics().pool_size + (1 if act == "grow" else -1)
            pool.resize(min(5, max(1, size)))
        else:
            getattr(pool, act)()
        self.host.settle()

    # --- what must hold ---------------------------------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        """Check the pool's books, and who holds what."""
        if not hasattr(self, "host"):
            return
        self._require_starts()
        check_books(self.pool._state, processes_before=self._processes)
        check_timers(self.pool._state, self.host.clock.current_time())
        self._processes = len(self.pool._state.workers)
        holders = [caller for caller in self.callers if caller.lease is not None]
        assert len(holders) == len(self.held), "a lease was lost or given twice"
        self.callers = [caller for caller in self.callers if not caller.is_done]

    def _require_starts(self) -> None:
        if (error := self.ports.broken) is not None:
            raise AssertionError(f"make_ports gives what starts no worker: {error!r}") from error

    def note_lease(self, caller: Caller, incarnation: int) -> None:
        """Note that a worker has come into a caller's hands."""
        other = self.held.get(incarnation)
        assert other is None, f"worker {incarnation} is in two hands"
        self.held[incarnation] = caller

    def note_return(self, incarnation: int) -> None:
        """Note that a worker is about to be returned."""
        del self.held[incarnation]

    def note_answer(self, caller: Caller, call: Call, answer: Any) -> None:
        """Check an answer that has come."""
        self.outcomes["answered"] += 1
        if not caller.is_tainted:
            self.check_answer(call, answer)

    def note_error(self, caller: Caller, call: Call, error: DspexPoolError) -> None:
        """Check an error that a call ended with."""
        self.outcomes[type(error).__name__] += 1
        assert caller.lease is not None
        is_late = call.timeout is not None or "lease_timeout" in self.settings
        is_disturbed = caller.is_tainted or caller.lease.worker.incarnation in self.ports.disturbed
        # A closed pool ends its workers, whoever has them.
        if not (is_late or is_disturbed or self.pool.statistics().closed):
            self.check_error(call, error)

    # --- the end ----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Heal the world, and see that the pool is whole: nobody waits, all can be lent, closing leaves nothing."""
        if not hasattr(self, "host"):
            if hasattr(self, "_order"):
                self._order.__exit__(None, None, None)
            return
        try:
            if sys.exc_info()[0] is None:
                self._heal()
                self._close()
        finally:
            try:
                self.host.close()
            finally:
                self._order.__exit__(None, None, None)

    def _heal(self) -> None:
        self.pool.resume()
        for caller in self.callers:
            caller.scope.cancel()
        self.host.settle()
        self.host.advance(RECOVERY)
        self.books_agree()
        if self.pool.statistics().closed:
            return
        check_steady(self.pool._state)
        size = self.pool.statistics().pool_size
        asking = [Caller(self, {"timeout": RECOVERY}) for _ in range(size)]
        self.callers = list(asking)
        for caller in asking:
            self._in_background(caller.live)
        self.host.advance(RECOVERY)
        self._require_starts()
        assert all(caller.is_idle for caller in asking), "a healed pool does not lend all of its workers"

    def _close(self) -> None:
        self._closing.set()
        self.host.advance(60.0)
        assert all(caller.is_done or caller.lease is not None for caller in self.callers), (
            "somebody waits for ever"
        )
        assert not self.ports.live, f"left alive: {self.ports.live}"
        assert not self.pool._runner.lives, "a worker's task is left"
        assert not self.pool.statistics().processes, "the books of a closed pool hold workers"

    # --- inside -----------------------------------------------------------------------------------------

    def _in_background(self, task: Any) -> None:
        async def start() -> None:
            self.host.nursery.start_soon(task)

        self.host.run(start)
        self.host.settle()

    @staticmethod
    def _some(items: Any, pick: int) -> Any:
        items = list(items)
        return items[pick % len(items)] if items else None
