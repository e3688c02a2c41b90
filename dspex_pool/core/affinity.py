"""Which session belongs to which worker incarnation."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["AffinityTable"]

#: How exactly uses are noted: as a part of the time to live, and in seconds at most. To move one session among many,
#: which lie apart in memory, takes as long as to find it.
_GRAIN, _MAX_GRAIN_S = 1 / 64, 60.0


@dataclass(slots=True)
class _Binding:
    worker: int
    strict: bool
    last_used: float


class AffinityTable:
    """Sessions bound to worker incarnations, least recently used first; bounded in count and age.

    Uses are noted to within a grain of time, a 64th of the time to live and a minute at most. So a session is
    forgotten no earlier than after its time to live without use, and no later than a grain after that. A full table,
    whose order tells who is displaced, notes every use.

    A session stays with the worker that served it first, for as long as that worker is in service. When the
    worker leaves, hint sessions are free to move; strict ones are remembered as lost until they are forgotten.
    """

    def __init__(self, *, max_sessions: int, time_to_live: float) -> None:
        self._max_sessions = max_sessions
        self._grain = min(time_to_live * _GRAIN, _MAX_GRAIN_S)
        self._kept_for = time_to_live + self._grain
        # When the present grain of time began. One object for all uses in it, told apart without a look at its value.
        self._noted_as = float("-inf")
        self._bindings: OrderedDict[str, _Binding] = OrderedDict()
        self._sessions_of: dict[int, dict[str, None]] = {}
        self._lost: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._bindings)

    def __contains__(self, session: str) -> bool:
        return session in self._bindings

    def worker_of(self, session: str) -> int | None:
        """Return the worker that ``session`` is bound to, or ``None``."""
        binding = self._bindings.get(session)
        return binding.worker if binding is not None else None

    def lost_worker_of(self, session: str) -> int | None:
        """Return the worker that took the strict ``session`` with it, or ``None``."""
        return self._lost.get(session)

    def has_room(self, session: str) -> bool:
        """Tell whether ``session`` is bound already or can be, evicting a hint session if need be."""
        if session in self._bindings or len(self._bindings) < self._max_sessions:
            return True
        return any(not binding.strict for binding in self._bindings.values())

    def use(self, session: str, worker: int, now: float, *, strict: bool) -> bool:
        """Note that ``worker`` serves ``session``; tell whether that bound it.

        Without room it stays unbound, which costs a hint session speed; ask ``has_room`` first for a strict one.
        """
        if now - self._noted_as >= self._grain:
            self._noted_as = now
        binding = self._bindings.get(session)
        if binding is not None:
            if strict:
                binding.strict = True
            if binding.last_used is not self._noted_as or len(self._bindings) >= self._max_sessions:
                binding.last_used = self._noted_as
                self._bindings.move_to_end(session)
            return False
        if len(self._bindings) >= self._max_sessions and not self._evict():
            return False
        self._bindings[session] = _Binding(worker, strict, self._noted_as)
        self._sessions_of.setdefault(worker, {})[session] = None
        return True

    def forget(self, session: str) -> bool:
        """Remove all trace of ``session``; tell whether there was any."""
        was_lost = self._lost.pop(session, None) is not None
        return self._unbind(session) is not None or was_lost

    def mark(self, session: str, *, strict: bool) -> None:
        """Say of a bound session whether it may be displaced, and move when its worker leaves."""
        self._bindings[session].strict = strict

    def release(self, worker: int) -> tuple[list[str], list[str]]:
        """Unbind the sessions of a worker that leaves service.

        Returns:
            All sessions that were bound to it, and those of them that are now lost.
        """
        sessions = list(self._sessions_of.pop(worker, ()))
        lost = [session for session in sessions if self._bindings.pop(session).strict]
        for session in lost:
            self._lost[session] = worker
        while len(self._lost) > self._max_sessions:
            self._lost.popitem(last=False)
        return sessions, lost

    def expire(self, now: float) -> list[str]:
        """Forget and return the sessions that are due."""
        gone = []
        while self._bindings and self.next_expiry() <= now:
            session = next(iter(self._bindings))
            self._unbind(session)
            gone.append(session)
        return gone

    def next_expiry(self) -> float:
        """Return when the session least recently used is due to be forgotten, or infinity."""
        oldest = next(iter(self._bindings.values()), None)
        return oldest.last_used + self._kept_for if oldest is not None else float("inf")

    def _evict(self) -> bool:
        oldest = next((session for session, binding in self._bindings.items() if not binding.strict), None)
        return oldest is not None and self._unbind(oldest) is not None

    def _unbind(self, session: str) -> _Binding | None:
        binding = self._bindings.pop(session, None)
        if binding is not None:
            sessions = self._sessions_of[binding.worker]
            del sessions[session]
            if not sessions:
                del self._sessions_of[binding.worker]
        return binding

    def bindings(self) -> dict[str, int]:
        """Return the worker of each bound session."""
        return {session: binding.worker for session, binding in self._bindings.items()}
