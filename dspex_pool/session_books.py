"""The sessions of a pool and their store: what begins, changes, expires and ends. Knows no worker.

The table in memory answers, the store keeps; a change is in the store before it is in the table, so that what a
caller was told is never lost.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import trio

from dspex_pool.errors import PoolClosedError, SessionNotFoundError
from dspex_pool.logs import PoolLog
from dspex_pool.session_answers import BEGINNING, already_exists, not_found, program_id_of
from dspex_pool.session_store import ExecutionTotal, ProgramRecord, SessionRecord
from dspex_pool.session_table import KEY_BY_VALUE, Session, SessionTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dspex_pool.session_store import SessionStore

__all__ = ["Kept", "SessionBooks"]

_log = PoolLog("dspex_pool")

_NOT_SAVED = "the last uses of sessions are not in the store"

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
        #: Gives seconds that nobody sets; sessions live by it.
        self.clock: Callable[[], float] = trio.current_time
        #: What the wall clock was ahead of the other at first.
        self._ahead: float | None = None
        self._unsaved_uses: dict[str, None] = {}
        self._unsaved_counts: dict[tuple[str, str], None] = {}
        #: Programs, each with its session's id, of which the store is being given another.
        self._overwriting: set[tuple[str, str]] = set()
        #: Sessions that have expired, and that the store still has.
        self._undeleted: dict[str, None] = {}

    async def load(self) -> None:
        """Take over what the store has kept.

        Cancellation: Nothing has changed.
        """
        self.table.fill(await self._store.load_all())

    async def aclose(self, timeout: float = math.inf) -> None:
        """Save what is unsaved and close the store. Uses that cannot be saved are reported to the log alone.

        Args:
            timeout: Seconds that the store has for the saving, and again for its closing.

        Cancellation: Both are done all the same.
        """
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout) as saving:
                await self.save()
            if saving.cancelled_caught:
                _log.warning("%s: it took longer than %g s", _NOT_SAVED, timeout)
        except Exception as error:
            # Nobody was told that they are saved, and whatever ends the pool matters more.
            _log.warning("%s: %s", _NOT_SAVED, error)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout) as closing:
                await self._store.aclose()
            if closing.cancelled_caught:
                _log.warning("the session store did not close within %g s", timeout)

    def now(self) -> float:
        """Return the seconds since 1970 as they would be if the wall clock had not been set since the first call."""
        now = self.clock()
        if self._ahead is None:
            self._ahead = self._wall_clock() - now
        return now + self._ahead

    # --- asking -------------------------------------------------------------------------------------------

    def find(self, session_id: str, command: str, now: float) -> Session | None:
        """Return the session that ``command`` is for, and note its use; ``None`` if it does not live.

        Raises:
            SessionExpiredError: It has expired, and ``command`` does not begin it anew.
        """
        if command in BEGINNING and session_id not in self.table:
            return None
        session = self.table.find(session_id, now)
        if session is not None:
            self._unsaved_uses[session_id] = None
        return session

    # --- changing -----------------------------------------------------------------------------------------

    def begin(self, session_id: str) -> Session:
        """Begin a session; until something of it is kept, ``leave`` ends it again.

        Raises:
            SessionLimitError: ``max_sessions`` live already.
        """
        record = SessionRecord(id=session_id, created_at=self._wall_clock(), last_used=self.now())
        session = self.table.begin(record)
        # What the store may still have under this id is replaced by the first commit, if there is one.
        session.replaces_expired = session_id in self._undeleted
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
                self.table.touch(session, self.now())
                self._unsaved_uses[session.id] = None
            else:
                self.table.end(session.id)
                self._note_undeleted(session)
        return session.id not in self.table

    @trio.lowlevel.enable_ki_protection
    async def commit(self, session: Session, command: str, args: Mapping[str, Any]) -> Kept | None:
        """Keep what a command has changed in a session.

        Returns:
            What was kept, if anything was to be.

        Raises:
            ProgramExistsError: Another caller has created it meanwhile; that one stays.
            SessionNotFoundError: The session was ended meanwhile.
            SessionStoreError: The store could not be changed; nothing has changed.
            PoolClosedError: The store is closed already; nothing has changed.

        Cancellation: The change is made all the same.
        """
        if command not in BEGINNING:
            return None
        kept = None
        with _uninterrupted():
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
        program_id = program_id_of(command, args)
        old = session.program(program_id)
        if command == "create_program" and old is not None:
            raise already_exists(session.id, program_id)
        program = ProgramRecord(
            id=program_id,
            definition=_definition(args) if command == "create_program" else dict(args["definition"]),
            state=args.get("state"),
            revision=session.revision + 1,
            created_at=old.created_at if old is not None else self._wall_clock(),
        )
        if session.is_kept:
            await self._put_program(session.id, program)
        else:
            # In one piece, so that the store never has a session with nothing in it.
            first = msgspec.structs.replace(session.record, programs={program_id: program})
            await self._store.put_session(first)
            session.is_kept = True
        session.revision = program.revision
        session.record.programs[program_id] = program
        return program

    async def _put_program(self, session_id: str, program: ProgramRecord) -> None:
        self._overwriting.add((session_id, program.id))
        try:
            await self._store.put_program(session_id, program)
        finally:
            self._overwriting.discard((session_id, program.id))

    async def _keep_model(self, session: Session, args: Mapping[str, Any]) -> int:
        lm = {name: value for name, value in args.items() if name != "session_id" and name not in _SECRETS}
        secrets = {name: args[name] for name in _SECRETS if args.get(name) is not None}
        if secrets:
            lm[KEY_BY_VALUE] = True
        await self._store.put_session(msgspec.structs.replace(session.record, lm=lm))
        session.is_kept = True
        session.record.lm = lm
        session.lm_secrets = secrets
        session.lm_revision += 1
        return session.lm_revision

    @trio.lowlevel.enable_ki_protection
    async def delete_program(self, session: Session, program_id: str) -> dict[str, Any]:
        """Delete a program; copies that workers hold are out of date from now on.

        Raises:
            ProgramNotFoundError: Another caller has deleted it meanwhile.
            SessionNotFoundError: The session was ended meanwhile.
            SessionStoreError: The store could not be changed; the program is still there.
            PoolClosedError: The store is closed already; the program is still there.

        Cancellation: The program is deleted all the same.
        """
        with _uninterrupted():
            async with session.lock:
                self._require_live(session)
                if session.program(program_id) is None:
                    raise not_found(session.id, program_id, "delete_program")
                await self._store.delete_program(session.id, program_id)
                del session.record.programs[program_id]
        return {"program_id": program_id, "status": "deleted"}

    @trio.lowlevel.enable_ki_protection
    async def end(self, session_id: str) -> Session | None:
        """End a session and return it, if it lived.

        Raises:
            SessionStoreError: The store could not be changed; the session lives on.
            PoolClosedError: The store is closed already; the session is still there.

        Cancellation: The session ends all the same.
        """
        session = self.table.peek(session_id)
        if session is None:
            await self._end_expired(session_id)
            return None
        with _uninterrupted():
            async with session.lock:
                if not self.table.is_live(session):
                    return None
                await self._store.delete_session(session_id)
                self.table.end(session_id)
        return session

    @trio.lowlevel.enable_ki_protection
    async def _end_expired(self, session_id: str) -> None:
        """Forget a session that does not live any more, if there was one, in the store as well."""
        if session_id not in self._undeleted:
            self.table.end(session_id)
            await trio.lowlevel.checkpoint()
            return
        with _uninterrupted():
            await self._store.delete_session(session_id)
        self._undeleted.pop(session_id, None)
        # It may have begun anew meanwhile.
        if session_id not in self.table:
            self.table.end(session_id)

    # --- time ---------------------------------------------------------------------------------------------

    def expire(self, now: float) -> list[Session]:
        """End and return the sessions whose time to live is over; ``save`` takes them out of the store."""
        gone = self.table.expire(now)
        for session in gone:
            self._note_undeleted(session)
        return gone

    def _note_undeleted(self, session: Session) -> None:
        if session.is_kept or session.replaces_expired:
            self._undeleted[session.id] = None

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
        # The total of a program that is being overwritten would come to the store behind the new one, and stay there.
        later = {key: counts.pop(key) for key in self._overwriting & counts.keys()}
        self._unsaved_uses, self._unsaved_counts = {}, later
        try:
            await self._save_uses(uses, counts)
        except BaseException:
            self._unsaved_uses = uses | self._unsaved_uses
            self._unsaved_counts = counts | self._unsaved_counts
            raise

    async def _save_uses(self, uses: Iterable[str], counts: Iterable[tuple[str, str]]) -> None:
        sessions = [session for session_id in uses if (session := self._kept(session_id)) is not None]
        if sessions:
            # Whoever opens the store next knows the wall clock alone, as it is then.
            was_set = self._wall_clock() - self.now()
            await self._store.touch(
                [(session.id, session.record.last_used + was_set) for session in sessions]
            )
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


def _definition(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a program, out of the arguments of ``create_program``."""
    return {name: value for name, value in args.items() if name not in ("id", "session_id", "state")}


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Make a change whatever is being cancelled; the end of the pool is told as such."""
    with trio.CancelScope(shield=True):
        try:
            yield
        except trio.ClosedResourceError as error:
            raise PoolClosedError("the pool was closed before the change was made.") from error
