"""Sessions on a pool of workers: whose programs are where, and what a worker must be told first.

The session store is the truth and a worker's memory a cache of it (``worker_memory.py``). A command that changes a
session runs in a worker first, so that nonsense is refused, and is committed to the store before the caller gets
its answer. When a session meets a worker that lacks something of it, that is sent ahead in the same lease. So any
worker can be lost at any instant, and no session with it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import trio

from dspex_pool.call_policy import delay_before_retry
from dspex_pool.config import PoolConfig
from dspex_pool.errors import DspexPoolError, PoolClosedError, ProgramError, SessionStoreError
from dspex_pool.logs import PoolLog
from dspex_pool.session_answers import BEGINNING, USING, answer
from dspex_pool.session_books import SessionBooks
from dspex_pool.session_call import (
    ANONYMOUS,
    Call,
    Reply,
    check_affinity,
    check_args,
    check_on_event,
    check_retries,
    check_timeout,
    own_copy,
)
from dspex_pool.session_lease import CALL_EVENTS, SessionLease, forget_ended, memory_of
from dspex_pool.session_store import MemorySessionStore
from dspex_pool.session_table import check_session_id
from dspex_pool.worker_memory import DefaultModel, WorkerMemory
from dspex_pool.worker_pool import WorkerPool

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from dspex_pool.protocol import Event
    from dspex_pool.session_books import Kept
    from dspex_pool.session_call import CallTally
    from dspex_pool.session_store import SessionStore
    from dspex_pool.session_table import Session
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.port import PortFactory

__all__ = ["SessionPool"]

_log = PoolLog("dspex_pool")

_OF_SESSIONS = (BEGINNING | USING | {"list_programs", "cleanup_session"}) - {"configure_lm"}


class SessionPool:
    """Commands in sessions: ``async with SessionPool(ports, config) as pool``.

    Args:
        ports: Starts worker processes.
        config: The settings.
        telemetry: Where events go.
        store: Where sessions are kept; in memory by default. It is closed with the pool.
        wall_clock: Gives seconds since 1970.
        random: Source of the back-off's spread.
    """

    def __init__(
        self,
        ports: PortFactory,
        config: PoolConfig | None = None,
        *,
        telemetry: Telemetry | None = None,
        store: SessionStore | None = None,
        wall_clock: Callable[[], float] = time.time,
        random: random.Random | None = None,
    ) -> None:
        self.config = config if config is not None else PoolConfig()
        self.workers = WorkerPool(ports, self.config, telemetry=telemetry, random=random)
        self.telemetry = self.workers.telemetry
        #: Where calls are counted; each monitor has its own.
        self.tallies: tuple[CallTally, ...] = ()
        self._books = SessionBooks(
            store if store is not None else MemorySessionStore(),
            time_to_live=self.config.session_ttl,
            max_sessions=self.config.max_sessions,
            wall_clock=wall_clock,
        )
        self._default_model: DefaultModel | None = None
        self._housework = trio.Event()
        self._is_entered = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise PoolClosedError("a pool cannot be opened twice. Make a new one.")
        self._is_entered = True
        try:
            await self._books.load()
            await self.workers.__aenter__()
            self._books.clock = self.workers.now  # which each call reads twice
        except BaseException:
            await self._books.aclose(self.config.close_timeout)
            raise
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.workers.__aexit__(kind, error, traceback)
        finally:
            await self._books.aclose(self.config.close_timeout)

    # --- commands ------------------------------------------------------------------------------------------

    async def execute_in_session(
        self,
        session_id: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        idempotent: bool = False,
        affinity: str | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Reply:
        """Run a command for a session, which begins with its first program or language model.

        Args:
            session_id: Whose command it is; 1 to 256 bytes.
            command: Name of the command.
            args: Its arguments, a JSON object; ``session_id`` is added.
            timeout: Seconds to wait for the answer once a worker is found; by default ``call_timeout``.
            retries: Further tries on another worker after a worker was lost; by default ``retries`` of the
                settings. Without ``idempotent`` only while the lost worker cannot have begun the command.
            idempotent: Whether running the command twice does no harm. Then failures that the worker calls
                retryable are tried again too.
            affinity: ``hint``, ``strict`` or ``strict_nowait``; by default that of the settings.
            on_event: Called with each ``chunk`` and ``progress`` event.

        Raises:
            InvalidArgumentError: An argument cannot be used.
            SessionExpiredError: The session was idle for too long.
            SessionLimitError: ``max_sessions`` live already.
            ProgramNotFoundError: The session has no such program.
            ProgramExistsError: The session has that program already.
            ProgramError: The command failed in the worker.
            CheckoutError: No worker was lent; see ``WorkerPool.checkout``.
            WorkerError: The worker was lost or too slow.
            SessionStoreError: The change could not be committed.

        Cancellation: The caller leaves at once. The change of a session is in the store if its commit had begun.
        """
        if not isinstance(session_id, str) or session_id not in self._books.table:
            check_session_id(session_id)
        self.workers.require_open()
        if not isinstance(args, dict):
            args = check_args(command, args)
        if command == "cleanup_session":
            return Reply(await self.end_session(session_id))
        now = self._books.now()
        if now >= self._books.table.next_expiry:
            self._expire(now)
        session = self._books.find(session_id, command, now)
        if command in _OF_SESSIONS:
            known = answer(session_id, session.record.programs if session is not None else {}, command, args)
            if known is not None:
                await trio.lowlevel.checkpoint()
                return Reply(known)
            if command == "delete_program" and session is not None:
                return Reply(await self._books.delete_program(session, args["program_id"]))
        call = self._call(session_id, command, args, timeout, retries, idempotent, on_event)
        call.affinity = self.config.affinity if affinity is None else check_affinity(affinity)
        if session is None and command in BEGINNING:
            session = self._books.begin(session_id)
        call.session = session
        return await (self._run(call) if session is None else self._run_in(session, call))

    async def execute_anonymous(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        idempotent: bool = False,
        on_event: Callable[[Event], None] | None = None,
    ) -> Reply:
        """Run a command on any worker, for nobody in particular.

        Programs belong to sessions, so those commands run in the session ``anonymous``; all others run as
        they are, without a session. ``configure_lm``, whatever session its arguments name, sets the language model
        of all sessions that have none of their own, on all workers, present and future. Arguments and errors are
        those of ``execute_in_session``.

        Cancellation: The caller leaves at once. A language model that was being set is not set.
        """
        if command in _OF_SESSIONS:
            return await self.execute_in_session(
                ANONYMOUS,
                command,
                args,
                timeout=timeout,
                retries=retries,
                idempotent=idempotent,
                on_event=on_event,
            )
        if not isinstance(args, dict):
            args = check_args(command, args)
        if command == "configure_lm":
            # A worker that found a session there would set the model of that one alone.
            args = {name: value for name, value in args.items() if name != "session_id"}
        call = self._call(None, command, args, timeout, retries, idempotent, on_event)
        reply = await self._run(call)
        if command == "configure_lm" and call.memory is not None:
            revision = self._default_model.revision + 1 if self._default_model is not None else 1
            self._default_model = DefaultModel(revision, call.args)
            call.memory.confirm_model(None, call.mark, revision)
        return reply

    async def end_session(self, session_id: str) -> dict[str, Any]:
        """End a session: it is out of the store at once, and every worker forgets it as soon as it is free.

        Returns:
            ``{"status": "cleaned", "session_id", "programs_removed"}``; no programs if there was no session.

        Raises:
            PoolClosedError: The pool is closed.
            SessionStoreError: The store could not be changed; the session lives on.

        Cancellation: Once begun, the session ends all the same.
        """
        session_id = check_session_id(session_id)
        self.workers.require_open()
        session = await self._books.end(session_id)
        if session_id not in self._books.table:
            self._let_go(session_id)
        removed = len(session.record.programs) if session is not None else 0
        if session is not None and session.is_kept:
            self.telemetry.emit("session_ended", {"count": 1}, {"session": session_id})
        return {"status": "cleaned", "session_id": session_id, "programs_removed": removed}

    def session_ids(self) -> list[str]:
        """Return the ids of all live sessions, least recently used first."""
        return self._books.table.ids()

    # --- one command -----------------------------------------------------------------------------------------

    def _call(
        self,
        session_id: str | None,
        command: str,
        args: Mapping[str, Any],
        timeout: float | None,
        retries: int | None,
        idempotent: bool,
        on_event: Callable[[Event], None] | None,
    ) -> Call:
        timeout = check_timeout(self.config.call_timeout if timeout is None else timeout)
        retries = self.config.retries if retries is None else check_retries(retries)
        if on_event is not None:
            check_on_event(on_event)
        args = own_copy(args) if command in BEGINNING else dict(args)
        if session_id is not None:
            args["session_id"] = session_id
        return Call(session_id, None, command, args, timeout, retries, idempotent, on_event=on_event)

    async def _run_in(self, session: Session, call: Call) -> Reply:
        """Run a command of a live session, and keep what it changes."""
        self._books.enter(session)
        try:
            reply = await self._run(call)
            kept = await self._books.commit(session, call.command, call.args)
        except ProgramError:
            # Not if the worker refused what it must be told first: then the program has not run.
            if call.begun:
                self._count(call)
            raise
        finally:
            if self._books.leave(session):
                self._let_go(session.id)
        self._count(call)
        if kept is not None:
            if kept.is_first:
                self.telemetry.emit("session_started", {"count": 1}, {"session": session.id})
            self._confirm(call, kept)
        return reply

    def _count(self, call: Call) -> None:
        if call.session is not None and call.command == "execute_program":
            self._books.count_execution(call.session, call.args["program_id"])

    @staticmethod
    def _confirm(call: Call, kept: Kept) -> None:
        assert call.memory is not None
        assert call.session is not None
        if kept.program_id is None:
            call.memory.confirm_model(call.session.id, call.mark, kept.revision)
        else:
            call.memory.confirm_program(call.session.id, kept.program_id, call.mark, kept.revision)

    async def _run(self, call: Call) -> Reply:
        began = self.workers.now()
        # Nobody's programs have no home: they go wherever there is room.
        home = call.session_id if call.session_id != ANONYMOUS else None
        is_live = self._books.table.is_live
        attempt = 1
        while True:
            call.begun = False
            try:
                async with self.workers.checkout(session=home, affinity=call.affinity) as lease:
                    work = SessionLease(lease, call, memory_of(lease), self._default_model, is_live)
                    if self.telemetry.heard[CALL_EVENTS]:
                        result = await work.run_told(self.telemetry, self.tallies, attempt)
                    else:
                        result = await work.run(self.tallies)
            except DspexPoolError as error:
                error.attempts = attempt
                delay = delay_before_retry(
                    error, attempt=attempt, retries=call.retries, idempotent=call.idempotent, begun=call.begun
                )
                if delay is None:
                    raise
                attempt += 1
                about = {"session": call.session_id, "command": call.command, "reason": type(error).__name__}
                self.telemetry.emit("call_retry", {"attempt": attempt}, about)
                await trio.sleep(delay)
            else:
                usage = result.get("usage") if isinstance(result, dict) else None
                return Reply(result, lease.worker.worker_id, attempt, call.ended - began, usage)

    # --- housekeeping ----------------------------------------------------------------------------------------

    async def keep_house(self) -> None:
        """Expire sessions, have idle workers forget what has ended, save when sessions were used. For ever.

        A store that refuses costs nobody his pool: it is told to the log, once, and what was to be saved is saved
        as soon as the store is well again.

        Cancellation: What is not done now is done by the next who keeps house, or at the end.
        """
        is_well = True
        while True:
            with trio.move_on_after(self.config.monitor_interval):
                await self._housework.wait()
            self._housework = trio.Event()
            self._expire(self._books.now())
            for worker in self.workers.workers():
                if isinstance(worker.state, WorkerMemory) and worker.state.cleaning():
                    # One in use is cleaned before its next command, or in the next round.
                    claim = self.workers.claim(worker)
                    if claim is not None:
                        async with claim as lease:
                            await forget_ended(lease, timeout=self.config.ping_timeout)
            is_well = await self._save(was_well=is_well)

    async def _save(self, *, was_well: bool) -> bool:
        """Save what is unsaved; tell whether the store is well, and tell the log when that has changed."""
        try:
            await self._books.save()
        except SessionStoreError as error:
            if was_well:
                _log.warning("uses and ends of sessions cannot be saved now, and are saved later: %s", error)
            return False
        if not was_well:
            _log.info("uses and ends of sessions are saved again")
        return True

    def _expire(self, now: float) -> None:
        for session in self._books.expire(now):
            self._let_go(session.id)
            if session.is_kept:
                self.telemetry.emit("session_expired", {"count": 1}, {"session": session.id})

    def _let_go(self, session_id: str) -> None:
        """Have every worker that may hold something of an ended session forget it when it is free."""
        self.workers.forget_session(session_id)
        for worker in self.workers.workers():
            if isinstance(worker.state, WorkerMemory) and worker.state.note_ended(session_id):
                self._housework.set()
