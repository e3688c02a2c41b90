"""What is kept of a session, and what a store of sessions promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ExecutionTotal", "ProgramRecord", "SessionRecord", "SessionStore"]


class ProgramRecord(msgspec.Struct, kw_only=True):
    """One program of a session: everything that a new worker needs to have it too."""

    #: The program's id, unique in its session.
    id: str
    #: The arguments of ``create_program`` but for the ids, as a JSON object.
    definition: dict[str, Any]
    #: DSPy's state of the program as a JSON object, or ``None`` for that of its definition.
    state: dict[str, Any] | None = None
    #: Number of the change that made it so; the first is 1.
    revision: int = 1
    #: When it was created, in seconds since 1970.
    created_at: float
    #: How often it was executed.
    execution_count: int = 0
    #: When it was last executed, in seconds since 1970, or ``None``.
    last_executed: float | None = None


class SessionRecord(msgspec.Struct, kw_only=True):
    """One session with its programs."""

    #: The session's id.
    id: str
    #: When it began, in seconds since 1970.
    created_at: float
    #: When it was last used, in seconds since 1970.
    last_used: float
    #: Its programs, by id.
    programs: dict[str, ProgramRecord] = {}
    #: The arguments of its ``configure_lm``, without secrets; ``None`` for the default of the workers. Where a key
    #: is left out, ``key_by_value`` is true.
    lm: dict[str, Any] | None = None


class ExecutionTotal(NamedTuple):
    """How often a program was executed in all."""

    #: The session's id.
    session_id: str
    #: The program's id.
    program_id: str
    #: Executions since the program was created. A total, so that telling it twice does no harm.
    execution_count: int
    #: When it was last executed, in seconds since 1970.
    last_executed: float


class SessionStore(Protocol):
    """Where sessions are kept.

    What is given is copied, and what is returned is a copy. Values of keys that hold secrets are not kept,
    such as ``api_key``; the name of an environment variable in ``api_key_env`` is. Changes are made one after
    the other, in the order in which they were asked for, each as a whole or not at all.

    Cancellation: A method that is cancelled before its change began has changed nothing. Once begun, the
    change is made, and the method returns as if it had not been cancelled.

    Raises:
        InvalidArgumentError: A value cannot be carried by JSON; nothing was changed.
        SessionNotFoundError: A program was given for a session that is not kept.
        SessionStoreError: The file could not be read or written; nothing was changed.
        trio.ClosedResourceError: The store was closed before.
    """

    async def load_all(self) -> list[SessionRecord]:
        """Return all sessions, the oldest first, each with its programs, likewise."""

    async def put_session(self, session: SessionRecord) -> None:
        """Keep ``session`` exactly as it is, programs included, in place of what was kept under its id."""

    async def put_program(self, session_id: str, program: ProgramRecord) -> None:
        """Keep one program of a session that is kept, in place of what was kept under its id."""

    async def delete_program(self, session_id: str, program_id: str) -> None:
        """Forget a program; if it is not kept, do nothing."""

    async def delete_session(self, session_id: str) -> None:
        """Forget a session and its programs; if it is not kept, do nothing."""

    async def touch(self, uses: Iterable[tuple[str, float]]) -> None:
        """Note when sessions were last used, as pairs of id and seconds since 1970.

        Times never go back, and sessions that are not kept are passed over.
        """

    async def count_executions(self, totals: Iterable[ExecutionTotal]) -> None:
        """Note how often programs were executed; totals never fall, and unknown programs are passed over."""

    async def aclose(self) -> None:
        """Finish what was begun and let go of the file. Doing it again does nothing.

        Cancellation: the store is closed all the same.
        """
