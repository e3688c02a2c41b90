"""A pool without processes and without a loop: it carries out the core's decisions in plain memory.

Tests say what happens (a start succeeds, a worker dies, time passes), the driver answers for the rest of the world
and checks the invariants after every step.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from dspex_pool.config import PoolOptions
from dspex_pool.core.records import (
    Decision,
    Drain,
    Emit,
    Grant,
    Granted,
    Outcome,
    Ping,
    Refuse,
    Retire,
    Start,
    Waiter,
    WorkerRecord,
)
from dspex_pool.errors import DspexPoolError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.pool_state import PoolState
from dspex_testkit.invariants import check_books, check_timers

__all__ = ["PoolDriver"]


class PoolDriver:
    """A pool core with a world around it that the test controls.

    Args:
        auto: Whether starts, pings, drains and ends succeed at once by themselves.
        seed: Seed of the back-off's spread.
        options: Settings, as for ``PoolOptions``.
    """

    def __init__(self, *, auto: bool = False, seed: int = 0, **options: Any) -> None:
        self.auto = auto
        self.now = 0.0
        self.state = PoolState(PoolOptions(**options), random=random.Random(seed))
        #: Workers whose start, ping, drain or end is being carried out.
        self.starting: list[int] = []
        self.pinging: list[int] = []
        self.draining: list[int] = []
        self.ending: dict[int, str] = {}
        #: Leases by waiter, and errors by waiter, in the order they came.
        self.granted: dict[int, Granted] = {}
        self.refused: dict[int, DspexPoolError] = {}
        #: Who stood or stands in line, by number.
        self.places: dict[int, Waiter] = {}
        #: Retirements asked for: (worker, reason, polite).
        self.retirements: list[tuple[int, str, bool]] = []
        #: Start times of all starts.
        self.start_times: list[float] = []
        self.events: list[Emit] = []
        self.gauges: Counter[str] = Counter()
        self._processes = 0
        #: The floor at the last look: a fact may start what was missing and lower the floor at once.
        self._floor = 0
        #: Workers found broken in a caller's hands.
        self._broken: set[int] = set()
        #: Sessions that were served as strict since they were bound, and when each session was last served.
        self._strict: set[str] = set()
        self._served: dict[str, float] = {}
        #: Sessions that were just bound, and those that a lease has bound, by its token.
        self._bound: set[str] = set()
        self._bound_by: dict[int, str] = {}
        #: What the callers asked for who were served at once, by the token of their lease.
        self._asked: dict[int, dict[str, Any]] = {}
        self._start_failures = 0
        #: Whether the pool has told that it has a worker in service.
        self._is_ready = False
        self.state.open(self.now)
        self.settle()

    @classmethod
    def ready(cls, pool_size: int = 1, **options: Any) -> PoolDriver:
        """Return a pool whose workers are all idle; from then on the test answers for the world."""
        driver = cls(auto=True, **{"pool_size": pool_size, "health_check_interval": None} | options)
        driver.auto = False
        return driver

    # --- what callers do ----------------------------------------------------------------------------------

    def checkout(self, *, timeout: float = 1000.0, **asked: Any) -> Granted | int | DspexPoolError:
        """Ask for a worker: a lease, the waiter's number, or the error."""
        state, session = self.state, asked.get("session")
        bound, idle, line = state.worker_of(session) if session else None, list(state._idle), len(state._line)
        answer = state.checkout(self.now, deadline=self.now + timeout, **asked)
        if isinstance(answer, Waiter):
            self.places[answer.number] = answer
            most = state.options.max_waiting
            assert most is None or line < most or "place" in asked, "max_waiting callers waited already"
        elif isinstance(answer, Granted):
            assert not state.is_suspended, "a suspended pool lends"
            is_free = any(record.number == bound for record in idle)
            assert not is_free or answer.number == bound, "the session's own worker was idle"
        self.settle()
        if isinstance(answer, Granted):
            self._asked[answer.token] = asked
            self._note_service(session, answer, strict=asked.get("affinity", "hint") != "hint")
        return answer.number if isinstance(answer, Waiter) else answer

    def _note_service(self, session: str | None, lease: Granted, *, strict: bool) -> None:
        if session is None:
            return
        self._served[session] = self.now
        if session in self._bound:
            self._bound.remove(session)
            self._bound_by[lease.token] = session
        if strict:
            self._strict.add(session)
            home = self.state.worker_of(session)
            assert home in (None, lease.number), "a strict session is served by a worker that is not its own"

    def lease(self, **asked: Any) -> Granted:
        """Ask for a worker that must be granted at once."""
        answer = self.checkout(**asked)
        assert isinstance(answer, Granted), answer
        return answer

    def wait(self, **asked: Any) -> int:
        """Ask for a worker that must not be free, and return the waiter's number."""
        answer = self.checkout(**asked)
        assert isinstance(answer, int), answer
        return answer

    def refusal(self, **asked: Any) -> DspexPoolError:
        """Ask for a worker that must be refused at once."""
        answer = self.checkout(**asked)
        assert isinstance(answer, DspexPoolError), answer
        return answer

    def checkin(self, lease: Granted, outcome: Outcome = Outcome.CLEAN, reason: str = "caller") -> bool:
        """Return a lease."""
        record = self.state.workers.get(lease.number)
        uses = record.uses if record is not None else 0
        if outcome is Outcome.VOID:
            self._strict.discard(self._bound_by.get(lease.token, ""))
        accepted = self.state.checkin(lease, self.now, outcome, reason)
        if outcome in (Outcome.UNUSED, Outcome.VOID) and record is not None:
            assert record.uses == uses, "a lease without a request counts as a use"
        self.settle()
        return accepted

    def reject(self, lease: Granted) -> Granted | int | DspexPoolError | None:
        """Find a worker unclean right after its grant; the caller asks again, from its place if it had one.

        Returns:
            What ``checkout`` returns; ``None`` if the lease was not live.
        """
        # A session that was bound by this very grant has lost nothing.
        self._strict.discard(self._bound_by.get(lease.token, ""))
        known = self.state.reject(lease, self.now, "unread_bytes")
        # The books are looked at when the caller has asked again: nobody can come between.
        self._carry_out_all()
        if not known:
            self.settle()
            return None
        number = next((number for number, other in self.granted.items() if other is lease), 0)
        self.granted.pop(number, None)
        place = self.places.get(number)
        if place is None:
            return self.checkout(**self._asked.get(lease.token, {}))
        affinity = "strict_nowait" if place.nowait else "strict" if place.strict else "hint"
        return self.checkout(place=place, session=place.session, affinity=affinity)

    def cancel(self, waiter: int) -> bool:
        """Let a waiter's caller leave."""
        known = self.state.cancel_waiter(waiter, self.now)
        self.settle()
        return known

    # --- what the world does ------------------------------------------------------------------------------

    def started(self, number: int | None = None) -> int:
        """Let a start succeed; the oldest one unless named."""
        number = self._pick(self.starting, number)
        self.state.worker_started(number, self.now)
        self.settle()
        return number

    def start_failed(self, number: int | None = None, error: BaseException | None = None) -> int:
        """Let a start fail; the process is reaped at once."""
        number = self._pick(self.starting, number)
        self.gone(number, error=error or OSError("no such worker"))
        return number

    def gone(self, number: int, error: BaseException | None = None) -> bool:
        """Let a worker's process end and be reaped, whatever it was doing."""
        for waiting in (self.starting, self.pinging, self.draining):
            if number in waiting:
                waiting.remove(number)
        self.ending.pop(number, None)
        known = self.state.worker_gone(number, self.now, error=error)
        self.settle()
        return known

    def reap(self, number: int | None = None) -> int:
        """Let the end of a retired worker be complete; the oldest one unless named."""
        number = next(iter(self.ending)) if number is None else number
        self.gone(number)
        return number

    def pinged(self, number: int | None = None) -> int:
        """Let a ping be answered."""
        number = self._pick(self.pinging, number)
        self.state.ping_answered(number, self.now)
        self.settle()
        return number

    def drained(self, number: int | None = None) -> int:
        """Let a worker in care be proven clean."""
        number = self._pick(self.draining, number)
        self.state.drained(number, self.now)
        self.settle()
        return number

    def failed(self, number: int, reason: str = "ping_failed") -> bool:
        """Report that a worker must leave service."""
        for waiting in (self.starting, self.pinging, self.draining):
            if number in waiting:
                waiting.remove(number)
        if number in self.in_state(WorkerState.LEASED):
            self._broken.add(number)
        known = self.state.worker_failed(number, self.now, reason)
        self.settle()
        return known

    def advance(self, seconds: float) -> None:
        """Let time pass; the core is woken whenever it asks to be."""
        until = self.now + seconds
        ticks = 0
        while self.state.wake_at <= until:
            self.now = max(self.now, self.state.wake_at)
            self.state.tick(self.now)
            self.settle()
            ticks += 1
            assert ticks < 1000 + 100 * seconds, f"the core asks to be woken without end at {self.now}"
        self.now = until

    # --- reading ------------------------------------------------------------------------------------------

    def record(self, number: int) -> WorkerRecord:
        """Return the core's record of a worker."""
        return self.state.workers[number]

    def in_state(self, state: WorkerState) -> list[int]:
        """Return the workers in ``state``, oldest first."""
        return [number for number, record in self.state.workers.items() if record.state is state]

    def names(self) -> list[str]:
        """Return the names of all events so far."""
        return [event.name for event in self.events]

    # --- carrying out -------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Carry out the decisions made, then check the books and the gauges."""
        self._carry_out_all()
        check_books(self.state, processes_before=self._processes)
        check_timers(self.state, self.now)
        self._processes, self._floor = len(self.state.workers), self.state.floor
        self._check_gauges()
        assert not any(record.number in self._broken for record in self.state._idle), (
            "I13: a broken worker is idle"
        )
        assert self.state._starts.failures <= self._start_failures, "what failed was no start"
        assert self._is_ready is bool(self.state.ready_count), "nobody was told of the first or last worker"

    def _carry_out_all(self) -> None:
        while self.state.outbox:
            for decision in self.state.decisions():
                self._carry_out(decision)
            if self.auto:
                self.answer_all()

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Start(number, _):
                self._expect_need()
                self.starting.append(number)
                self.start_times.append(self.now)
            case Grant(waiter, lease):
                self._expect_no_outcome(waiter)
                first = self.state._line.first_for(lease.number)
                assert first is None or first.number > waiter, "I6: somebody was overtaken"
                self.granted[waiter] = lease
                place = self.places.get(waiter)
                if place is not None:
                    self._note_service(place.session, lease, strict=place.strict)
            case Refuse(waiter, error):
                self._expect_no_outcome(waiter)
                self.refused[waiter] = error
            case Ping(number):
                self.pinging.append(number)
            case Drain(number):
                self.draining.append(number)
            case Retire(number, reason, polite):
                self._begin_end(number, reason, polite=polite)
            case Emit():
                self.events.append(decision)
                self._add_up(decision)
                self._judge(decision)

    def _judge(self, event: Emit) -> None:
        session: Any = event.metadata.get("session")
        match event.name:
            case "worker_start_failed":
                self._start_failures += 1
            case "ready" | "unready":
                assert self._is_ready is (event.name == "unready"), "it was told before"
                self._is_ready = not self._is_ready
            case "breaker_opened":
                assert not self.state.ready_count, "the breaker opens while a worker is in service"
                assert not self.state.is_closed, "the breaker of a closed pool opens"
            case "session_bound":
                self._strict.discard(session)
                self._bound.add(session)
            case "session_moved":
                assert session not in self._strict, "a strict session moves without a word"
            case "session_unbound":
                ends = self._served.get(session, 0.0) + (self.state.options.session_ttl or 0.0)
                assert ends <= self.now, "a session in use expires"

    def _expect_need(self) -> None:
        if self.auto:
            # Several facts at once: the need may have gone between the decision and this look at it.
            return
        state = self.state
        unserved = max(0, state._line.open_count - len(state._idle))
        missing = max(0, max(self._floor, state.floor) - state.ready_count)
        probe = int(state._starts.is_open)
        starting = state._tally[WorkerState.STARTING]
        assert starting <= max(unserved + missing, probe), "I5: a start that nobody needs"

    def _expect_no_outcome(self, waiter: int) -> None:
        assert waiter not in self.granted, "I8: a second outcome after a grant"
        assert waiter not in self.refused, "I8: a second outcome after a refusal"

    def _begin_end(self, number: int, reason: str, *, polite: bool) -> None:
        assert number not in self.ending, f"I9: worker {number} is ended twice"
        for waiting in (self.starting, self.pinging, self.draining):
            if number in waiting:
                waiting.remove(number)
        if reason == "idle_timeout" and not self.auto:
            assert self.state.ready_count >= self.state.floor, (
                "an idle worker goes although the floor needs it"
            )
        self.retirements.append((number, reason, polite))
        if number in self.state.workers:
            self.ending[number] = reason

    def answer_all(self) -> None:
        for number in list(self.starting):
            self._pick(self.starting, number)
            self.state.worker_started(number, self.now)
        for number in list(self.pinging):
            self._pick(self.pinging, number)
            self.state.ping_answered(number, self.now)
        for number in list(self.draining):
            self._pick(self.draining, number)
            self.state.drained(number, self.now)
        for number in list(self.ending):
            del self.ending[number]
            self.state.worker_gone(number, self.now)

    @staticmethod
    def _pick(waiting: list[int], number: int | None) -> int:
        number = waiting[0] if number is None else number
        if number in waiting:
            waiting.remove(number)
        return number

    def _add_up(self, event: Emit) -> None:
        for side, step in (("from", -1), ("to", 1)):
            if event.metadata.get(side) is not None:
                self.gauges[event.metadata[side]] += step
        if event.name == "waiting":
            self.gauges["waiting"] += 1
        elif event.name == "cancelled" or event.metadata.get("queued"):
            self.gauges["waiting"] -= 1

    def _check_gauges(self) -> None:
        """I10: each gauge is the sum of the events."""
        tally, gauges = self.state._tally, self.gauges
        for state in _GAUGES:
            assert gauges[state.value] == tally[state], f"I10: events and gauge of {state.value} differ"
        assert gauges["waiting"] == len(self.state._line), "I10: events and the line differ"


_GAUGES = tuple(state for state in WorkerState if state is not WorkerState.DEAD)
