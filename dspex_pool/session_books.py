"""The sessions of a pool and their store: what begins, changes, expires and ends. Knows no worker.

The table in memory answers, the store keeps; a change is in the store before it is in the table, so that what a
caller was told is never lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import trio

from dspex_pool.errors import (
    InvalidArgumentError,
    ProgramExistsError,
    ProgramNotFoundError,
    SessionNotFoundError,
)
from dspex_pool.session_store import ExecutionTotal, ProgramRecord, SessionRecord
from dspex_pool.session_table import Session, SessionTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.session_store import SessionStore

__all__ = ["BEGINNING", "USING", "SessionBooks"]

#: Commands that begin a session that does not live yet.
BEGINNING = frozenset({"create_program", "load_program", "configure_lm"})

#: Commands that need a program of the session.
USING = frozenset({"execute_program", "get_program_info", "delete_program", "dump_program"})

#: Arguments of ``configure_lm`` that live in memory only.
_SECRETS = ("api_key",)


class SessionBooks:
    """Sessions, in memory and in their store.

    Args:
        store: Where sessions are kept.
        time_to_live: Seconds without use after which a session expires, or ``None``.
        max_sessions: How many may live at the same time.
        wall_clock: Gives seconds since 1970.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        time_to_live: float | None,
        max_sessions: int,
        wall_clock: Callable[[], float],
    ) -> None:
        self.table = SessionTable(time_to_live=time_to_live, max_sessions=max_sessions)
        self._store = store
        self._wall_clock = wall_clock
        self._unsaved_uses: dict[str, None] = {}
        self._unsaved_counts: dict[tuple[str, str], None] = {}

    async def load(self) -> None:
        """Take over what the store has kept.

        Cancellation: Nothing has changed.
        """
        self.table.fill(await self._store.load_all())

    async def aclose(self) -> None:
        """Save what is unsaved and close the store.

        Cancellation: Both are done all the same.
        """
        with trio.CancelScope(shield=True):
            try:
                await self.save_uses()
            finally:
                await self._store.aclose()

    # --- asking -------------------------------------------------------------------------------------------

    def find(self, session_id: str, command: str) -> Session | None:
        """Return the session that ``command`` is for, and note its use; ``None`` if it does not live.

        Raises:
            SessionExpiredError: It has expired, and ``command`` does not begin it anew.
        """
        if command in BEGINNING and session_id not in self.table:
            return None
        session = self.table.find(session_id, self._wall_clock())
        if session is not None:
            self._unsaved_uses[session_id] = None
        return session

    def answer(
        self, session_id: str, session: Session | None, command: str, args: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Answer what needs no worker, and refuse what no worker needs to see.

        Returns:
            The result, or ``None`` if a worker has to be asked.

        Raises:
            InvalidArgumentError: The id of a program is missing or no string.
            ProgramNotFoundError: The session has no such program.
            ProgramExistsError: The session has it already.
        """
        programs = session.record.programs if session is not None else {}
        if command == "list_programs":
            return {"programs": [_listing(each) for each in programs.values()], "total_count": len(programs)}
        if command not in USING and command not in ("create_program", "load_program"):
            return None
        program_id = _program_id(command, args)
        if command == "create_program" and program_id in programs:
            raise _exists(session_id, program_id)
        if command in USING and program_id not in programs:
            raise ProgramNotFoundError(
                f"Program not found: {program_id}",
                type="ProgramNotFound",
                command=command,
                program_id=program_id,
                session_id=session_id,
            )
        return _info(programs[program_id]) if command == "get_program_info" else None

    # --- changing -----------------------------------------------------------------------------------------

    def begin(self, session_id: str) -> Session:
        """Begin a session.

        Raises:
            SessionLimitError: ``max_sessions`` live already.
        """
        now = self._wall_clock()
        return self.table.begin(SessionRecord(id=session_id, created_at=now, last_used=now))

    async def commit(self, session: Session, command: str, args: Mapping[str, Any]) -> ProgramRecord | None:
        """Keep what a command has changed in a session.

        Returns:
            The program as it is kept now, if the command made one.

        Raises:
            ProgramExistsError: Another caller has created it meanwhile; that one stays.
            SessionNotFoundError: The session was ended meanwhile.
            SessionStoreError: The store could not be changed; nothing has changed.

        Cancellation: The change is made all the same.
        """
        if command == "execute_program":
            self._count_execution(session, str(args["program_id"]))
        if command not in BEGINNING:
            return None
        program = None
        with trio.CancelScope(shield=True):
            async with session.lock:
                self._require_live(session)
                if command == "configure_lm":
                    await self._keep_model(session, args)
                else:
                    program = await self._keep_program(session, command, args)
        return program

    async def _keep_program(self, session: Session, command: str, args: Mapping[str, Any]) -> ProgramRecord:
        program_id = _program_id(command, args)
        old = session.program(program_id)
        if command == "create_program" and old is not None:
            raise _exists(session.id, program_id)
        program = ProgramRecord(
            id=program_id,
            definition=_definition(args) if command == "create_program" else dict(args["definition"]),
            state=args.get("state"),
            revision=session.revision + 1,
            created_at=old.created_at if old is not None else self._wall_clock(),
        )
        if not session.record.programs:
            await self._store.put_session(session.record)
        await self._store.put_program(session.id, program)
        session.revision = program.revision
        session.record.programs[program_id] = program
        return program

    async def _keep_model(self, session: Session, args: Mapping[str, Any]) -> None:
        lm = {name: value for name, value in args.items() if name != "session_id" and name not in _SECRETS}
        record = msgspec.structs.replace(session.record, lm=lm)
        await self._store.put_session(record)
        session.record = record
        session.lm_secrets = {name: args[name] for name in _SECRETS if name in args}
        session.lm_revision += 1

    async def delete_program(self, session: Session, program_id: str) -> dict[str, Any]:
        """Delete a program; copies that workers hold are out of date from now on.

        Raises:
            SessionStoreError: The store could not be changed; the program is still there.

        Cancellation: The program is deleted all the same.
        """
        with trio.CancelScope(shield=True):
            async with session.lock:
                await self._store.delete_program(session.id, program_id)
                session.record.programs.pop(program_id, None)
        return {"program_id": program_id, "status": "deleted"}

    async def end(self, session_id: str) -> Session | None:
        """End a session and return it, if it lived.

        Raises:
            SessionStoreError: The store could not be changed; the session lives on.

        Cancellation: The session ends all the same.
        """
        session = self.table.peek(session_id)
        if session is None:
            self.table.end(session_id)
            await trio.lowlevel.checkpoint()
            return None
        with trio.CancelScope(shield=True):
            async with session.lock:
                await self._store.delete_session(session_id)
                self.table.end(session_id)
        return session

    async def expire(self) -> list[Session]:
        """End and return the sessions whose time to live is over.

        Cancellation: Those returned by the table are out of the store all the same.
        """
        gone = self.table.expire(self._wall_clock())
        with trio.CancelScope(shield=True):
            for session in gone:
                async with session.lock:
                    await self._store.delete_session(session.id)
        return gone

    async def save_uses(self) -> None:
        """Save when sessions were used, and how often their programs ran.

        Cancellation: What is not saved now is told with the next change of it.
        """
        uses, counts = self._unsaved_uses, self._unsaved_counts
        self._unsaved_uses, self._unsaved_counts = {}, {}
        live = {
            session_id: self.table.peek(session_id)
            for session_id in uses | dict.fromkeys(s for s, _ in counts)
        }
        times = [(each.id, each.record.last_used) for each in live.values() if each is not None]
        totals = [
            ExecutionTotal(session_id, program_id, program.execution_count, program.last_executed or 0.0)
            for session_id, program_id in counts
            if (session := live[session_id]) is not None
            and (program := session.program(program_id)) is not None
        ]
        if times:
            await self._store.touch(times)
        if totals:
            await self._store.count_executions(totals)

    def _count_execution(self, session: Session, program_id: str) -> None:
        program = session.program(program_id)
        if program is not None:
            program.execution_count += 1
            program.last_executed = self._wall_clock()
            self._unsaved_counts[session.id, program_id] = None

    def _require_live(self, session: Session) -> None:
        if self.table.peek(session.id) is not session:
            raise SessionNotFoundError(
                f"session {session.id!r} was ended while this command ran; nothing was kept.",
                session_id=session.id,
            )


def _program_id(command: str, args: Mapping[str, Any]) -> str:
    name = "id" if command == "create_program" else "program_id"
    program_id = args.get(name)
    if not isinstance(program_id, str) or not program_id:
        raise InvalidArgumentError(
            f"{command} needs {name!r}, a string that is not empty; got {program_id!r}.", argument=name
        )
    return program_id


def _exists(session_id: str, program_id: str) -> ProgramExistsError:
    return ProgramExistsError(
        f"Program with ID '{program_id}' already exists.",
        type="ProgramExists",
        command="create_program",
        program_id=program_id,
        session_id=session_id,
    )


def _definition(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a program, out of the arguments of ``create_program``."""
    return {name: value for name, value in args.items() if name not in ("id", "session_id", "state")}


def _listing(program: ProgramRecord) -> dict[str, Any]:
    return {
        "id": program.id,
        "program_type": program.definition.get("program_type", "predict"),
        "created_at": program.created_at,
        "execution_count": program.execution_count,
        "last_executed": program.last_executed,
    }


def _info(program: ProgramRecord) -> dict[str, Any]:
    return {
        "program_id": program.id,
        "signature": program.definition.get("signature"),
        "created_at": program.created_at,
        "execution_count": program.execution_count,
        "last_executed": program.last_executed,
    }
