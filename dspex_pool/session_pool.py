"""Sessions on a pool of workers: whose programs are where, and what a worker must be told first.

The session store is the truth and a worker's memory a cache of it (``worker_memory.py``). A command that changes a
session runs in a worker first, so that nonsense is refused, and is committed to the store before the caller gets
its answer. When a session meets a worker that lacks something of it, that is sent ahead in the same lease. So any
worker can be lost at any instant, and no session with it.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, Self

import trio

from dspex_pool.call_policy import delay_before_retry
from dspex_pool.config import PoolConfig
from dspex_pool.errors import DspexPoolError, ProgramError, ProgramNotFoundError, WorkerDiedError, WorkerError
from dspex_pool.session_books import BEGINNING, USING, SessionBooks
from dspex_pool.session_call import ANONYMOUS, Call, Reply
from dspex_pool.session_store import MemorySessionStore
from dspex_pool.session_table import check_session_id
from dspex_pool.worker_memory import DefaultModel, Step, WorkerMemory
from dspex_pool.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from dspex_pool.protocol import Event
    from dspex_pool.session_store import SessionStore
    from dspex_pool.session_table import Session
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.port import PortFactory
    from dspex_pool.worker import Lease
    from dspex_pool.worker_pool import Checkout

__all__ = ["SessionPool"]

_OF_SESSIONS = (BEGINNING | USING | {"list_programs", "cleanup_session"}) - {"configure_lm"}


class SessionPool:
    """Commands in sessions: ``async with SessionPool(ports, config) as pool``.

    Args:
        ports: Starts worker processes.
        config: The settings.
        telemetry: Where events go.
        store: Where sessions are kept; in memory by default. It is closed with the pool.
        wall_clock: Gives seconds since 1970.
    """

    def __init__(
        self,
        ports: PortFactory,
        config: PoolConfig | None = None,
        *,
        telemetry: Telemetry | None = None,
        store: SessionStore | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config if config is not None else PoolConfig()
        self.workers = WorkerPool(ports, self.config, telemetry=telemetry)
        self.telemetry = self.workers.telemetry
        self._books = SessionBooks(
            store if store is not None else MemorySessionStore(),
            time_to_live=self.config.session_ttl,
            max_sessions=self.config.max_sessions,
            wall_clock=wall_clock,
        )
        self._default_model: DefaultModel | None = None
        self._housework = trio.Event()
        # Below zero, so that a mark is never taken for a revision.
        self._marks = itertools.count(-1, -1)

    async def __aenter__(self) -> Self:
        await self._books.load()
        await self.workers.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.workers.__aexit__(kind, error, traceback)
        finally:
            await self._books.aclose()

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
        session_id = check_session_id(session_id)
        args = {} if args is None else args
        if command == "cleanup_session":
            return Reply(await self.end_session(session_id))
        session = self._books.find(session_id, command)
        known = self._books.answer(session_id, session, command, args)
        if known is not None:
            await trio.lowlevel.checkpoint()
            return Reply(known)
        if command == "delete_program" and session is not None:
            return Reply(await self._books.delete_program(session, args["program_id"]))
        if session is None and command in BEGINNING:
            session = await self._begin(session_id)
        call = Call(session, command, {**args, "session_id": session_id}, self._timeout(timeout), on_event)
        reply = await self._run(call, retries=retries, idempotent=idempotent, affinity=affinity)
        await self._commit(call)
        return reply

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
        they are, without a session. ``configure_lm`` sets the language model of all sessions that have none of
        their own, on all workers, present and future. Arguments, errors and cancellation are those of
        ``execute_in_session``.
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
        call = Call(None, command, dict(args or {}), self._timeout(timeout), on_event)
        reply = await self._run(call, retries=retries, idempotent=idempotent, affinity="hint")
        if command == "configure_lm":
            revision = self._default_model.revision + 1 if self._default_model is not None else 1
            self._default_model = DefaultModel(revision, call.args)
        return reply

    async def end_session(self, session_id: str) -> dict[str, Any]:
        """End a session: it is out of the store at once, and every worker forgets it as soon as it is free.

        Returns:
            ``{"status": "cleaned", "session_id", "programs_removed"}``; no programs if there was no session.

        Raises:
            SessionStoreError: The store could not be changed; the session lives on.

        Cancellation: Once begun, the session ends all the same.
        """
        session_id = check_session_id(session_id)
        session = await self._books.end(session_id)
        self.workers.forget_session(session_id)
        removed = 0
        if session is not None:
            removed = len(session.record.programs)
            self._have_forgotten(session_id)
            self.telemetry.emit("session_ended", {"count": 1}, {"session": session_id})
        return {"status": "cleaned", "session_id": session_id, "programs_removed": removed}

    def session_ids(self) -> list[str]:
        """Return the ids of all live sessions, least recently used first."""
        return self._books.table.ids()

    # --- one command -----------------------------------------------------------------------------------------

    def _timeout(self, timeout: float | None) -> float | None:
        return self.config.call_timeout if timeout is None else timeout

    async def _begin(self, session_id: str) -> Session:
        await self._expire()
        # Another task may have begun it while this one was at the store.
        session = self._books.table.peek(session_id)
        if session is None:
            session = self._books.begin(session_id)
            self.telemetry.emit("session_started", {"count": 1}, {"session": session_id})
        return session

    async def _run(self, call: Call, *, retries: int | None, idempotent: bool, affinity: str | None) -> Reply:
        began = trio.current_time()
        allowed = self.config.retries if retries is None else retries
        for attempt in itertools.count(1):
            try:
                result, worker_id = await self._try(call, affinity or self.config.affinity, attempt)
            except DspexPoolError as error:
                error.attempts = attempt
                delay = delay_before_retry(
                    error, attempt=attempt, retries=allowed, idempotent=idempotent, begun=call.begun
                )
                if delay is None:
                    raise
                about = {"session": call.session_id, "command": call.command, "reason": type(error).__name__}
                self.telemetry.emit("call_retry", {"attempt": attempt + 1}, about)
                await trio.sleep(delay)
            else:
                usage = result.get("usage") if isinstance(result, dict) else None
                return Reply(result, worker_id, attempt, trio.current_time() - began, usage)
        raise AssertionError("unreachable")

    async def _try(self, call: Call, affinity: str, attempt: int) -> tuple[Any, str]:
        call.begun = False
        # Nobody's programs have no home: they go wherever there is room.
        session_id = call.session_id if call.session_id != ANONYMOUS else None
        async with self.workers.checkout(session=session_id, affinity=affinity) as lease:
            if not self.telemetry.observed:
                return await self._request(lease, call), lease.worker_id
            about = {
                "session": call.session_id,
                "worker_id": lease.worker_id,
                "command": call.command,
                "attempts": attempt,
            }
            self.telemetry.emit("call_start", {"count": 1}, about)
            began = trio.current_time()
            try:
                result = await self._request(lease, call)
            except BaseException as error:
                about |= {"error": type(error).__name__, "reason": str(error)[:200]}
                self.telemetry.emit("call_exception", {"duration": trio.current_time() - began}, about)
                raise
            self.telemetry.emit("call_stop", {"duration": trio.current_time() - began}, about)
            return result, lease.worker_id

    async def _request(self, lease: Lease, call: Call) -> Any:
        memory = self._memory(lease)
        for step in self._steps_ahead(memory, call):
            await self._send_ahead(lease, memory, step, call.session)
        self._mark_change(memory, call)
        call.begun = True
        try:
            return await lease.request(call.command, call.args, timeout=call.timeout, on_event=call.on_event)
        except ProgramError:
            raise
        except BaseException:
            if call.command == "configure_lm":
                # Whether it took effect is unknown, and it cannot be undone.
                lease.retire("half_configured")
            raise

    def _steps_ahead(self, memory: WorkerMemory, call: Call) -> list[Step]:
        if call.session is None:
            is_new_model = call.command == "configure_lm"
            return memory.missing(None, None, None if is_new_model else self._default_model)
        program_id = call.args.get("program_id") if call.command in USING else None
        steps = memory.missing(call.session, program_id, self._default_model)
        if call.command == "create_program":
            steps += memory.clearing(call.session.id, call.args["id"])
        return steps

    async def _send_ahead(
        self, lease: Lease, memory: WorkerMemory, step: Step, session: Session | None
    ) -> None:
        try:
            await lease.request(step.command, step.args, timeout=self.config.call_timeout)
        except WorkerDiedError as error:
            # The caller's own command was not sent; whatever this step did has died with the worker.
            error.request_sent = False
            raise
        except ProgramNotFoundError:
            # What was to be removed is not there.
            pass
        memory.note(step, session, self._default_model)

    @staticmethod
    def _memory(lease: Lease) -> WorkerMemory:
        if not isinstance(lease.worker.state, WorkerMemory):
            lease.update(WorkerMemory())
        memory: WorkerMemory = lease.worker.state
        return memory

    def _mark_change(self, memory: WorkerMemory, call: Call) -> None:
        """Note that what the worker holds is in question until the change is committed."""
        if call.session is None or call.command not in BEGINNING:
            return
        call.memory, call.mark = memory, next(self._marks)
        if call.command == "configure_lm":
            memory.note_model(call.session.id, call.mark)
        else:
            memory.note_program(call.session.id, call.makes, call.mark)

    async def _commit(self, call: Call) -> None:
        if call.session is None:
            return
        program = await self._books.commit(call.session, call.command, call.args)
        if program is not None and call.memory is not None:
            call.memory.confirm_program(call.session.id, program.id, call.mark, program.revision)

    # --- housekeeping ----------------------------------------------------------------------------------------

    async def keep_house(self) -> None:
        """Expire sessions, have idle workers forget what has ended, save when sessions were used. For ever.

        Raises:
            SessionStoreError: The store could not be changed; what was to be saved is saved later.

        Cancellation: What is not done now is done by the next who keeps house, or at the end.
        """
        while True:
            with trio.move_on_after(self.config.monitor_interval):
                await self._housework.wait()
            self._housework = trio.Event()
            await self._expire()
            for worker in self.workers.workers():
                if isinstance(worker.state, WorkerMemory) and worker.state.cleaning():
                    await self._clean(worker.state, self.workers.claim(worker))
            await self._books.save_uses()

    async def _clean(self, memory: WorkerMemory, claim: Checkout | None) -> None:
        if claim is None:
            # In use: it is cleaned before its next command, or in the next round.
            return
        async with claim as lease:
            try:
                for step in memory.cleaning():
                    await self._send_ahead(lease, memory, step, None)
            except WorkerError:
                # The worker is lost, and with it what it was to forget.
                return

    async def _expire(self) -> None:
        for session in await self._books.expire():
            self.workers.forget_session(session.id)
            self._have_forgotten(session.id)
            self.telemetry.emit("session_expired", {"count": 1}, {"session": session.id})

    def _have_forgotten(self, session_id: str) -> None:
        """Have every worker that holds something of the session forget it when it is free."""
        for worker in self.workers.workers():
            if isinstance(worker.state, WorkerMemory) and worker.state.note_ended(session_id):
                self._housework.set()
