"""Sessions kept in an SQLite file: they outlive the pool, and the death of its process at any moment.

One connection is used by one thread at a time, never by trio's. Every change is one transaction, written
through to the disk before its method returns. The file belongs to one pool: it is locked from opening to
closing by a lock that ends with the process.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from dspex_pool.errors import InvalidArgumentError, SessionStoreError
from dspex_pool.session_store.encoding import (
    ProgramRow,
    SessionRow,
    decode_session,
    encode_program,
    encode_session,
)
from dspex_pool.session_store.memory import no_such_session
from dspex_pool.session_store.sqlite_file import open_file, place_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from dspex_pool.session_store.records import ExecutionTotal, ProgramRecord, SessionRecord

__all__ = ["SqliteSessionStore"]

_T = TypeVar("_T")

_PUT_SESSION = "INSERT INTO sessions (id, created_at, last_used, lm) VALUES (?, ?, ?, ?)"
_PUT_PROGRAM = """
    INSERT OR REPLACE INTO programs
        (session_id, id, definition, state, revision, created_at, execution_count, last_executed)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_ALL_SESSIONS = "SELECT id, created_at, last_used, lm FROM sessions ORDER BY created_at, id"
_ALL_PROGRAMS = """
    SELECT session_id, id, definition, state, revision, created_at, execution_count, last_executed
    FROM programs ORDER BY created_at, id
"""
_TOUCH = "UPDATE sessions SET last_used = max(last_used, ?) WHERE id = ?"
_COUNT = """
    UPDATE programs SET execution_count = max(execution_count, ?), last_executed = max(ifnull(last_executed, 0), ?)
    WHERE session_id = ? AND id = ?
"""


class SqliteSessionStore:
    """A ``SessionStore`` in a file. Made by ``open``.

    Cancellation: a change that waits for its turn is given up; one whose transaction has begun is made, and
    the method returns as if it had not been cancelled.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        #: Where the file is.
        self.path = path
        self._connection = connection
        self._is_closed = False
        # A limiter of its own: trio's default threads may all be busy, and turns are in order of arrival.
        self._turn = trio.CapacityLimiter(1)

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> SqliteSessionStore:
        """Open the file at ``path``, or make it, for this pool alone. Its folder must exist.

        Raises:
            InvalidConfigError: The file is in use by another pool, cannot be read or written, is damaged, is
                no store of sessions, or was made by a newer version.

        Cancellation: before the file is touched, nothing has happened; afterwards the store is returned.
        """
        place = place_of(path)
        connection = await trio.to_thread.run_sync(open_file, place)
        return cls(connection, place)

    async def load_all(self) -> list[SessionRecord]:
        """Return all sessions, the oldest first, each with its programs, likewise."""
        return await self._run(_load_all)

    async def put_session(self, session: SessionRecord) -> None:
        """Keep ``session`` exactly as it is, programs included."""
        row, programs = encode_session(session)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM sessions WHERE id = ?", (row.id,))
            connection.execute(_PUT_SESSION, row)
            connection.executemany(_PUT_PROGRAM, [(row.id, *program) for program in programs])

        await self._run(work)

    async def put_program(self, session_id: str, program: ProgramRecord) -> None:
        """Keep one program of a session that is kept.

        Raises:
            SessionNotFoundError: The session is not kept.
        """
        row = encode_program(program)

        def work(connection: sqlite3.Connection) -> None:
            if connection.execute("SELECT 1 FROM sessions WHERE id = ?", (session_id,)).fetchone() is None:
                raise no_such_session(session_id)
            connection.execute(_PUT_PROGRAM, (session_id, *row))

        await self._run(work)

    async def delete_program(self, session_id: str, program_id: str) -> None:
        """Forget a program; if it is not kept, do nothing."""
        await self._change("DELETE FROM programs WHERE session_id = ? AND id = ?", [(session_id, program_id)])

    async def delete_session(self, session_id: str) -> None:
        """Forget a session and its programs; if it is not kept, do nothing."""
        await self._change("DELETE FROM sessions WHERE id = ?", [(session_id,)])

    async def touch(self, uses: Iterable[tuple[str, float]]) -> None:
        """Note when sessions were last used; times never go back."""
        await self._change(_TOUCH, [(last_used, session_id) for session_id, last_used in uses])

    async def count_executions(self, totals: Iterable[ExecutionTotal]) -> None:
        """Note how often programs were executed; totals never fall."""
        await self._change(
            _COUNT,
            [(count, last_executed, session_id, id_) for session_id, id_, count, last_executed in totals],
        )

    async def aclose(self) -> None:
        """Finish what was begun and let go of the file. Doing it again does nothing.

        Cancellation: the store is closed all the same.
        """
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(self._connection.close, limiter=self._turn)
            except RuntimeError:
                # The system gives no thread. It was this task's turn, so that nobody uses the connection.
                self._connection.close()

    async def _change(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(statement, rows)

        await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Carry out ``work`` as one transaction, in a thread, when it is its turn."""
        if self._is_closed:
            raise trio.ClosedResourceError("the session store is closed")
        try:
            return await trio.to_thread.run_sync(self._transact, work, limiter=self._turn)
        except RuntimeError as exc:
            raise SessionStoreError(
                f"the session store {self.path} failed: {exc}; nothing was changed. See the limit on processes."
            ) from exc

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            with _transaction(self._connection):
                return work(self._connection)
        except sqlite3.Error as exc:
            raise SessionStoreError(
                f"the session store {self.path} failed: {exc}; nothing was changed. Is the disk full or gone?"
            ) from exc
        except (UnicodeEncodeError, OverflowError) as exc:
            raise InvalidArgumentError(f"an id or number cannot be stored: {exc}") from exc


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some failures, such as a full disk, SQLite has rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _load_all(connection: sqlite3.Connection) -> list[SessionRecord]:
    programs: dict[str, list[ProgramRow]] = {}
    for session_id, *columns in connection.execute(_ALL_PROGRAMS):
        programs.setdefault(session_id, []).append(ProgramRow(*columns))
    rows = [SessionRow(*columns) for columns in connection.execute(_ALL_SESSIONS)]
    return [decode_session(row, programs.get(row.id, [])) for row in rows]
