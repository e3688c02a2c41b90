"""The pool core under random commands: every invariant, after every step."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from dspex_pool.core.records import Granted, Outcome, PoolStatistics
from dspex_testkit.invariants import check_steady
from dspex_testkit.pool_driver import PoolDriver
from tests.search_profiles import chosen

pytestmark = pytest.mark.fast

# Times on a coarse grid, the pool's own among them: only so do events coincide. None: until the next timer.
SECONDS = st.sampled_from([None, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0])
PATIENCE = st.sampled_from([1000.0, 0.0, 0.5, 2.0, 10.0, 30.0])
SESSIONS = st.sampled_from([None, None, "a", "b", "c"])
AFFINITIES = st.sampled_from(["hint", "strict", "strict_nowait"])
PICK = st.integers(0, 7)
#: What a caller may do with a lease: end it, end it twice, make one up, find its worker unclean, try a worker.
ENDS = st.sampled_from([*Outcome, *Outcome, "twice", "foreign", "reject", "claim"])
ACTS = st.sampled_from(["drain", "suspend", "resume", "forget", "measure", "grow", "shrink", "close", "kill"])

OPTIONS = st.fixed_dictionaries(
    {"pool_size": st.integers(1, 3), "lazy": st.booleans()},
    optional={
        "max_overflow": st.integers(1, 2),
        "overflow_ttl": st.just(5.0),
        "min_idle": st.integers(0, 1),
        "max_starting": st.integers(1, 3),
        "spawn_timeout": st.just(10.0),
        "breaker_after": st.sampled_from([2.0, 10.0]),
        "max_waiting": st.integers(1, 3),
        "codel_target": st.just(1.0),
        "idle_order": st.sampled_from(["lifo", "fifo"]),
        "health_check_interval": st.just(10.0),
        "max_idle_pings": st.just(1),
        "idle_timeout": st.just(5.0),
        "max_lifetime": st.just((30.0, 60.0)),
        "max_uses": st.integers(1, 3),
        "max_rss_bytes": st.just(1000),
        "lease_timeout": st.just(10.0),
        "leak_warning_after": st.just(5.0),
        "cancel_grace": st.just(2.0),
        "max_sessions": st.integers(1, 2),
        "session_ttl": st.just(10.0),
    },
)


class PoolMachine(RuleBasedStateMachine):
    """Callers, workers, time and the administrator, in any order; the driver checks the books each time.

    Few rules with a choice in each: choosing among many costs Hypothesis more than the pool's own work.
    """

    driver: PoolDriver

    @initialize(options=OPTIONS, seed=st.integers(0, 3))
    def begin(self, options: dict[str, Any], seed: int) -> None:
        self.driver = PoolDriver(seed=seed, **options)
        self.leases: list[Granted] = []
        self.returned: list[Granted] = []
        self.waiters: list[int] = []

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
        self._note(self.driver.checkout(session=session, affinity=affinity, timeout=timeout, wait=wait))

    def _note(self, answer: object) -> None:
        if isinstance(answer, Granted):
            self.leases.append(answer)
        elif isinstance(answer, int):
            self.waiters.append(answer)
        self._pick_up()

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        waiter = self._some(self.waiters, pick)
        assert self.driver.cancel(waiter or 10_000) == (waiter is not None)
        if waiter is not None:
            self.waiters.remove(waiter)

    @rule(pick=PICK, how=ENDS)
    def end_lease(self, pick: int, how: Outcome | str) -> None:
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
        number = self._some(self.driver.ending, pick)
        if number is not None:
            self.driver.reap(number)
            self._pick_up()

    @rule(pick=PICK, dies=st.booleans())
    def break_worker(self, pick: int, dies: bool) -> None:
        number = self._some(self.driver.state.workers, pick)
        if dies:
            assert self.driver.gone(number or 999) == (number is not None)
        else:
            self.driver.failed(number or 999, "broken")
        self._pick_up()

    # --- time and administration --------------------------------------------------------------------------

    @rule(seconds=SECONDS)
    def advance(self, seconds: float | None) -> None:
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
        state, now = self.driver.state, self.driver.now
        if act in ("close", "kill") and len(self.returned) > 3:
            (state.close if act == "close" else state.close_now)(now)
        elif act in ("drain", "suspend", "resume"):
            getattr(state, act)(now)
        elif act == "forget":
            state.forget_session("abcd"[pick % 4])
            assert state.worker_of("abcd"[pick % 4]) is None
        elif act == "measure":
            state.memory_measured(self._some(state.workers, pick) or 999, 5000 * (pick % 2), now)
        elif act in ("grow", "shrink"):
            state.resize(max(1, state.pool_size + (1 if act == "grow" else -1)), now)
        self.driver.settle()
        self._pick_up()
        assert not (state.is_closed and self.waiters), "a closed pool keeps nobody waiting"

    # --- the end ------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Heal the world: Q1 nobody waits and sizes are right, Q2 a checkout succeeds, Q3 closing ends all."""
        if not hasattr(self, "driver") or sys.exc_info()[0] is not None:
            return
        driver = self.driver
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


@pytest.mark.budget(0.6)
def test_core_keeps_every_invariant_under_random_commands() -> None:
    """Any order of commands keeps I1 to I16 after each step and Q1 to Q3 at the end. [property 35]"""
    run_state_machine_as_test(PoolMachine, settings=chosen())
