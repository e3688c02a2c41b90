"""Bugs of affinity and sessions: which worker serves whom, and what it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.core.affinity import AffinityTable
from dspex_pool.core.idle import IdleSet
from dspex_pool.core.wait_line import WaitLine
from dspex_pool.worker_memory import WorkerMemory
from tests.bugbench.planting import bug

if TYPE_CHECKING:
    from dspex_pool.core.records import Waiter, WorkerRecord
    from tests.bugbench.planting import Planting


@bug("D18, property 98")
def session_of_the_dead(planting: Planting) -> None:
    """Leave sessions bound to the worker that has died."""

    def release(self: AffinityTable, worker: int) -> tuple[list[str], list[str]]:
        return [], []

    planting.replace(AffinityTable, "release", release)


@bug("R93, property 101; Snakepit 0.10.0")
def strict_session_moves_silently(planting: Planting) -> None:
    """Give a strict session whose worker has died another one, without a word."""

    def release(self: AffinityTable, worker: int) -> tuple[list[str], list[str]]:
        sessions, _ = original(self, worker)
        self._lost.clear()
        return sessions, []

    original = planting.replace(AffinityTable, "release", release)


@bug("R23; the ancestor's session_pool")
def affinity_is_not_used(planting: Planting) -> None:
    """Bind sessions to workers, and lend them any."""

    def take_for(self: IdleSet, bound_to: int | None, *, strict: bool) -> WorkerRecord | None:
        return self.take() if self._workers else None

    planting.replace(IdleSet, "take_for", take_for)


@bug("R24; the ancestor's session_affinity")
def use_does_not_refresh(planting: Planting) -> None:
    """Let a session's binding expire although it is in use."""

    def use(self: AffinityTable, session: str, worker: int, now: float, *, strict: bool) -> bool:
        binding = self._bindings.get(session)
        before = binding.last_used if binding is not None else now
        bound: bool = original(self, session, worker, now, strict=strict)
        if binding is not None:
            binding.last_used = before
        return bound

    original = planting.replace(AffinityTable, "use", use)


@bug("R114, property 102; Snakepit 0.4.2")
def session_table_grows(planting: Planting) -> None:
    """Bind sessions without bound."""

    def use(self: AffinityTable, session: str, worker: int, now: float, *, strict: bool) -> bool:
        limit, self._max_sessions = self._max_sessions, 10**9
        try:
            return bool(original(self, session, worker, now, strict=strict))
        finally:
            self._max_sessions = limit

    original = planting.replace(AffinityTable, "use", use)


@bug("property 100; D3")
def strict_waiter_blocks_the_line(planting: Planting) -> None:
    """Keep everybody waiting behind a strict session whose worker is busy."""

    def first_for(self: WaitLine, worker: int) -> Waiter | None:
        first: Waiter | None = original(self, worker)
        oldest = min((waiter.number for waiter in self), default=0)
        return first if first is not None and first.number == oldest else None

    original = planting.replace(WaitLine, "first_for", first_for)


@bug("R121; the ancestor's SESSION_ARCHITECTURE_ANALYSIS")
def first_requests_bind_two(planting: Planting) -> None:
    """Leave the waiters of a strict session in the open line when it is bound."""

    def bind(self: WaitLine, session: str, worker: int) -> list[Waiter]:
        self._unbound_strict.pop(session, None)
        return []

    planting.replace(WaitLine, "bind", bind)


@bug("property 101; D18")
def stranded_waiter_is_not_told(planting: Planting) -> None:
    """Leave those in line who wait for a worker that is gone."""

    def strand(self: WaitLine, worker: int) -> list[Waiter]:
        return []

    planting.replace(WaitLine, "strand", strand)


@bug("R19, R20; the ancestor's KNOWN_ISSUES #1")
def program_on_another_worker(planting: Planting) -> None:
    """Run a program on whatever worker comes, whether or not that has it."""

    def missing(self: WorkerMemory, *_: Any, **more: Any) -> Any:
        return []

    planting.replace(WorkerMemory, "missing", missing)
