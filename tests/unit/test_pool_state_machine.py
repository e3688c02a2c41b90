"""The pool core under random commands: every invariant, after every step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dspex_pool.core.records import Granted, Outcome
from dspex_pool.lifecycle import WorkerState
from dspex_testkit.invariants import check_steady
from dspex_testkit.pool_driver import PoolDriver

pytestmark = pytest.mark.fast

# Times on a coarse grid, the pool's own among them: only so do events coincide.
GRID = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0])
SESSIONS = st.sampled_from([None, None, "a", "b", "c"])
PICK = st.integers(0, 7)

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
    """Callers, workers, time and the administrator, in any order; the driver checks the books each time."""

    driver: PoolDriver

    @initialize(options=OPTIONS, seed=st.integers(0, 3))
    def begin(self, options: dict[str, Any], seed: int) -> None:
        self.driver = PoolDriver(seed=seed, **options)
        self.leases: list[Granted] = []
        self.returned: list[Granted] = []
        self.waiters: list[int] = []
        self.order: list[int] = []

    def _settle_grants(self) -> None:
        """Pick up what was granted; I6: in order of arrival, among those whom any worker could serve."""
        for waiter in list(self.waiters):
            if waiter in self.driver.granted:
                self.leases.append(self.driver.granted[waiter])
                self.waiters.remove(waiter)
            elif waiter in self.driver.refused:
                self.waiters.remove(waiter)

    def _some(self, items: Any, pick: int) -> Any:
        items = list(items)
        return items[pick % len(items)] if items else None

    # --- callers ----------------------------------------------------------------------------------------

    @rule(
        session=SESSIONS,
        affinity=st.sampled_from(["hint", "strict", "strict_nowait"]),
        timeout=GRID,
        wait=st.sampled_from([True, True, True, False]),
    )
    def checkout(self, session: str | None, affinity: str, timeout: float, wait: bool) -> None:
        answer = self.driver.checkout(session=session, affinity=affinity, timeout=timeout, wait=wait)
        if isinstance(answer, Granted):
            self.leases.append(answer)
        elif isinstance(answer, int):
            self.waiters.append(answer)
        self._settle_grants()

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        waiter = self._some(self.waiters, pick)
        if waiter is None:
            assert not self.driver.cancel(10_000 + pick)
        else:
            assert self.driver.cancel(waiter)
            self.waiters.remove(waiter)

    @rule(pick=PICK, outcome=st.sampled_from(Outcome))
    def checkin(self, pick: int, outcome: Outcome) -> None:
        lease = self._some(self.leases, pick)
        if lease is not None:
            self.leases.remove(lease)
            self.returned.append(lease)
            self.driver.checkin(lease, outcome)
            self._settle_grants()

    @rule(pick=PICK, outcome=st.sampled_from(Outcome))
    def checkin_twice(self, pick: int, outcome: Outcome) -> None:
        lease = self._some(self.returned, pick)
        if lease is not None:
            before = self.driver.state.statistics()
            assert not self.driver.checkin(lease, outcome)
            assert self._same_but_stale(before)

    @rule(number=st.integers(0, 30), token=st.integers(1000, 1100))
    def checkin_foreign(self, number: int, token: int) -> None:
        before = self.driver.state.statistics()
        assert not self.driver.checkin(Granted(number, token, 0.0))
        assert self._same_but_stale(before)

    def _same_but_stale(self, before: Any) -> bool:
        after = self.driver.state.statistics()
        after.counters.stale_notices = before.counters.stale_notices
        return bool(after == before)

    @rule(pick=PICK)
    def reject(self, pick: int) -> None:
        lease = self._some(self.leases, pick)
        if lease is not None:
            self.leases.remove(lease)
            self.returned.append(lease)
            self.driver.state.reject(lease, self.driver.now, "unread_bytes")
            self.driver.settle()
            self._settle_grants()

    @rule(pick=PICK)
    def claim(self, pick: int) -> None:
        lease = self.driver.state.claim(pick, self.driver.now)
        self.driver.settle()
        if lease is not None:
            self.leases.append(lease)

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
        self._settle_grants()

    @rule(pick=PICK)
    def exit(self, pick: int) -> None:
        number = self._some(self.driver.state.workers, pick)
        assert self.driver.gone(number if number is not None else 999) == (number is not None)
        self._settle_grants()

    @rule(pick=PICK)
    def reap(self, pick: int) -> None:
        number = self._some(self.driver.ending, pick)
        if number is not None:
            self.driver.reap(number)
            self._settle_grants()

    @rule(pick=PICK, ok=st.booleans())
    def finish_ping(self, pick: int, ok: bool) -> None:
        number = self._some(self.driver.pinging, pick)
        if number is None:
            assert not self.driver.state.ping_answered(999, self.driver.now)
        elif ok:
            self.driver.pinged(number)
        else:
            self.driver.failed(number)
        self._settle_grants()

    @rule(pick=PICK, ok=st.booleans())
    def finish_drain(self, pick: int, ok: bool) -> None:
        number = self._some(self.driver.draining, pick)
        if number is None:
            assert not self.driver.state.drained(999, self.driver.now)
        elif ok:
            self.driver.drained(number)
        else:
            self.driver.failed(number, "reset_failed")
        self._settle_grants()

    @rule(pick=PICK)
    def fail(self, pick: int) -> None:
        number = self._some(self.driver.state.workers, pick)
        if number is not None:
            self.driver.failed(number, "broken")
            self._settle_grants()

    @rule(pick=PICK, size=st.sampled_from([10, 5000]))
    def measure_memory(self, pick: int, size: int) -> None:
        number = self._some(self.driver.state.workers, pick)
        self.driver.state.memory_measured(number if number is not None else 999, size, self.driver.now)
        self.driver.settle()

    # --- time -------------------------------------------------------------------------------------------

    @rule(seconds=GRID)
    def advance(self, seconds: float) -> None:
        self.driver.advance(seconds)
        self._settle_grants()

    @rule()
    def fire_next_timer(self) -> None:
        at = self.driver.state.wake_at
        if at != float("inf"):
            self.driver.advance(max(0.0, at - self.driver.now))
            self._settle_grants()

    @rule()
    def fire_stale_timer(self) -> None:
        self.driver.state.tick(self.driver.now)
        self.driver.settle()
        self._settle_grants()

    # --- administration -----------------------------------------------------------------------------------

    @rule(size=st.integers(1, 4))
    def resize(self, size: int) -> None:
        self.driver.state.resize(size, self.driver.now)
        self.driver.settle()
        self._settle_grants()

    @rule()
    def drain(self) -> None:
        self.driver.state.drain(self.driver.now)
        self.driver.settle()

    @rule()
    def suspend(self) -> None:
        self.driver.state.suspend(self.driver.now)
        self.driver.settle()

    @rule()
    def resume(self) -> None:
        self.driver.state.resume(self.driver.now)
        self.driver.settle()
        self._settle_grants()

    @rule(session=st.sampled_from(["a", "b", "c", "never seen"]))
    def forget_session(self, session: str) -> None:
        self.driver.state.forget_session(session)
        assert self.driver.state.worker_of(session) is None
        self.driver.settle()

    @precondition(lambda self: len(self.returned) > 3)
    @rule(now=st.booleans())
    def close(self, now: bool) -> None:
        if now:
            self.driver.state.close_now(self.driver.now)
        else:
            self.driver.state.close(self.driver.now)
        self.driver.settle()
        self._settle_grants()
        assert not self.waiters, "a closed pool keeps nobody waiting"

    # --- the end ------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Heal the world: Q1 nobody waits and sizes are right, Q2 a checkout succeeds, Q3 closing ends all."""
        if not hasattr(self, "driver"):
            return
        driver = self.driver
        driver.auto = True
        driver.state.resume(driver.now)
        driver._answer_all()
        driver.settle()
        for _ in range(20):
            self._settle_grants()
            for lease in self.leases:
                driver.checkin(lease)
            self.leases.clear()
            driver.advance(60.0)
        if not driver.state.is_closed:
            check_steady(driver.state)
            answer = driver.checkout()
            assert isinstance(answer, Granted) or answer in driver.granted, "Q2: a healed pool lends"
        driver.state.close_now(driver.now)
        driver.settle()
        assert not driver.state.workers, "Q3: a closed pool has no worker"
        assert all(record is not WorkerState.LEASED for record in driver.gauges), "Q3"


@pytest.mark.budget(4.0)
def test_core_keeps_every_invariant_under_random_commands(pool_steps: int) -> None:
    """Any order of commands keeps I1 to I16 after each step and Q1 to Q3 at the end. [property 35]"""
    run_state_machine_as_test(PoolMachine)
