"""The gauges are the sum of the events."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.config import PoolOptions
from dspex_pool.core.records import Counters, Emit, Grant, Granted, Outcome, Waiter
from dspex_pool.pool_state import PoolState
from dspex_pool.telemetry import PREFIX, GaugeLedger, Telemetry, problem_with
from dspex_testkit.pool_driver import PoolDriver
from tests.cases import case
from tests.search_profiles import depth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.fast


def move(
    ledger: GaugeLedger, name: str, number: int, left: str | None, to: str | None, **metadata: Any
) -> None:
    """Tell ``ledger`` that a worker moved from one state to another."""
    where = {"worker_id": f"w-{number}", "incarnation": number, "from": left, "to": to}
    ledger((*PREFIX, name), {}, where | metadata)


def tell(ledger: GaugeLedger, name: str, **metadata: Any) -> None:
    """Tell ``ledger`` of an event that moves no worker."""
    ledger((*PREFIX, name), {}, metadata)


# --- one event at a time -----------------------------------------------------------------------------


def test_ledger_follows_a_worker_through_its_life() -> None:
    """A worker is counted in exactly one state from its start until it is reaped."""
    ledger = GaugeLedger()
    move(ledger, "worker_starting", 1, None, "starting")
    assert +ledger.by_state == {"starting": 1}
    move(ledger, "worker_started", 1, "starting", "idle")
    move(ledger, "checkout", 1, "idle", "leased", queued=False)
    assert +ledger.by_state == {"leased": 1}
    move(ledger, "checkin", 1, "leased", "idle", outcome="clean")
    move(ledger, "worker_retiring", 1, "idle", "retiring", reason="max_uses")
    assert (+ledger.by_state, ledger.processes) == ({"retiring": 1}, 1)
    move(ledger, "worker_retired", 1, "retiring", "dead", reason="max_uses")
    assert (+ledger.by_state, ledger.processes) == ({}, 0)
    assert +ledger.counters == dict.fromkeys(("starts", "started", "granted", "returned", "reaped"), 1)
    assert ledger.retired_by_reason == {"max_uses": 1}
    assert ledger.contradictions == []


def test_ledger_counts_the_line() -> None:
    """A caller in line leaves it by a grant, a timeout, a refusal or its own cancellation."""
    ledger = GaugeLedger()
    for _ in range(5):
        tell(ledger, "waiting")
    assert (ledger.waiting, ledger.attempts) == (5, 5)
    tell(ledger, "cancelled")
    tell(ledger, "timeout", reason="timeouts", queued=True)
    tell(ledger, "rejected", reason="closed", queued=True)
    tell(ledger, "checkout", queued=True)
    assert (ledger.waiting, ledger.attempts) == (1, 5)
    assert ledger.counters["granted_after_wait"] == 1


def test_ledger_keeps_the_line_when_a_caller_was_never_in_it() -> None:
    """What is granted or refused at once does not shorten the line."""
    ledger = GaugeLedger()
    tell(ledger, "waiting")
    tell(ledger, "checkout", queued=False)
    tell(ledger, "rejected", reason="overloaded", queued=False)
    tell(ledger, "timeout", reason="timeouts", queued=False)
    assert (ledger.waiting, ledger.attempts) == (1, 4)


def test_ledger_takes_a_declined_checkout_back() -> None:
    """A worker that turned out not to be clean was not granted."""
    ledger = GaugeLedger()
    tell(ledger, "checkout", queued=False)
    tell(ledger, "checkout_declined", reason="unread bytes")
    assert (ledger.counters["granted"], ledger.attempts) == (0, 0)


def test_ledger_counts_no_start_that_succeeded_as_failed() -> None:
    """A worker that died soon after its start, unused, was a failed start in the ledger and not in the books."""
    driver, ledger = PoolDriver.ready(), GaugeLedger()
    driver.gone(1)
    driver.advance(30.0)
    driver.start_failed()
    for told in driver.events:
        ledger((*PREFIX, told.name), told.measurements, told.metadata)
    assert ledger.events["worker_start_failed"] == 2
    assert ledger.counters["start_failures"] == driver.state.statistics().counters.start_failures == 1


def test_ledger_counts_restarts_by_reason() -> None:
    """It can be seen why workers had to be replaced."""
    ledger = GaugeLedger()
    for reason in ("died", "died", "max_rss"):
        tell(ledger, "worker_restarted", reason=reason)
    assert ledger.restarts_by_reason == {"died": 2, "max_rss": 1}


def test_ledger_notes_what_the_pool_as_a_whole_does() -> None:
    """Suspension, the breaker and closing show; closing ends a suspension."""
    ledger = GaugeLedger()
    for name in ("suspended", "breaker_opened"):
        tell(ledger, name)
    assert (ledger.is_suspended, ledger.is_circuit_open, ledger.is_closed) == (True, True, False)
    for name in ("resumed", "breaker_closed", "suspended", "closing"):
        tell(ledger, name)
    assert (ledger.is_suspended, ledger.is_circuit_open, ledger.is_closed) == (False, False, True)


def test_ledger_finds_a_contradiction_when_it_missed_an_event() -> None:
    """A move from a state that the worker was not in is told, and the worker is counted once even so."""
    ledger = GaugeLedger()
    move(ledger, "worker_starting", 1, None, "starting")
    move(ledger, "checkout", 1, "idle", "leased", queued=False)
    assert ledger.contradictions == ["checkout: worker 1 left idle, but was starting"]
    assert +ledger.by_state == {"leased": 1}


def test_ledger_finds_a_contradiction_when_nobody_was_in_line() -> None:
    """A line that becomes shorter than empty is told, and never counted below zero."""
    ledger = GaugeLedger()
    tell(ledger, "cancelled")
    assert (ledger.waiting, len(ledger.contradictions)) == (0, 1)


def test_contradictions_are_bounded() -> None:
    """A ledger that was attached too late does not grow with the age of the pool."""
    ledger = GaugeLedger()
    for _ in range(1_000):
        tell(ledger, "cancelled")
    assert len(ledger.contradictions) == 100


def test_ledger_ignores_events_that_are_no_pool_events() -> None:
    """Events of others are counted by name and change nothing else."""
    ledger = GaugeLedger()
    ledger(("mine", "tick"), {}, {})
    assert ledger.events == {"tick": 1}
    assert not ledger.counters


# --- against the pool's own books --------------------------------------------------------------------


class RandomPool:
    """A pool state to which random things happen, with a ledger that hears its events only."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.now = 0.0
        self.ledger = GaugeLedger()
        self.problems: list[str] = []
        self._telemetry = Telemetry()
        self._telemetry.attach(PREFIX, self.ledger)
        self._telemetry.attach(PREFIX, self._check)
        options = PoolOptions(
            pool_size=3,
            max_overflow=1,
            max_waiting=4,
            max_uses=5,
            max_sessions=3,
            checkout_timeout=5.0,
            health_check_interval=4.0,
            ping_timeout=2.0,
            idle_timeout=9.0,
            lease_timeout=20.0,
            leak_warning_after=10.0,
            breaker_after=3.0,
            session_ttl=15.0,
        )
        self.state = PoolState(options, random=self._random)
        self._leases: list[Granted] = []
        self._waiters: list[int] = []
        self.state.open(self.now)
        self._settle()

    def _check(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        problem = problem_with(event, measurements, metadata)
        if problem is not None:
            self.problems.append(problem)

    def step(self) -> None:
        """Let one random thing happen."""
        things: list[Callable[[], object]] = [
            self._checkout,
            self._checkout,
            self._checkout,
            self._checkin,
            self._checkin,
            self._cancel,
            self._tick,
            self._tell_of_a_worker,
            self._tell_of_a_worker,
            self._tell_of_a_worker,
            self._tell_of_the_pool,
        ]
        self._random.choice(things)()
        self._settle()

    def close(self) -> None:
        """Close the pool and bury its workers."""
        self.state.close(self.now)
        self._settle()
        self.state.close_now(self.now)
        for number in list(self.state.workers):
            self.state.worker_gone(number, self.now, exit_text="exit status 0")
        self._settle()

    def _settle(self) -> None:
        for decision in self.state.decisions():
            if isinstance(decision, Emit):
                self._telemetry.emit(decision.name, decision.measurements, decision.metadata)
            elif isinstance(decision, Grant):
                self._waiters.remove(decision.waiter)
                self._leases.append(decision.lease)

    def _checkout(self) -> None:
        got = self.state.checkout(
            self.now,
            deadline=self.now + self._random.choice([0.0, 5.0]),
            session=self._random.choice([None, "a", "b", "c", "d"]),
            affinity=self._random.choice(["hint", "hint", "strict", "strict_nowait"]),
            wait=self._random.random() < 0.9,
        )
        if isinstance(got, Granted):
            self._leases.append(got)
        elif isinstance(got, Waiter):
            self._waiters.append(got.number)

    def _checkin(self) -> None:
        if self._leases:
            lease = self._leases.pop(self._random.randrange(len(self._leases)))
            if self._random.random() < 0.1:
                self.state.reject(lease, self.now, "unread bytes")
            else:
                self.state.checkin(lease, self.now, self._random.choice(list(Outcome)))

    def _cancel(self) -> None:
        if self._waiters:
            self.state.cancel_waiter(self._random.choice(self._waiters), self.now)

    def _tick(self) -> None:
        self.now += self._random.choice([0.1, 1.0, 5.0])
        self.state.tick(self.now)

    def _tell_of_a_worker(self) -> None:
        if not self.state.workers:
            return
        number = self._random.choice(list(self.state.workers))
        facts: list[Callable[[], object]] = [
            lambda: self.state.worker_started(number, self.now),
            lambda: self.state.worker_started(number, self.now),
            lambda: self.state.worker_gone(number, self.now, exit_text="exit status 1"),
            lambda: self.state.worker_failed(number, self.now, "broken pipe"),
            lambda: self.state.drained(number, self.now),
            lambda: self.state.ping_answered(number, self.now),
        ]
        self._random.choice(facts)()

    def _tell_of_the_pool(self) -> None:
        facts: list[Callable[[], object]] = [
            lambda: self.state.resize(self._random.randint(1, 4), self.now),
            lambda: self.state.drain(self.now),
            lambda: self.state.suspend(self.now),
            lambda: self.state.resume(self.now),
            lambda: self.state.resume(self.now),
        ]
        self._random.choice(facts)()


def assert_ledger_agrees(pool: RandomPool) -> None:
    """Compare every gauge and outcome of the ledger with the pool's own."""
    statistics, ledger = pool.state.statistics(), pool.ledger
    assert pool.problems == []
    assert ledger.contradictions == []
    for state in ("starting", "idle", "pinging", "leased", "draining", "retiring"):
        assert ledger.by_state[state] == getattr(statistics, state), state
    assert ledger.waiting == statistics.waiting
    assert ledger.is_suspended == statistics.suspended
    assert ledger.is_circuit_open == statistics.circuit_open
    assert ledger.is_closed == statistics.closed
    for counter in Counters.__dataclass_fields__.keys() - {"attempts", "stale_notices"}:
        assert ledger.counters[counter] == getattr(statistics.counters, counter), counter
    assert ledger.attempts == statistics.counters.attempts


def test_sum_of_the_events_is_the_books_of_the_pool() -> None:
    """After every step of a random story, the ledger and the pool's books say the same."""
    for seed in range(depth(4, 100)):
        with case(seed):
            pool = RandomPool(seed)
            for _ in range(150):
                pool.step()
                assert_ledger_agrees(pool)
            pool.close()
            assert_ledger_agrees(pool)
            assert pool.ledger.processes == 0
            assert pool.ledger.waiting == 0
