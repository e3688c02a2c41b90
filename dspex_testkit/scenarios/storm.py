"""Carries a plan out: every strike at its time, on a target that exists then, until its fault has proven itself."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from dspex_pool.lifecycle import WorkerState
from dspex_testkit.chaos import catalogue as of
from dspex_testkit.chaos.victim import Victim
from dspex_testkit.ports.waiting import until
from dspex_testkit.scenarios.targets import Candidate
from dspex_testkit.seeds import random_of

if TYPE_CHECKING:
    import random

    from dspex_testkit.chaos.chaos import Chaos
    from dspex_testkit.chaos.injection import Injection
    from dspex_testkit.lm.script import LMScript
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.scenarios.plan import FaultPlan, Strike

__all__ = ["Hit", "Storm"]

#: Faults after which a worker is as good as dead, though the pool may not have heard of it.
_DEADLY: Final = (of.Kill, of.KillGroup, of.Terminate, of.ExitWith, of.ExitAfterReply, of.ClosedStdin)
_OUT_OF_SERVICE: Final = (WorkerState.STARTING, WorkerState.RETIRING)
#: Seconds in which what was injected comes to pass, on a worker that lives to see it.
_PROVEN_WITHIN: Final = 5.0


@dataclass(slots=True)
class Hit:
    """What became of one strike."""

    strike: Strike
    #: What was injected and has proven itself.
    proven: list[Injection] = field(default_factory=list)


class Storm:
    """The strikes of a plan on one pool.

    Args:
        plan: What is to happen.
        pool: To what.
        chaos: Injects it.
        script: The script of the language model, where the plan has faults of one.
    """

    def __init__(
        self, plan: FaultPlan, pool: PoolHandle, chaos: Chaos, *, script: LMScript | None = None
    ) -> None:
        #: What became of each strike, in the order of the plan.
        self.hits = [Hit(strike) for strike in plan.strikes]
        #: When everything that lasted was mended, in seconds of trio's clock.
        self.mended_at: float | None = None
        self._plan = plan
        self._pool = pool
        self._chaos = chaos
        self._script = script
        #: What may last yet, in the order in which it was injected.
        self._lasting: dict[Injection, None] = {}
        self._doomed: set[int] = set()

    # --- what came of it -------------------------------------------------------------------------------------

    @property
    def proven(self) -> list[Injection]:
        """Everything that was injected and has proven itself."""
        return [injection for hit in self.hits for injection in hit.proven]

    @property
    def in_vain(self) -> list[Strike]:
        """The strikes that did not come to pass: there was no target, or the fault did not prove itself."""
        return [hit.strike for hit in self.hits if not hit.proven]

    # --- carrying out ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry the plan out; return when its time is over and every strike has come to pass or was in vain.

        What lasts, lasts on.

        Cancellation: What was injected is mended.
        """
        began_at = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, self._plan.seconds)
                for number, hit in enumerate(self.hits):
                    nursery.start_soon(self._strike, number, hit, began_at)
        except BaseException:
            self.mend()
            raise

    def mend(self) -> None:
        """Mend everything that still lasts. Doing it again does nothing."""
        if self.mended_at is None:
            self.mended_at = trio.current_time()
        while self._lasting:
            self._lasting.popitem()[0].mend()

    async def _strike(self, number: int, hit: Hit, began_at: float) -> None:
        strike = hit.strike
        await trio.sleep_until(began_at + strike.at)
        # Of its own, so that what it draws does not depend on who was first.
        numbers = random_of(self._plan.seed, f"strike {number}")
        gives_up_at = trio.current_time() + strike.patience
        while not hit.proven:
            patience = max(0.0, gives_up_at - trio.current_time())
            if not (targets := await self._find(strike, numbers, patience)):
                return
            injected = [(self._inject(strike, target), target) for target in targets]
            hit.proven = [
                each for each, target in injected if each and await self._has_happened(each, target)
            ]
            if not hit.proven and trio.current_time() >= gives_up_at:
                return
        if strike.lasting is not None:
            await trio.sleep(strike.lasting)
            for injection in hit.proven:
                self._mend(injection)

    def _mend(self, injection: Injection) -> None:
        self._lasting.pop(injection, None)
        injection.mend()

    async def _find(
        self, strike: Strike, numbers: random.Random, patience: float
    ) -> list[Candidate] | list[None]:
        """Choose the targets; wait for them while there are none."""
        if strike.target is None:
            return [None]
        found: list[Candidate] = []
        target = strike.target

        def look() -> bool:
            found[:] = target.choose(self._living(), numbers)
            return bool(found)

        with contextlib.suppress(AssertionError):
            await until(look, f"{target} exists", within=patience)
        return found

    def _living(self) -> list[Candidate]:
        """Return the workers that are in service; one that is starting has no answers to garble, and no manners."""
        pool = self._pool
        lent = set(pool.lent())
        sessions_of: dict[int, set[str]] = {}
        for session, number in pool.workers._state._affinity.bindings().items():
            sessions_of.setdefault(number, set()).add(session)
        return [
            Candidate(
                index, worker.incarnation, index in lent, frozenset(sessions_of.get(worker.incarnation, ()))
            )
            for index, worker in enumerate(pool.workers.workers())
            if worker.incarnation not in self._doomed
            and pool.workers._state.workers[worker.incarnation].state not in _OUT_OF_SERVICE
            and Victim(pool, worker).exit_status() is None
        ]

    def _inject(self, strike: Strike, target: Candidate | None) -> Injection | None:
        fault = strike.aimed_at(None if target is None else target.index)
        try:
            injection = self._chaos(fault, pool=self._pool, script=self._script)
        except ProcessLookupError:
            return None  # it died just now, by itself or by another strike
        self._lasting[injection] = None
        if target is not None and isinstance(fault, _DEADLY):
            self._doomed.add(target.incarnation)
        return injection

    async def _has_happened(self, injection: Injection, target: Candidate | None) -> bool:
        """Wait until a fault has proven itself, or its worker is gone; mend what has not."""

        def look() -> bool:
            return bool(injection.evidence) or self._is_gone(target)

        with contextlib.suppress(AssertionError):
            await until(look, f"{injection.fault} happened", within=_PROVEN_WITHIN)
        if injection.evidence:
            return True
        self._mend(injection)
        return False

    def _is_gone(self, target: Candidate | None) -> bool:
        return target is not None and target.incarnation not in self._pool.workers._state.workers
