"""Sessions kept in memory: they outlive workers, and end with the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dspex_pool.errors import SessionNotFoundError
from dspex_pool.session_store.encoding import (
    ProgramRow,
    SessionRow,
    decode_session,
    encode_program,
    encode_session,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dspex_pool.session_store.records import ExecutionTotal, ProgramRecord, SessionRecord

__all__ = ["MemorySessionStore", "no_such_session"]


class MemorySessionStore:
    """A ``SessionStore`` without a file. Bounded by the pool's bound on sessions.

    Cancellation: every method is a checkpoint before its change, and none within.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, SessionRow] = {}
        self._programs: dict[str, dict[str, ProgramRow]] = {}
        self._is_closed = False

    async def _begin(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._is_closed:
            raise trio.ClosedResourceError("the session store is closed")

    async def load_all(self) -> list[SessionRecord]:
        """Return all sessions, the oldest first, each with its programs, likewise."""
        await self._begin()
        return [
            decode_session(row, sorted(self._programs[row.id].values(), key=_age))
            for row in sorted(self._sessions.values(), key=_age)
        ]

    async def put_session(self, session: SessionRecord) -> None:
        """Keep ``session`` exactly as it is, programs included."""
        await self._begin()
        row, programs = encode_session(session)
        self._sessions[row.id] = row
        self._programs[row.id] = {program.id: program for program in programs}

    async def put_program(self, session_id: str, program: ProgramRecord) -> None:
        """Keep one program of a session that is kept.

        Raises:
            SessionNotFoundError: The session is not kept.
        """
        await self._begin()
        row = encode_program(program)
        if session_id not in self._sessions:
            raise no_such_session(session_id)
        self._programs[session_id][row.id] = row

    async def delete_program(self, session_id: str, program_id: str) -> None:
        """Forget a program; if it is not kept, do nothing."""
        await self._begin()
        self._programs.get(session_id, {}).pop(program_id, None)

    async def delete_session(self, session_id: str) -> None:
        """Forget a session and its programs; if it is not kept, do nothing."""
        await self._begin()
        self._sessions.pop(session_id, None)
        self._programs.pop(session_id, None)

    async def touch(self, uses: Iterable[tuple[str, float]]) -> None:
        """Note when sessions were last used; times never go back."""
        await self._begin()
        for session_id, last_used in uses:
            row = self._sessions.get(session_id)
            if row is not None:
                self._sessions[session_id] = row._replace(last_used=max(row.last_used, last_used))

    async def count_executions(self, totals: Iterable[ExecutionTotal]) -> None:
        """Note how often programs were executed; totals never fall."""
        await self._begin()
        for session_id, program_id, count, last_executed in totals:
            row = self._programs.get(session_id, {}).get(program_id)
            if row is not None:
                self._programs[session_id][program_id] = row._replace(
                    execution_count=max(row.execution_count, count),
                    last_executed=max(row.last_executed or 0.0, last_executed),
                )

    async def aclose(self) -> None:
        """Forget everything."""
        self._is_closed = True
        self._sessions.clear()
        self._programs.clear()
        await trio.lowlevel.checkpoint()


def _age(row: SessionRow | ProgramRow) -> tuple[float, str]:
    return row.created_at, row.id


def no_such_session(session_id: str) -> SessionNotFoundError:
    """Make the error for a program whose session is not kept."""
    return SessionNotFoundError(
        f"session {session_id!r} is not in the session store; it has ended or was never begun",
        session_id=session_id,
    )
