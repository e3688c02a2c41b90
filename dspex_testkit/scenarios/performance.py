"""One performance of a scenario: opens its pool, lets the storm and the clients loose, and sees the pool recover."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool import errors
from dspex_pool.telemetry import PREFIX, Telemetry
from dspex_pool.telemetry.gauges import GaugeLedger
from dspex_testkit.history.attending import attend
from dspex_testkit.history.checkers import check_history
from dspex_testkit.history.record import CANCELLED, History, Outcome
from dspex_testkit.invariants import check_books
from dspex_testkit.scenarios.scenario import Scenario
from dspex_testkit.scenarios.storm import Storm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_testkit.chaos.chaos import Chaos
    from dspex_testkit.lm.script import LMScript
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.ports.run import MakePool
    from dspex_testkit.scenarios.plan import FaultPlan
    from dspex_testkit.scenarios.workload import Clients

__all__ = ["Performance", "Result", "VacuousScenarioError"]

#: Seconds between two looks at the books of a pool while faults run.
_LOOK_EVERY = 0.02
#: Seconds beyond the storm in which clients come to an end.
_CLIENTS_LEAVE_WITHIN = 30.0


#: Seconds beyond the storm in which everything is to be seen that a scenario is about, on a slow machine.
_SEEN_WITHIN = 10.0


class VacuousScenarioError(AssertionError):
    """A scenario was played and proves nothing: too little of what it is about has happened."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario that held."""

    scenario: str
    seed: int
    #: Calls by how they ended.
    answered: int
    failed: int
    unknown: int
    #: Strikes of the plan, those of them that did not come to pass, and the faults that proved themselves.
    strikes: int
    in_vain: int
    proven: int
    #: Seconds from the end of all faults until all workers served at the same time.
    healed_in: float
    #: Seconds in all.
    took: float
    #: Every call, and what came of it.
    history: History = field(repr=False)

    def __str__(self) -> str:
        return (
            f"{self.scenario}, seed {self.seed}: {self.answered} calls answered, {self.failed} failed, "
            f"{self.unknown} of unknown outcome; {self.proven} faults by {self.strikes} strikes, {self.in_vain} in "
            f"vain; whole after {self.healed_in:.2f} s; {self.took:.1f} s in all"
        )


class Performance:
    """A scenario while it is played.

    Args:
        scenario: What is played.
        plan: What goes wrong.
        make_pool: Opens its pool.
        chaos: Injects.
    """

    def __init__(self, scenario: Scenario, plan: FaultPlan, make_pool: MakePool, chaos: Chaos) -> None:
        self.scenario = scenario
        self.plan = plan
        self.make_pool = make_pool
        self.chaos = chaos
        #: Every call, and what came of it.
        self.history = History()
        #: What the events of all its pools add up to.
        self.ledgers: list[GaugeLedger] = []
        self.storms: list[Storm] = []
        #: What proves that something happened that no storm has done.
        self.proofs: list[str] = []
        #: Seconds from the end of all faults until all workers served at the same time, for each recovery.
        self.healed_in: list[float] = []

    # --- the pool ----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def pool(self, **settings: Any) -> AsyncIterator[PoolHandle]:
        """Open the scenario's pool, with further settings; its events are added up.

        Cancellation: The pool is closed.
        """
        telemetry, ledger = Telemetry(), GaugeLedger()
        self.ledgers.append(ledger)
        telemetry.attach(PREFIX, ledger)
        given = {**self.scenario.settings, **settings}
        async with self.make_pool.opened(telemetry=telemetry, **given) as pool:
            if self.history.options is None:  # it attends one pool, the first
                attend(self.history, pool)
            yield pool
        assert ledger.contradictions == [], f"events contradict one another: {ledger.contradictions}"
        assert ledger.processes == 0, f"by its events a closed pool has {ledger.processes} processes"

    # --- safety ------------------------------------------------------------------------------------------------

    async def storm(
        self, pool: PoolHandle, *, clients: Clients | None = None, script: LMScript | None = None
    ) -> None:
        """Carry the plan out under clients; return when they have left. What lasts of the faults lasts on.

        Raises:
            AssertionError: The books of the pool were out of order.
            trio.TooSlowError: The clients do not come to an end.

        Cancellation: Clients leave, and what was injected is mended.
        """
        workload = self.scenario.workload if clients is None else clients
        storm, is_over = self.new_storm(pool, script=script), trio.Event()
        try:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._watch_books, pool)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.run_clients, workload, pool, is_over)
                    await storm.run()
                    with contextlib.suppress(AssertionError):  # which ``check`` will tell of
                        await pool.until(lambda: not self._lacking(), within=_SEEN_WITHIN)
                    storm.mend()
                    is_over.set()
                    nursery.cancel_scope.deadline = trio.current_time() + _CLIENTS_LEAVE_WITHIN
                watching.cancel_scope.cancel()
        finally:
            storm.mend()

    def new_storm(self, pool: PoolHandle, *, script: LMScript | None = None) -> Storm:
        """Return the plan on a pool, ready to be carried out."""
        self.storms.append(Storm(self.plan, pool, self.chaos, script=script))
        return self.storms[-1]

    async def run_clients(self, workload: Clients, pool: PoolHandle, is_over: trio.Event) -> None:
        """Have clients call until it is over.

        Cancellation: They leave.
        """
        await workload.run(pool, self.history, seed=self.plan.seed, is_over=is_over)

    async def _watch_books(self, pool: PoolHandle) -> None:
        processes = 0
        while True:
            check_books(pool.workers._state, processes_before=processes)
            processes = pool.statistics().processes
            await trio.sleep(_LOOK_EVERY)

    # --- recovery ----------------------------------------------------------------------------------------------

    async def heal(self, pool: PoolHandle, *, since: float | None = None) -> None:
        """See that the pool is whole within the scenario's bound, and that all its workers serve at the same time.

        Args:
            pool: The pool.
            since: From when the bound counts; by default from when faults stopped.

        Raises:
            AssertionError: It is not.

        Cancellation: Changes nothing.
        """
        bound = self.scenario.heals_within
        moments = [storm.mended_at for storm in self.storms if storm.mended_at is not None]
        begins = max(moments, default=trio.current_time()) if since is None else since
        await pool.steady(within=bound)
        await self._serve_all_at_once(pool)
        healed_in = trio.current_time() - begins
        assert healed_in <= bound, f"the pool was whole {healed_in:.2f} s after all faults, not {bound:g}"
        self.healed_in.append(healed_in)

    async def _serve_all_at_once(self, pool: PoolHandle) -> None:
        """Have every worker run a call at the same moment, and one call more wait in line."""
        size = pool.size
        async with trio.open_nursery() as nursery:
            for number in range(size):
                nursery.start_soon(self._occupy, pool, f"whole-{number}")
            await pool.until(lambda: self._running(pool) == size, f"{size} workers serve at the same time")
            nursery.start_soon(self._occupy, pool, "one-more")
            await pool.waiting(1)
            now = pool.statistics()
            assert (now.leased, now.processes, now.waiting) == (size, size, 1), f"not {size} workers: {now}"
            nursery.cancel_scope.cancel()
        await pool.steady()

    async def _occupy(self, pool: PoolHandle, client: str) -> None:
        await self.history.call(pool, client, "sleep", {"seconds": 600, "nonce": client}, client=client)

    @staticmethod
    def _running(pool: PoolHandle) -> int:
        """Count the workers that have read a call and not answered it."""
        return sum(pool._has_read(index, "sleep") for index in pool.lent())

    # --- what came of it ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """See that what the scenario is about has happened, and that nobody was told what is not so.

        Raises:
            VacuousScenarioError: Too little has happened.
            AssertionError: Somebody was.
        """
        self._check_what_happened()
        check_history(self.history, errors=_names_of(self.scenario.may_see))

    def _check_what_happened(self) -> None:
        hits = [hit for storm in self.storms for hit in storm.hits]
        proven = sum(bool(hit.proven) for hit in hits)
        wanted = self.scenario.least_proven * len(hits)
        in_vain = [hit.strike for hit in hits if not hit.proven]
        if not hits and type(self.scenario).play is Scenario.play:
            raise VacuousScenarioError("there was no strike in the plan")
        if proven < wanted:
            raise VacuousScenarioError(f"{proven} of {len(hits)} strikes came to pass; in vain: {in_vain}")
        if lacking := self._lacking():
            raise VacuousScenarioError(f"never seen: {', '.join(lacking)}")

    def _lacking(self) -> list[str]:
        """Return what the scenario is about and has not been seen."""
        seen = {operation.error for operation in self.history.operations}
        retired = {reason for ledger in self.ledgers for reason in ledger.retired_by_reason}
        wanted = [kind.__name__ for kind in self.scenario.must_see]
        return [
            *(name for name in wanted if name not in seen),
            *(reason for reason in self.scenario.must_retire if reason not in retired),
            *([] if self.history.count(Outcome.OK) else ["an answer"]),
        ]

    def result(self, took: float) -> Result:
        """Sum up."""
        return Result(
            scenario=self.scenario.name,
            seed=self.plan.seed,
            answered=self.history.count(Outcome.OK),
            failed=self.history.count(Outcome.FAILED),
            unknown=self.history.count(Outcome.UNKNOWN),
            strikes=sum(len(storm.hits) for storm in self.storms),
            in_vain=sum(len(storm.in_vain) for storm in self.storms),
            proven=sum(len(storm.proven) for storm in self.storms) + len(self.proofs),
            healed_in=max(self.healed_in, default=0.0),
            took=took,
            history=self.history,
        )


def _names_of(kinds: tuple[type[Exception], ...]) -> set[str]:
    """Return the names of errors and of those of the pool that are kinds of them, and of a cancelled caller."""
    of_the_pool = {name for name in errors.__all__ if issubclass(getattr(errors, name), kinds)}
    return {CANCELLED, *(kind.__name__ for kind in kinds), *of_the_pool}
