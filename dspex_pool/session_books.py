"""The sessions of a pool and their store: what begins, changes, expires and ends. Knows no worker.

The table in memory answers, the store keeps; a change is in the store before it is in the table, so that what a
caller was told is never lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import trio

from dspex_pool.errors import (
    InvalidArgumentError,
    ProgramExistsError,
    ProgramNotFoundError,
    SessionNotFoundError,
    SessionStoreError,
)
from dspex_pool.session_store import ExecutionTotal, ProgramRecord, SessionRecord
from dspex_pool.session_table import Session, SessionTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dspex_pool.session_store import SessionStore

__all__ = ["BEGINNING", "USING", "Kept", "SessionBooks"]

_log = logging.getLogger("dspex_pool")

#: Commands that begin a session that does not live yet.
BEGINNING = frozenset({"create_program", "load_program", "configure_lm"})

#: Commands that need a program of the session.
USING = frozenset({"execute_program", "get_program_info", "delete_program", "dump_program"})

#: Arguments of ``configure_lm`` that live in memory only.
_SECRETS = ("api_key",)


class Kept(NamedTuple):
    """What a commit has kept."""

    #: The id of the program, or ``None`` for a language model.
    program_id: str | None
    #: The revision of the program, or of the session's language model.
    revision: int
    #: Whether the session began with it.
    is_first: bool


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
        #: Sessions that have expired, and that the store still has.
        self._undeleted: dict[str, None] = {}

    async def load(self) -> None:
        """Take over what the store has kept.

        Cancellation: Nothing has changed.
        """
        self.table.fill(await self._store.load_all())

    async def aclose(self) -> None:
        """Save what is unsaved and close the store. Uses that cannot be saved are reported to the log alone.

        Cancellation: Both are done all the same.
        """
        with trio.CancelScope(shield=True):
            try:
                await self.save()
            except SessionStoreError as error:
                # Nobody was told that they are saved, and whatever ends the pool matters more.
                _log.warning("the last uses of sessions are not in the store: %s", error)
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
            InvalidArgumentError: The id or the definition of a program is missing or of the wrong type.
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
            raise _not_found(session_id, program_id, command)
        if command == "load_program" and not isinstance(args.get("definition"), Mapping):
            raise InvalidArgumentError(
                "load_program needs 'definition', an object as dump_program gives it.", argument="definition"
            )
        return _info(programs[program_id]) if command == "get_program_info" else None

    # --- changing -----------------------------------------------------------------------------------------

    def begin(self, session_id: str) -> Session:
        """Begin a session; until something of it is kept, ``leave`` ends it again.

        Raises:
            SessionLimitError: ``max_sessions`` live already.
        """
        now = self._wall_clock()
        session = self.table.begin(SessionRecord(id=session_id, created_at=now, last_used=now))
        # What the store may still have under this id is replaced by the first commit.
        self._undeleted.pop(session_id, None)
        return session

    def enter(self, session: Session) -> None:
        """Note that a command of a session begins."""
        session.users += 1

    def leave(self, session: Session) -> bool:
        """Note that a command of a session has ended; one of which nothing was kept has never begun.

        Returns:
            Whether no session of this id lives any more, so that what workers hold of it is in the way.
        """
        session.users -= 1
        if self.table.is_live(session):
            if session.is_kept or session.users:
                self.table.touch(session, self._wall_clock())
                self._unsaved_uses[session.id] = None
            else:
                self.table.end(session.id)
        return session.id not in self.table

    async def commit(self, session: Session, command: str, args: Mapping[str, Any]) -> Kept | None:
        """Keep what a command has changed in a session.

        Returns:
            What was kept, if anything was to be.

        Raises:
            ProgramExistsError: Another caller has created it meanwhile; that one stays.
            SessionNotFoundError: The session was ended meanwhile.
            SessionStoreError: The store could not be changed; nothing has changed.

        Cancellation: The change is made all the same.
        """
        if command not in BEGINNING:
            return None
        kept = None
        with trio.CancelScope(shield=True):
            async with session.lock:
                self._require_live(session)
                is_first = not session.is_kept
                if command == "configure_lm":
                    kept = Kept(None, await self._keep_model(session, args), is_first)
                else:
                    program = await self._keep_program(session, command, args)
                    kept = Kept(program.id, program.revision, is_first)
        return kept

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
        if session.is_kept:
            await self._store.put_program(session.id, program)
        else:
            # In one piece, so that the store never has a session with nothing in it.
            first = msgspec.structs.replace(session.record, programs={program_id: program})
            await self._store.put_session(first)
            session.is_kept = True
        session.revision = program.revision
        session.record.programs[program_id] = program
        return program

    async def _keep_model(self, session: Session, args: Mapping[str, Any]) -> int:
        lm = {name: value for name, value in args.items() if name != "session_id" and name not in _SECRETS}
        await self._store.put_session(msgspec.structs.replace(session.record, lm=lm))
        session.is_kept = True
        session.record.lm = lm
        session.lm_secrets = {name: args[name] for name in _SECRETS if name in args}
        session.lm_revision += 1
        return session.lm_revision

    async def delete_program(self, session: Session, program_id: str) -> dict[str, Any]:
        """Delete a program; copies that workers hold are out of date from now on.

        Raises:
            ProgramNotFoundError: Another caller has deleted it meanwhile.
            SessionNotFoundError: The session was ended meanwhile.
            SessionStoreError: The store could not be changed; the program is still there.

        Cancellation: The program is deleted all the same.
        """
        with trio.CancelScope(shield=True):
            async with session.lock:
                self._require_live(session)
                if session.program(program_id) is None:
                    raise _not_found(session.id, program_id, "delete_program")
                await self._store.delete_program(session.id, program_id)
                del session.record.programs[program_id]
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
                if not self.table.is_live(session):
                    return None
                await self._store.delete_session(session_id)
                self.table.end(session_id)
        return session

    # --- time ---------------------------------------------------------------------------------------------

    def expire(self) -> list[Session]:
        """End and return the sessions whose time to live is over; ``save`` takes them out of the store."""
        gone = self.table.expire(self._wall_clock())
        self._undeleted.update(dict.fromkeys(session.id for session in gone if session.is_kept))
        return gone

    async def save(self) -> None:
        """Take expired sessions out of the store; save when sessions were used, and how often their programs ran.

        Raises:
            SessionStoreError: The store could not be changed; what was to be saved is saved the next time.

        Cancellation: What is not saved now is saved the next time.
        """
        while self._undeleted:
            session_id = next(iter(self._undeleted))
            await self._store.delete_session(session_id)
            self._undeleted.pop(session_id, None)
        uses, counts = self._unsaved_uses, self._unsaved_counts
        self._unsaved_uses, self._unsaved_counts = {}, {}
        try:
            await self._save_uses(uses, counts)
        except BaseException:
            self._unsaved_uses = uses | self._unsaved_uses
            self._unsaved_counts = counts | self._unsaved_counts
            raise

    async def _save_uses(self, uses: Iterable[str], counts: Iterable[tuple[str, str]]) -> None:
        sessions = [session for session_id in uses if (session := self._kept(session_id)) is not None]
        if sessions:
            await self._store.touch([(session.id, session.record.last_used) for session in sessions])
        totals = [
            ExecutionTotal(session.id, program.id, program.execution_count, program.last_executed or 0.0)
            for session_id, program_id in counts
            if (session := self._kept(session_id)) is not None
            and (program := session.program(program_id)) is not None
        ]
        if totals:
            await self._store.count_executions(totals)

    def _kept(self, session_id: str) -> Session | None:
        session = self.table.peek(session_id)
        return session if session is not None and session.is_kept else None

    def count_execution(self, session: Session, program_id: str) -> None:
        """Note that a program was run, whether or not it succeeded."""
        program = session.program(program_id)
        if program is not None:
            program.execution_count += 1
            program.last_executed = self._wall_clock()
            self._unsaved_counts[session.id, program_id] = None

    def _require_live(self, session: Session) -> None:
        if not self.table.is_live(session):
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


def _not_found(session_id: str, program_id: str, command: str) -> ProgramNotFoundError:
    return ProgramNotFoundError(
        f"Program not found: {program_id}",
        type="ProgramNotFound",
        command=command,
        program_id=program_id,
        session_id=session_id,
    )


def _definition(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a program, out of the arguments of ``create_program``."""
    return {name: value for name, value in args.items() if name not in ("id", "session_id", "state")}


def _listing(program: ProgramRecord) -> dict[str, Any]:
    return {
        "id": program.id,
        "program_type": _kind(program.definition),
        "created_at": program.created_at,
        "execution_count": program.execution_count,
        "last_executed": program.last_executed,
    }


def _kind(definition: Mapping[str, Any]) -> str:
    """Return a program's kind as a worker tells it: clients send the default kind along with a factory."""
    return "factory" if definition.get("factory") is not None else definition.get("program_type", "predict")


def _info(program: ProgramRecord) -> dict[str, Any]:
    return {
        "program_id": program.id,
        "signature": program.definition.get("signature"),
        "created_at": program.created_at,
        "execution_count": program.execution_count,
        "last_executed": program.last_executed,
    }
