"""What is due next for a worker, by its state and the pool's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dspex_pool.core.records import NEVER, WorkerRecord
from dspex_pool.lifecycle import WorkerState

if TYPE_CHECKING:
    from dspex_pool.config import PoolOptions

__all__ = ["ANY_POOL", "Care", "Due", "Headcount"]


class Due(NamedTuple):
    """One thing to do for a worker, and when."""

    at: float
    what: str


class Headcount(NamedTuple):
    """What care must know of the pool as a whole."""

    #: Workers in service or starting.
    live: int
    #: Workers in service.
    ready: int
    #: Size that the pool is set to.
    size: int
    #: Workers to keep when nothing is asked of the pool.
    floor: int
    #: Whether one more worker may be pinged.
    may_ping: bool


#: A pool in which no worker is surplus and none is pinged: what is due here is due whatever the pool has.
ANY_POOL = Headcount(live=0, ready=0, size=0, floor=0, may_ping=False)

_NOTHING = Due(NEVER, "")


def _or_never(seconds: float | None) -> float:
    return NEVER if seconds is None else seconds


class Care:
    """Computes due times; keeps nothing but the settings.

    ``what`` is ``ping``, ``leak_suspected``, or the reason for which the worker is retired.
    """

    def __init__(self, options: PoolOptions) -> None:
        self._spawn_timeout = options.spawn_timeout
        self._ping_interval = _or_never(options.health_check_interval)
        self._ping_timeout = options.ping_timeout
        self._idle_timeout = _or_never(options.idle_timeout)
        self._overflow_ttl = options.overflow_ttl
        self._lease_timeout = _or_never(options.lease_timeout)
        self._leak_warning_after = _or_never(options.leak_warning_after)
        self._cancel_grace = options.cancel_grace
        #: Seconds after which, at the soonest, something is due for a worker that has just been used.
        self.idle_due = min(self._ping_interval, self._idle_timeout, self._overflow_ttl)
        #: Seconds after which, at the soonest, something is due for a worker that has just been lent.
        self.lease_due = min(self._lease_timeout, self._leak_warning_after)

    def next_for(self, record: WorkerRecord, pool: Headcount) -> Due:
        """Return what is due next for ``record`` in a pool that stands so."""
        state = record.state
        if state is WorkerState.IDLE:
            return self._next_for_idle(record, pool)
        if state is WorkerState.LEASED:
            return self._next_for_leased(record)
        if state is WorkerState.STARTING:
            return Due(record.since + self._spawn_timeout, "spawn_timeout")
        if state is WorkerState.PINGING:
            return Due(record.since + self._ping_timeout, "ping_timeout")
        if state is WorkerState.DRAINING:
            return Due(record.since + self._cancel_grace, "cancel_grace")
        return _NOTHING

    def _next_for_idle(self, record: WorkerRecord, pool: Headcount) -> Due:
        due = Due(record.expires_at, "max_lifetime")
        # A worker that is still starting may fail: none is let go in exchange for it.
        if pool.ready > pool.floor:
            due = min(due, Due(record.last_used + self._idle_timeout, "idle_timeout"))
        if pool.live > pool.size:
            due = min(due, Due(record.last_used + self._overflow_ttl, "overflow_ttl"))
        if pool.may_ping:
            due = min(due, Due(record.last_seen + self._ping_interval, "ping"))
        return due

    def _next_for_leased(self, record: WorkerRecord) -> Due:
        kill = Due(record.since + self._lease_timeout, "lease_timeout")
        if record.leak_warned:
            return kill
        return min(kill, Due(record.since + self._leak_warning_after, "leak_suspected"))
