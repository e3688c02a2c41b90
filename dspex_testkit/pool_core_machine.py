"""The pool's core under random commands, with every invariant checked after every step: a machine to be subclassed.

No loop, no process and no clock: ``PoolDriver`` answers for the rest of the world. To put a whole pool under random
commands, with workers of your own, see ``pool_state_machine.py``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dspex_pool.core.records import Granted, Outcome
from dspex_testkit.invariants import check_steady
from dspex_testkit.pool_driver import PoolDriver
from dspex_testkit.strategies import simulated_settings

if TYPE_CHECKING:
    from dspex_pool.core.records import PoolStatistics

__all__ = ["ACTS", "AFFINITIES", "PATIENCE", "PICK", "SECONDS", "SESSIONS", "PoolCoreMachine"]

# Times on a coarse grid, the pool's own among them: only so do events coincide. None: until the next timer.
SECONDS = st.sampled_from([None, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0])
PATIENCE = st.sampled_from([1000.0, 0.0, 0.5, 2.0, 10.0, 30.0])
SESSIONS = st.sampled_from([None, None, "a", "b", "c"])
AFFINITIES = st.sampled_from(["hint", "strict", "strict_nowait"])
PICK = st.integers(0, 7)
#: What a caller may do with a lease: end it, end it twice, make one up, find its worker unclean, try a worker.
ENDS = st.sampled_from([*Outcome, *Outcome, "twice", "foreign", "reject", "claim"])
ACTS = st.sampled_from(
    ["drain", "suspend", "resume", "forget", "measure", "grow", "shrink", "await", "await", "close", "kill"]
)

SIMULATED = simulated_settings()


class PoolCoreMachine(RuleBasedStateMachine):
    """Callers, workers, time and the administrator, in any order; the driver checks the books each time.

    Subclass it to draw other settings, or to put a core of your own under the rules by another driver.

    Few rules with a choice in each: choosing among many costs Hypothesis more than the pool's own work.
    """

    driver: PoolDriver

    def settings_of_pool(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy of the pool's settings."""
        return SIMULATED

    def make_driver(self, seed: int, settings: dict[str, Any]) -> PoolDriver:
        """Return the pool that the rules play with."""
        return PoolDriver(seed=seed, **settings)

    @initialize(
        options=st.runner().flatmap(lambda machine: machine.settings_of_pool()), seed=st.integers(0, 3)
    )
    def begin(self, options: dict[str, Any], seed: int) -> None:
        """Open the pool."""
        self.driver = self.make_driver(seed, options)
        self.leases: list[Granted] = []
        self.returned: list[Granted] = []
        self.waiters: list[int] = []
        #: Numbers of workers that somebody waits for to be ready.
        self.awaited: list[int] = []

    def _pick_up(self) -> None:
        """Take the leases and refusals that waiters got meanwhile."""
        for waiter in list(self.waiters):
            if waiter in self.driver.granted:
                self.leases.append(self.driver.granted[waiter])
                self.waiters.remove(waiter)
            elif waiter in self.driver.refused:
                self.waiters.remove(waiter)

    @staticmethod
    def _some(items: Any, pick: int) -> Any:
        items = list(items)
        return items[pick % len(items)] if items else None

    # --- callers ----------------------------------------------------------------------------------------

    @rule(session=SESSIONS, affinity=AFFINITIES, timeout=PATIENCE, wait=st.sampled_from([True, True, False]))
    def checkout(self, session: str | None, affinity: str, timeout: float, wait: bool) -> None:
        """Ask for a worker."""
        self._note(self.driver.checkout(session=session, affinity=affinity, timeout=timeout, wait=wait))

    def _note(self, answer: object) -> None:
        if isinstance(answer, Granted):
            self.leases.append(answer)
        elif isinstance(answer, int):
            self.waiters.append(answer)
        self._pick_up()

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        """Let a waiter leave, or somebody who is no waiter."""
        waiter = self._some(self.waiters, pick)
        assert self.driver.cancel(waiter or 10_000) == (waiter is not None)
        if waiter is not None:
            self.waiters.remove(waiter)

    @rule(pick=PICK, how=ENDS)
    def end_lease(self, pick: int, how: Outcome | str) -> None:
        """End a lease, as its holder may or may not."""
        if how == "claim":
            self._claim(pick)
        elif how == "foreign":
            self._return_in_vain(Granted(pick, 1000 + pick, 0.0))
        elif how == "twice":
            self._return_in_vain(self._some(self.returned, pick))
        elif lease := self._some(self.leases, pick):
            self.leases.remove(lease)
            self.returned.append(lease)
            if how == "reject":
                self._note(self.driver.reject(lease))
            else:
                self.driver.checkin(lease, Outcome(how))
                self._pick_up()

    def _claim(self, pick: int) -> None:
        lease = self.driver.state.claim(pick, self.driver.now)
        self.driver.settle()
        if lease is not None:
            self.leases.append(lease)

    def _return_in_vain(self, lease: Granted | None) -> None:
        if lease is None:
            return
        before = self.driver.state.statistics()
        assert not self.driver.checkin(lease)
        after: PoolStatistics = self.driver.state.statistics()
        after.counters.stale_notices -= 1
        assert after == before

    # --- workers ----------------------------------------------------------------------------------------

    @rule(pick=PICK, ok=st.sampled_from([True, True, False]))
    def finish_start(self, pick: int, ok: bool) -> None:
        """Let a start succeed or fail."""
        number = self._some(self.driver.starting, pick)
        if number is None:
            assert not self.driver.state.worker_started(999, self.driver.now)
        elif ok:
            self.driver.started(number)
        else:
            self.driver.start_failed(number)
        self._pick_up()

    @rule(pick=PICK, ok=st.booleans())
    def finish_ping_or_drain(self, pick: int, ok: bool) -> None:
        """Let a ping or a drain succeed or fail."""
        number = self._some([*self.driver.pinging, *self.driver.draining], pick)
        if number is None:
            assert not self.driver.state.ping_answered(999, self.driver.now)
            assert not self.driver.state.drained(999, self.driver.now)
        elif not ok:
            self.driver.failed(number)
        elif number in self.driver.pinging:
            self.driver.pinged(number)
        else:
            self.driver.drained(number)
        self._pick_up()

    @rule(pick=PICK)
    def reap(self, pick: int) -> None:
        """Let a retired worker be gone."""
        number = self._some(self.driver.ending, pick)
        if number is not None:
            self.driver.reap(number)
            self._pick_up()

    @rule(pick=PICK, dies=st.booleans())
    def break_worker(self, pick: int, dies: bool) -> None:
        """Let a worker die, or be found broken."""
        number = self._some(self.driver.state.workers, pick)
        if dies:
            assert self.driver.gone(number or 999) == (number is not None)
        else:
            self.driver.failed(number or 999, "broken")
        self._pick_up()

    # --- time and administration --------------------------------------------------------------------------

    @rule(seconds=SECONDS)
    def advance(self, seconds: float | None) -> None:
        """Let time pass; without a number, until the core wants to be woken."""
        driver = self.driver
        if seconds is None:
            seconds = max(0.0, driver.state.wake_at - driver.now) if driver.state.wake_at < 1e9 else 0.0
        driver.advance(seconds)
        # A timer too many does nothing but what is due.
        driver.state.tick(driver.now)
        driver.settle()
        self._pick_up()

    @rule(act=ACTS, pick=PICK)
    def administer(self, act: str, pick: int) -> None:
        """Do what an administrator may do."""
        state, now = self.driver.state, self.driver.now
        if act in ("close", "kill") and len(self.returned) > 3:
            (state.close if act == "close" else state.close_now)(now)
        elif act in ("drain", "suspend", "resume"):
            getattr(state, act)(now)
        elif act == "forget":
            state.forget_session("abcd"[pick % 4], now)
        elif act == "measure":
            state.memory_measured(self._some(state.workers, pick) or 999, 5000 * (pick % 2), now)
        elif act in ("grow", "shrink"):
            state.resize(max(1, state.pool_size + (1 if act == "grow" else -1)), now)
        elif act == "await":
            self._await(pick)
        self.driver.settle()
        self._pick_up()
        assert not (state.is_closed and self.waiters), "a closed pool keeps nobody waiting"

    def _await(self, pick: int) -> None:
        """Let somebody wait for some workers to be ready, or one who does so be off."""
        state, now = self.driver.state, self.driver.now
        if pick % 2 and self.awaited:
            state.stop_awaiting(self.awaited.pop(), now)
        elif not state.is_closed:
            self.awaited.append(1 + pick % state.pool_size)
            state.await_ready(self.awaited[-1], now)

    # --- the end ------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Heal the world: Q1 nobody waits and sizes are right, Q2 a checkout succeeds, Q3 closing ends all."""
        if not hasattr(self, "driver") or sys.exc_info()[0] is not None:
            return
        driver = self.driver
        while self.awaited:
            driver.state.stop_awaiting(self.awaited.pop(), driver.now)
        driver.auto = True
        driver.state.resume(driver.now)
        driver.answer_all()
        driver.settle()
        self._pick_up()
        # Longer than the longest back-off, and than an idle worker beyond pool_size may stay.
        driver.advance(31.0)
        while self.leases or self.waiters:
            self._pick_up()
            while self.leases:
                driver.checkin(self.leases.pop())
            driver.advance(1.0)
        driver.advance(31.0)
        if not driver.state.is_closed:
            check_steady(driver.state)
            answer = driver.checkout()
            assert isinstance(answer, Granted) or answer in driver.granted, "Q2: a healed pool lends"
        driver.state.close_now(driver.now)
        driver.settle()
        assert not driver.state.workers, "Q3: a closed pool has no worker"
