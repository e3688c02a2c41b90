"""Every error that the pool raises, with the facts a caller needs to act on it.

This module is shared by the pool and by the worker process, so it imports the standard library alone.
Each class says whom it blames, whether the worker survives, and whether trying again may repeat side
effects. Facts are attributes; a fact that is not known is ``None``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CallCancelledError",
    "CallTimeoutError",
    "CheckoutError",
    "CheckoutTimeoutError",
    "CircuitOpenError",
    "DspexPoolError",
    "InvalidArgumentError",
    "InvalidConfigError",
    "LocalFrameTooLargeError",
    "LocalProtocolError",
    "PoolClosedError",
    "PoolFailedError",
    "PoolSaturatedError",
    "PortClosedError",
    "ProgramError",
    "ProgramExistsError",
    "ProgramNotFoundError",
    "ProtocolError",
    "RemoteFrameTooLargeError",
    "RemoteProtocolError",
    "SessionBusyError",
    "SessionError",
    "SessionExpiredError",
    "SessionLimitError",
    "SessionLostError",
    "SessionNotFoundError",
    "SessionStoreError",
    "UseAfterReturnError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerStartError",
]


class DspexPoolError(Exception):
    """Base of all errors of this package. Never raised itself.

    Args:
        message: What happened, with numbers and units, the likely cause, and what to do.
        facts: Values for the attributes that the class declares.
    """

    #: Who has to change something: ``caller``, ``configuration``, ``worker``, ``program``, ``load`` or ``pool``.
    blame: ClassVar[str] = "pool"
    #: Whether the worker goes on serving afterwards; ``None`` where no worker took part.
    worker_survives: ClassVar[bool | None] = None
    #: Whether trying again cannot repeat side effects; ``None`` where a fact of the error decides.
    retry_is_safe: ClassVar[bool | None] = None

    #: Name of the worker, such as ``w-3``.
    worker_id: str | None = None
    #: Process id of the worker.
    pid: int | None = None
    #: How often the call was tried when this error ended it.
    attempts: int | None = None

    def __init__(self, message: str = "", **facts: object) -> None:
        super().__init__(message)
        for name, value in facts.items():
            if name.startswith("_") or not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no fact named {name!r}")
            setattr(self, name, value)

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(self.args[0]) if self.args else ""

    def facts(self) -> dict[str, Any]:
        """Return the facts that are known, by name."""
        return {name: value for name, value in vars(self).items() if self._is_fact(name)}

    def _is_fact(self, name: str) -> bool:
        return not name.startswith("_") and hasattr(type(self), name)

    def __reduce__(self) -> tuple[Any, ...]:
        # What others have put on it, such as notes, goes along.
        others = {name: value for name, value in vars(self).items() if not self._is_fact(name)}
        return _rebuild, (type(self), self.message, self.facts()), others or None


def _rebuild(kind: type[DspexPoolError], message: str, facts: Mapping[str, object]) -> DspexPoolError:
    return kind(message, **facts)


# --- configuration and arguments --------------------------------------------------------------------


class InvalidConfigError(DspexPoolError, ValueError):
    """A setting is unknown or out of its range. Blames the configuration; nothing was started."""

    blame = "configuration"
    retry_is_safe = True
    #: Name of the setting.
    key: str | None = None
    #: What was given.
    value: object = None
    #: What would be allowed, in words.
    allowed: str | None = None
    #: Where the value came from: ``argument``, ``DSPEX_POOL_…``, a file, a profile or ``default``.
    source: str | None = None


class InvalidArgumentError(DspexPoolError, ValueError):
    """An argument of a call cannot be used. Blames the caller; nothing was sent."""

    blame = "caller"
    worker_survives = True
    retry_is_safe = True
    #: Name of the argument.
    argument: str | None = None


# --- checkout ----------------------------------------------------------------------------------------


class CheckoutError(DspexPoolError):
    """No worker was lent. Never raised itself; nothing was sent, so trying again is safe."""

    blame = "load"
    retry_is_safe = True
    #: Seconds between the call and this error.
    waited: float | None = None
    #: Gauges and counters of the pool when it happened.
    statistics: Any = None
    #: Who holds which worker, for how long, in words.
    holders: tuple[str, ...] = ()
    #: The last error of a worker's start, if the last start failed.
    last_start_error: BaseException | None = None


class CheckoutTimeoutError(CheckoutError, TimeoutError):
    """Pool timeout: no worker came free before the deadline. Blames load, or starts that fail."""


class PoolSaturatedError(CheckoutError):
    """The line is full (``max_waiting``), or the pool sheds load. Blames load; back off."""


class CircuitOpenError(CheckoutError):
    """No worker lives and starts have failed for ``breaker_after``. Blames the worker's command."""

    blame = "worker"


class PoolClosedError(CheckoutError):
    """The pool is closing or closed. Blames the caller."""

    blame = "caller"


class PoolFailedError(DspexPoolError):
    """A service of the pool failed again and again; the pool was closed. Blames the pool, or its store."""

    #: Name of the service.
    service: str | None = None


class UseAfterReturnError(CheckoutError):
    """A lease was used after it ended. Blames the caller; not a byte was written."""

    blame = "caller"
    #: Fencing token of the stale lease.
    token: int | None = None


# --- sessions ----------------------------------------------------------------------------------------


class SessionError(DspexPoolError):
    """Something is wrong with a session. Never raised itself."""

    blame = "caller"
    retry_is_safe = True
    #: The session's id.
    session_id: str | None = None


class SessionNotFoundError(SessionError):
    """The session does not exist. Blames the caller."""


class SessionExpiredError(SessionError):
    """The session was idle for longer than its time to live. Blames the caller; begin it anew."""

    #: Seconds that it had been idle.
    idle: float | None = None


class SessionLostError(SessionError):
    """The worker that a strict session was bound to is gone. Blames the worker; end the session first."""

    blame = "worker"
    worker_survives = False
    #: Incarnation number of the worker that is gone.
    incarnation: int | None = None


class SessionBusyError(SessionError, CheckoutError):
    """The session's worker is busy and ``strict_nowait`` refuses to wait. Blames load."""

    blame = "load"
    worker_survives = True


class SessionLimitError(SessionError, CheckoutError):
    """There are ``max_sessions`` live sessions already. Blames load; end some."""

    blame = "load"


class SessionStoreError(SessionError):
    """The store could not be read or written. Blames the configuration: its file or its disk.

    The change was not made; trying again is safe.
    """

    blame = "configuration"


# --- programs ----------------------------------------------------------------------------------------


class ProgramError(DspexPoolError):
    """The command failed inside a healthy worker. Blames the program, its inputs or its model."""

    blame = "program"
    worker_survives = True
    retry_is_safe = False
    #: Class name of the remote exception.
    type: str | None = None
    #: Traceback in the worker, as text.
    remote_traceback: str | None = None
    #: DSPy's or the provider's error code.
    code: str | None = None
    #: HTTP status of the provider.
    status: int | None = None
    #: Seconds after which the provider allows another try.
    retry_after: float | None = None
    #: Whether the worker considers another try promising.
    retryable: bool | None = None
    #: The request's id.
    request_id: int | None = None
    #: The command that failed.
    command: str | None = None
    #: The program concerned, where one is.
    program_id: str | None = None
    #: The session concerned, where one is.
    session_id: str | None = None


class ProgramNotFoundError(ProgramError):
    """The session has no program of this id. Blames the caller."""

    blame = "caller"
    retry_is_safe = True


class ProgramExistsError(ProgramError):
    """The session has a program of this id already. Blames the caller."""

    blame = "caller"
    retry_is_safe = True


class CallCancelledError(ProgramError):
    """Somebody else than the caller stopped the command. Blames no program; the worker is well."""


# --- protocol ----------------------------------------------------------------------------------------


class ProtocolError(DspexPoolError):
    """Bytes or messages against the protocol. Never raised itself."""


class LocalProtocolError(ProtocolError):
    """This side tried to send what the protocol forbids. Blames the caller; nothing was written."""

    blame = "caller"
    worker_survives = True
    retry_is_safe = True


class LocalFrameTooLargeError(LocalProtocolError):
    """The payload is longer than a frame may be. Blames the caller; nothing was written."""

    #: Length of the payload, in bytes.
    size: int | None = None
    #: Largest payload allowed, in bytes.
    limit: int | None = None


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol. Blames the worker, which is retired."""

    blame = "worker"
    worker_survives = False
    retry_is_safe = False
    #: The offending bytes, cut short.
    data: bytes | None = None
    #: The usable id of a request that is invalid otherwise.
    request_id: int | None = None


class RemoteFrameTooLargeError(RemoteProtocolError):
    """The announced frame is over the limit. Blames the worker, most often for a stray print to stdout."""

    #: Announced length, in bytes.
    size: int | None = None
    #: Largest payload allowed, in bytes.
    limit: int | None = None


# --- workers -----------------------------------------------------------------------------------------


class WorkerError(DspexPoolError):
    """Something is wrong with a worker process. Never raised itself."""

    blame = "worker"
    worker_survives: ClassVar[bool | None] = False
    #: Exit status, or ``None`` while it runs or when a signal ended it.
    exit_status: int | None = None
    #: Number of the signal that ended it.
    signal: int | None = None
    #: Last lines that the worker wrote to stderr.
    stderr_tail: str = ""
    #: Id of the request concerned.
    request_id: int | None = None
    #: Whether any byte of the request was written.
    request_sent: bool | None = None
    #: Whether the worker took any byte of it; ``False`` only if it is proven that it cannot have had an effect.
    request_read: bool | None = None
    #: Seconds waited.
    waited: float | None = None


class WorkerStartError(WorkerError):
    """A worker could not be started or did not shake hands. Blames its command; nothing was sent."""

    retry_is_safe = True


class WorkerDiedError(WorkerError):
    """The worker ended while used. Blames the worker; a retry is safe only if ``request_sent`` is false."""

    #: How it ended and what it said last, in words.
    how: str = ""


class PortClosedError(WorkerError):
    """The bytes to or from the worker have ended. Blames the worker; ports raise it, workers translate it."""

    #: Whether the stream ended between two frames.
    clean: bool = True
    #: Bytes missing of the frame that was cut, when not clean.
    missing: int = 0


class CallTimeoutError(WorkerError, TimeoutError):
    """No answer in time. Blames the program; the pool stops it, and keeps or replaces the worker."""

    blame = "program"
    worker_survives = None
    #: The command that was called.
    command: str | None = None
