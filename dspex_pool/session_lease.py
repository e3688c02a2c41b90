"""One command in a lent worker: what the worker must be told first, the command, and what is known afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import trio

from dspex_pool.errors import (
    DspexPoolError,
    InvalidArgumentError,
    ProgramError,
    ProgramNotFoundError,
    SessionNotFoundError,
    WorkerDiedError,
)
from dspex_pool.session_answers import BEGINNING, USING, not_found
from dspex_pool.worker_memory import WorkerMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.lease import Lease
    from dspex_pool.session_call import Call, CallTally
    from dspex_pool.session_table import Session
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.worker_memory import DefaultModel, Step

__all__ = ["CALL_EVENTS", "SessionLease", "forget_ended", "memory_of"]

#: The events that tell of a call in a worker.
CALL_EVENTS = ("call_start", "call_stop", "call_exception")

#: Commands that take away what a worker holds of all sessions.
_EMPTYING = frozenset({"cleanup", "reset_state"})


def memory_of(lease: Lease) -> WorkerMemory:
    """Return the memory of a lent worker, an empty one if it has none yet."""
    if not isinstance(lease.worker.state, WorkerMemory):
        lease.update(WorkerMemory())
    memory: WorkerMemory = lease.worker.state
    return memory


async def forget_ended(lease: Lease, *, timeout: float) -> None:
    """Have a lent worker forget the sessions that have ended. If it cannot, it is replaced.

    Args:
        timeout: Seconds for each of them.

    Cancellation: What was not forgotten is forgotten before the worker's next command.
    """
    memory = memory_of(lease)
    for step in memory.cleaning():
        try:
            await _send(lease, memory, step, timeout)
        except DspexPoolError:
            lease.retire("cannot_forget")
            return


class SessionLease(msgspec.Struct, eq=False):
    """A call in one lease. A struct, because every call makes one.

    Args:
        lease: The lease.
        call: The call.
        memory: What its worker holds.
        default: The language model of sessions without one.
        is_live: Tells whether a session has not ended.
    """

    _lease: Lease
    _call: Call
    _memory: WorkerMemory
    _default: DefaultModel | None
    _is_live: Callable[[Session], bool]
    _model_before: int = 0

    async def run_told(self, telemetry: Telemetry, tallies: tuple[CallTally, ...], attempt: int) -> Any:
        """Do as ``run``, and tell telemetry of it.

        Cancellation: As of ``run``; it is told as an exception.
        """
        about = {
            "session": self._call.session_id,
            "worker_id": self._lease.worker_id,
            "command": self._call.command,
            "attempts": attempt,
        }
        telemetry.emit("call_start", {"count": 1}, about)
        began = trio.current_time()
        try:
            result = await self.run(tallies)
        except BaseException as error:
            # What trio says of a cancellation has the address of a task in it.
            reason = "cancelled" if isinstance(error, trio.Cancelled) else str(error)[:200]
            about |= {"error": type(error).__name__, "reason": reason}
            telemetry.emit("call_exception", {"duration": trio.current_time() - began}, about)
            raise
        telemetry.emit("call_stop", {"duration": trio.current_time() - began}, about)
        return result

    async def run(self, tallies: tuple[CallTally, ...]) -> Any:
        """Bring the worker up to date, and run the command; have it counted.

        Raises:
            SessionNotFoundError: The session was ended meanwhile.
            ProgramNotFoundError: The program was deleted meanwhile.
            InvalidArgumentError: The key of the session's language model is lost.
            DspexPoolError: What ``Lease.request`` raises.

        Cancellation: The caller leaves at once; what the worker then holds is in doubt, and told again. It is counted
            as an error.
        """
        call, lease = self._call, self._lease
        for tally in tallies:
            tally.commands += 1
            tally.waits.append(lease.granted.waited)
        errors = 1
        try:
            timeout = call.timeout
            if steps := self._steps_ahead():
                timeout = await self._send_all_ahead(steps, timeout)
            self._begin()
            try:
                result = await lease.request(call.command, call.args, timeout=timeout, on_event=call.on_event)
            except BaseException as error:
                self._note_failure(error)
                raise
            if call.command in _EMPTYING:
                lease.update(WorkerMemory())
            errors = 0
            return result
        finally:
            call.ended = ended = lease.worker.now()
            for tally in tallies:
                tally.durations.append(ended - lease.since)
                tally.errors += errors

    def _begin(self) -> None:
        """Note that the command itself is about to be sent."""
        call = self._call
        if call.session is not None:
            self._require_live()
            self._memory.meet(call.session.id)
        if call.command in BEGINNING:
            self._doubt_what_changes()
        call.begun = True

    async def _send_all_ahead(self, steps: list[Step], timeout: float | None) -> float | None:
        """Send steps ahead; return how much of the timeout they have left."""
        if timeout is None:
            for step in steps:
                await self._send_ahead(step, None)
            return None
        deadline = trio.current_time() + timeout
        for step in steps:
            await self._send_ahead(step, deadline - trio.current_time())
        return max(0.0, deadline - trio.current_time())

    def _steps_ahead(self) -> list[Step]:
        call, command, program_id = self._call, self._call.command, None
        if command in USING and call.session is not None:
            program_id = self._require_program(call.session)
        needs_model = command != "configure_lm"
        steps = self._memory.missing(call.session, program_id, self._default, needs_model=needs_model)
        if command == "create_program" and call.session is not None:
            steps += self._memory.clearing(call.session.id, call.makes)
        return steps

    async def _send_ahead(self, step: Step, timeout: float | None) -> None:
        self._require_live()
        try:
            await _send(self._lease, self._memory, step, None if timeout is None else max(0.0, timeout))
        except WorkerDiedError as error:
            # The caller's own command was not sent; whatever this step did has died with the worker.
            facts = error.facts() | {"request_sent": False, "request_read": False}
            raise WorkerDiedError(
                f"{error.message} This was {step.command!r}, sent ahead; {self._call.command!r} was not sent.",
                **facts,
            ) from error
        except (ProgramError, InvalidArgumentError) as error:
            if step.command != "cleanup_session":
                raise
            self._lease.retire("cannot_forget")
            # What it holds of other sessions is no affair of this caller.
            if step.args["session_id"] == self._call.session_id:
                raise self._cannot_forget(error) from error

    def _cannot_forget(self, error: DspexPoolError) -> WorkerDiedError:
        lease, call = self._lease, self._call
        how = (
            f"it cannot forget what it held of session {call.session_id!r} ({error.message}), and is replaced"
        )
        return WorkerDiedError(
            f"worker {lease.worker_id} is of no use: {how}; {call.command!r} was not sent.",
            worker_id=lease.worker_id,
            pid=lease.worker.port.pid,
            request_sent=False,
            request_read=False,
            how=how,
        )

    def _note_failure(self, error: BaseException) -> None:
        """Note what a command that failed, or whose caller left, may have left behind."""
        call = self._call
        if isinstance(error, DspexPoolError) and error.worker_survives:
            self._note_refusal()
        elif call.command in _EMPTYING or (call.command == "configure_lm" and call.session is None):
            # Nobody can tell whether it took effect, and no command undoes it.
            self._lease.retire("half_changed")

    def _require_live(self) -> None:
        session = self._call.session
        if session is not None and not self._is_live(session):
            raise SessionNotFoundError(
                f"session {session.id!r} was ended before {self._call.command!r} was sent.",
                session_id=session.id,
            )

    def _require_program(self, session: Session) -> str:
        """Return the program's id, unless the program was deleted while the call waited for its worker.

        The worker may hold one of that id all the same: replaced long ago, or never committed.
        """
        program_id: str = self._call.args["program_id"]
        if session.program(program_id) is not None:
            return program_id
        self._require_live()
        raise not_found(session.id, program_id, self._call.command)

    def _doubt_what_changes(self) -> None:
        """Note that what the worker holds is in doubt until the change is committed."""
        call = self._call
        call.memory = self._memory
        if call.command == "configure_lm":
            self._model_before = self._memory.model_of(self._model_owner)
            call.mark = self._memory.doubt_model(self._model_owner)
        elif call.session is not None:
            call.mark = self._memory.doubt_program(call.session.id, call.makes)

    def _note_refusal(self) -> None:
        """Note that the worker refused the command, or never got it: a language model is what it was."""
        if self._call.command == "configure_lm":
            self._memory.confirm_model(self._model_owner, self._call.mark, self._model_before)

    @property
    def _model_owner(self) -> str | None:
        return self._call.session.id if self._call.session is not None else None


async def _send(lease: Lease, memory: WorkerMemory, step: Step, timeout: float | None) -> None:
    """Send one step and note what the worker has then.

    Raises:
        DspexPoolError: What ``Lease.request`` raises.

    Cancellation: What the worker then has is in doubt.
    """
    memory.begin(step)
    try:
        await lease.request(step.command, step.args, timeout=timeout)
    except ProgramNotFoundError:
        # What was to be removed is not there.
        pass
    except ProgramError as error:
        if step.command != "cleanup_session" or error.type != "UnknownCommand":
            raise
        # A handler without sessions has nothing to forget.
    memory.note(step)
