"""What callers asked of a pool and what became of it: every operation, called and ended, in one order.

A history is written by callers. It has no opinion; ``checkers.py`` reads it. Whatever is told to it gets the next
place in its order, so that what happened at the same moment of a simulated clock still happened one after the other.
"""

from __future__ import annotations

import copy
import enum
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import trio

from dspex_pool.errors import DspexPoolError, ProgramError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.config import PoolOptions
    from dspex_pool.core.records import PoolStatistics
    from dspex_pool.telemetry.bus import Attachment

__all__ = [
    "CANCELLED",
    "History",
    "LeaseRecord",
    "Operation",
    "Outcome",
    "PoolEvent",
    "SomePool",
    "is_safe_to_retry",
]

#: The ``error`` of an operation whose caller was cancelled.
CANCELLED = "Cancelled"


class SomePool(Protocol):
    """What a history needs of a pool; a ``PythonPool`` and a ``PoolHandle`` have it."""

    @property
    def sessions(self) -> Any:
        """The session pool."""


class Outcome(enum.StrEnum):
    """How an operation ended, as far as its caller can know."""

    #: It was done, and answered.
    OK = "ok"
    #: It was not done, or ended in an error of its own.
    FAILED = "failed"
    #: It may have been done: its worker died, was too late, or nobody waited for the answer.
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Operation:
    """One operation of one client. Times are in seconds of the history's clock."""

    #: Its number among the operations, from 0.
    number: int
    #: Who called. A client calls one thing after the other.
    client: str
    #: Whose session it was for; ``None`` for nobody's.
    session: str | None
    command: str
    args: Mapping[str, Any]
    #: When it was called.
    called: float
    #: When it ended; infinite while it goes on.
    ended: float = math.inf
    #: How it ended; ``None`` while it goes on.
    outcome: Outcome | None = None
    #: The answer, if it was answered.
    value: Any = None
    #: Class name of the error, ``Cancelled`` for a cancelled caller; empty if there was none.
    error: str = ""
    #: Text of the error.
    text: str = ""
    #: The worker that answered, or that the error is about.
    worker_id: str | None = None
    #: Whether trying again cannot repeat anything; ``None`` if nobody knows, or it was answered.
    retry_is_safe: bool | None = None
    #: How often the pool tried it.
    attempts: int = 1
    #: How often it was told that it ended; more than once is against the pool's promises.
    ends: int = 0
    #: Place of its call in the order of the history.
    since: int = 0
    #: Place of its end in the order of the history.
    until: float = math.inf
    #: Place after which it cannot take effect any more, if its outcome is unknown.
    over: float = math.inf

    def __str__(self) -> str:
        whose = f" in {self.session}" if self.session is not None else ""
        head = (
            f"#{self.number} {self.client}{whose}: {self.command}({_short(self.args)}) at {self.called:.3f} s"
        )
        if self.outcome is None:
            return f"{head}, has not ended"
        what = self.error or _short(self.value)
        return f"{head}, {self.outcome.value} at {self.ended:.3f} s: {what}"


@dataclass(slots=True)
class LeaseRecord:
    """A worker in somebody's hands. Times are in seconds of the history's clock."""

    #: Incarnation number of the worker.
    worker: int
    #: Fencing token of the lease; zero if the holder had none.
    token: int
    #: Who says so: ``pool``, by its books, or ``caller``, who uses the worker.
    told_by: str
    #: Name of the worker.
    worker_id: str
    #: When it began, and its place in the order of the history.
    acquired: float
    since: int
    #: When it ended, likewise; infinite while it goes on.
    released: float = math.inf
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """An event of a pool, as telemetry tells it."""

    #: Its place in the order of the history.
    place: int
    #: When it was told, in seconds of the history's clock.
    at: float
    #: The last part of its name.
    name: str
    measured: Mapping[str, float]
    about: Mapping[str, Any]


@dataclass(slots=True)
class History:
    """What happened, in order.

    Args:
        clock: Tells the time in seconds.
    """

    clock: Callable[[], float] = trio.current_time
    operations: list[Operation] = field(default_factory=list)
    leases: list[LeaseRecord] = field(default_factory=list)
    #: Events of the pool that the history attends.
    events: list[PoolEvent] = field(default_factory=list)
    #: The settings of that pool; ``None`` while there is none.
    options: PoolOptions | None = None
    #: What kept events from being recorded; a history with such a gap proves nothing.
    gaps: list[Exception] = field(default_factory=list)
    #: Snapshots of the pool, with their times.
    samples: list[tuple[float, PoolStatistics]] = field(default_factory=list)
    #: Sessions whose callers insisted on their worker.
    strict_sessions: set[str] = field(default_factory=set)
    _places: itertools.count[int] = field(default_factory=itertools.count, repr=False)

    def next_place(self) -> int:
        """Take the next place in the order of what happened."""
        return next(self._places)

    # --- operations -----------------------------------------------------------------------------------------

    def begin(
        self, client: str, session: str | None, command: str, args: Mapping[str, Any] | None = None
    ) -> Operation:
        """Note that a client calls something; return what its end is told to."""
        operation = Operation(
            len(self.operations),
            client,
            session,
            command,
            # What the caller does with them afterwards is none of what was asked.
            {} if args is None else copy.deepcopy(dict(args)),
            self.clock(),
            since=self.next_place(),
        )
        self.operations.append(operation)
        return operation

    def ok(
        self, operation: Operation, value: Any = None, worker_id: str | None = None, *, attempts: int = 1
    ) -> None:
        """Note that an operation was answered."""
        if self._end(operation, Outcome.OK):
            operation.value = value
            operation.worker_id = worker_id
            operation.attempts = attempts

    def failed(self, operation: Operation, error: BaseException) -> None:
        """Note that an operation ended in an error, and was not done."""
        self._end_badly(operation, Outcome.FAILED, error)

    def unknown(self, operation: Operation, error: BaseException, *, is_over: bool = False) -> None:
        """Note that an operation ended in an error or a cancellation, and may have been done.

        Args:
            is_over: Whether it was done by now or never will be, because whoever could do it is dead.
        """
        self._end_badly(operation, Outcome.UNKNOWN, error)
        if is_over:
            operation.over = operation.until

    def erred(self, operation: Operation, error: BaseException) -> None:
        """Note that an operation ended in an error, which tells whether it may have been done."""
        is_certain = isinstance(error, ProgramError) or is_safe_to_retry(error) is True
        self._end_badly(operation, Outcome.FAILED if is_certain else Outcome.UNKNOWN, error)

    async def call(
        self,
        pool: SomePool,
        session: str | None,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        client: str,
        **options: Any,
    ) -> Operation:
        """Run a command on a pool and record it; errors of the pool are recorded and not raised.

        Args:
            pool: The pool.
            session: Whose command it is; ``None`` for nobody's.
            command: Name of the command.
            args: Its arguments.
            client: Who calls.
            options: As for ``SessionPool.execute_in_session``.

        Cancellation: Recorded as an unknown outcome, and raised.
        """
        if session is not None and options.get("affinity", "hint") != "hint":
            self.strict_sessions.add(session)
        operation = self.begin(client, session, command, args)
        try:
            if session is None:
                reply = await pool.sessions.execute_anonymous(command, args, **options)
            else:
                reply = await pool.sessions.execute_in_session(session, command, args, **options)
        except DspexPoolError as error:
            self.erred(operation, error)
        except BaseException as error:
            self.unknown(operation, error)
            raise
        else:
            self.ok(operation, reply.result, reply.worker_id, attempts=reply.attempts)
        return operation

    def _end(self, operation: Operation, outcome: Outcome) -> bool:
        operation.ends += 1
        if operation.ends > 1:
            return False
        operation.outcome = outcome
        operation.ended = self.clock()
        operation.until = self.next_place()
        return True

    def _end_badly(self, operation: Operation, outcome: Outcome, error: BaseException) -> None:
        if not self._end(operation, outcome):
            return
        operation.error = CANCELLED if isinstance(error, trio.Cancelled) else type(error).__name__
        operation.text = str(error)
        operation.retry_is_safe = is_safe_to_retry(error)
        if isinstance(error, DspexPoolError):
            operation.worker_id = error.worker_id
            operation.attempts = error.attempts or 1

    # --- leases ---------------------------------------------------------------------------------------------

    def acquired(
        self, worker: int, token: int, worker_id: str = "", *, told_by: str = "caller"
    ) -> LeaseRecord:
        """Note that somebody has a worker from now on; return what its release is told to."""
        worker_id = worker_id or f"worker {worker}"
        lease = LeaseRecord(worker, token, told_by, worker_id, self.clock(), self.next_place())
        self.leases.append(lease)
        return lease

    def released(self, lease: LeaseRecord) -> None:
        """Note that somebody has a worker no longer. Doing it again does nothing."""
        if lease.until == math.inf:
            lease.released = self.clock()
            lease.until = self.next_place()

    # --- the pool -------------------------------------------------------------------------------------------

    def attend(self, pool: SomePool) -> Attachment:
        """Record what a pool does from now on: leases, starts and ends of workers, the order of the line.

        Returns:
            A context manager that ends it; the pool's own closing is heard if it is not left before.

        Raises:
            ValueError: The history attends a pool already.
        """
        from dspex_testkit.history.attending import attend

        return attend(self, pool)

    def sample(self, statistics: PoolStatistics) -> None:
        """Keep a snapshot of a pool."""
        self.samples.append((self.clock(), statistics))

    def count(self, outcome: Outcome, command: str | None = None) -> int:
        """Return how many operations ended so, of one command or of all."""
        return sum(
            operation.outcome is outcome and command in (None, operation.command)
            for operation in self.operations
        )


def is_safe_to_retry(error: BaseException) -> bool | None:
    """Tell whether trying again cannot repeat what the call did; ``None`` if nobody knows."""
    if not isinstance(error, DspexPoolError):
        return None
    if error.retry_is_safe is None and isinstance(error, WorkerError):
        return True if False in (error.request_sent, error.request_read) else None
    return error.retry_is_safe


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
