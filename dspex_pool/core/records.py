"""What the pool core keeps in its books, and the decisions it hands out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from dspex_pool.lifecycle import WorkerState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.errors import DspexPoolError

__all__ = [
    "Counters",
    "Decision",
    "Drain",
    "Emit",
    "Grant",
    "Granted",
    "Outcome",
    "Ping",
    "PoolStatistics",
    "Refuse",
    "Retire",
    "Start",
    "Waiter",
    "WorkerRecord",
]

NEVER = float("inf")


@dataclass(slots=True, eq=False)
class WorkerRecord:
    """One worker incarnation, as the core knows it. Times are seconds of the pool's monotonic clock."""

    #: Incarnation number: unique in the pool, never used again.
    number: int
    #: Place in the size count; the lowest free one, so that ids stay small.
    slot: int
    #: Generation of the pool in which the start began.
    generation: int
    #: When its start began; restarts with each state.
    since: float
    #: Where it stands in its life.
    state: WorkerState = WorkerState.STARTING
    #: When it became ready, or ``None`` before.
    ready_at: float | None = None
    #: When a lease with at least one request last ended; at first, when it became ready.
    last_used: float = 0.0
    #: When it last proved to be alive: by a use or by a ping.
    last_seen: float = 0.0
    #: When its lifetime ends.
    expires_at: float = NEVER
    #: Leases with at least one request.
    uses: int = 0
    #: Fencing token of its last lease; zero before the first.
    token: int = 0
    #: Whose hands it is in; anything whose text names the holder.
    holder: object = None
    #: Session of its present lease.
    session: str | None = None
    #: Whether that lease has bound the session to it.
    binds: bool = False
    #: Why it must not be lent again, or ``None``.
    condemned: str | None = None
    #: Whether the leak warning of the present lease was given.
    leak_warned: bool = False

    @property
    def worker_id(self) -> str:
        """Name for people: ``w-`` and the slot."""
        return f"w-{self.slot}"

    def age(self, now: float) -> float:
        """Return the seconds since it became ready; zero before."""
        return now - self.ready_at if self.ready_at is not None else 0.0


@dataclass(slots=True, eq=False)
class Waiter:
    """One checkout that waits in line."""

    #: Arrival number; strictly increasing in the pool.
    number: int
    #: When it arrived.
    since: float
    #: When its patience ends.
    deadline: float
    #: The session it asks for, or ``None``.
    session: str | None = None
    #: Whether only the session's own worker will do.
    strict: bool = False
    #: Whether it refuses to wait for a busy worker of its session.
    nowait: bool = False
    #: Whose request it is; anything whose text names the task.
    holder: object = None


class Outcome(enum.Enum):
    """What a lease's end proves about its worker."""

    #: Used; nothing is outstanding, nothing is unread.
    CLEAN = "clean"
    #: No request was sent.
    UNUSED = "unused"
    #: An answer is due, or the reset hook must run: into the pool's care.
    CARE = "care"
    #: Cannot be proven clean.
    RETIRE = "retire"
    #: The same, and no request was sent.
    VOID = "void"


# --- decisions ---------------------------------------------------------------------------------------

# Structs, because a frozen dataclass takes ten times as long to make, and every call makes some.


class Granted(msgspec.Struct, frozen=True):
    """A lease: which worker, and the fencing token that returns it."""

    #: Incarnation number of the worker.
    number: int
    #: Fencing token; strictly increasing in the pool.
    token: int
    #: Seconds that the checkout took.
    waited: float


class Start(msgspec.Struct, frozen=True):
    """Start a worker process and shake hands with it."""

    number: int
    worker_id: str


class Grant(msgspec.Struct, frozen=True):
    """Hand a worker to a waiter."""

    waiter: int
    lease: Granted


class Refuse(msgspec.Struct, frozen=True):
    """Tell a waiter that it gets no worker."""

    waiter: int
    error: DspexPoolError


class Ping(msgspec.Struct, frozen=True):
    """Check the health of an idle worker."""

    number: int


class Drain(msgspec.Struct, frozen=True):
    """Finish what the last caller left: stop the command, await its answer, run the reset hook."""

    number: int


class Retire(msgspec.Struct, frozen=True):
    """End a worker's process: politely, or at once."""

    number: int
    reason: str
    polite: bool
    #: Why its start failed, if it has; callers will hear of it.
    error: BaseException | None = None


class Emit(msgspec.Struct, frozen=True):
    """Tell telemetry what happened."""

    name: str
    measurements: Mapping[str, float]
    metadata: Mapping[str, Any]


Decision: TypeAlias = Start | Grant | Refuse | Ping | Drain | Retire | Emit


# --- statistics --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Counters:
    """Counts since the pool began. None falls, but a grant that is undone takes its attempt back with it."""

    #: Checkouts begun.
    attempts: int = 0
    #: Checkouts that got a worker.
    granted: int = 0
    #: Granted checkouts that had to wait in line: the figure to size a pool by.
    granted_after_wait: int = 0
    #: Checkouts whose deadline passed in line, or before.
    timeouts: int = 0
    #: Checkouts whose caller was cancelled in line.
    cancelled: int = 0
    #: Checkouts refused because the pool closed.
    closed: int = 0
    #: Checkouts refused by ``max_waiting`` or by shedding.
    overloaded: int = 0
    #: Checkouts refused while no worker could be started.
    circuit_open: int = 0
    #: Checkouts of strict sessions whose worker was gone.
    session_lost: int = 0
    #: Checkouts refused because they would not wait, or because of the bound on sessions.
    declined: int = 0
    #: Starts begun.
    starts: int = 0
    #: Starts that failed.
    start_failures: int = 0
    #: Workers that became ready.
    started: int = 0
    #: Workers reaped.
    reaped: int = 0
    #: Leases returned.
    returned: int = 0
    #: Notices about a worker, lease or waiter that is gone; ignored.
    stale_notices: int = 0


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of the pool. Counts unless a unit is given."""

    #: Size that the pool is set to.
    pool_size: int
    #: Workers allowed above ``pool_size``.
    max_overflow: int
    #: Workers being started.
    starting: int
    #: Workers that nobody uses.
    idle: int
    #: Workers whose health is being checked.
    pinging: int
    #: Workers in callers' hands.
    leased: int
    #: Workers finishing what a caller left.
    draining: int
    #: Workers whose process is being ended.
    retiring: int
    #: Checkouts in line.
    waiting: int
    #: Sessions bound to a worker.
    bound_sessions: int
    #: Whether the pool is suspended.
    suspended: bool
    #: Whether the breaker is open.
    circuit_open: bool
    #: Whether the pool is closing or closed.
    closed: bool
    #: Counts since the beginning.
    counters: Counters = field(default_factory=Counters)

    @property
    def live(self) -> int:
        """Workers that can serve or soon will: all but those being ended."""
        return self.starting + self.ready

    @property
    def ready(self) -> int:
        """Workers that have shaken hands and are in service."""
        return self.idle + self.pinging + self.leased + self.draining

    @property
    def processes(self) -> int:
        """Processes that exist: those in service, and those starting or being ended."""
        return self.live + self.retiring
