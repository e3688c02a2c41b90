"""One worker incarnation in use: request and answer over its port."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import (
    CallTimeoutError,
    LocalProtocolError,
    PortClosedError,
    RemoteProtocolError,
    WorkerDiedError,
)
from dspex_pool.logs import PoolLog
from dspex_pool.protocol import HEADER_BYTES, PROTOCOL_VERSION, ClientConversation, Event, Failure, Success
from dspex_pool.remote_failures import error_from_failure
from dspex_pool.transport.port import WaitExpiredError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.transport.port import Port

__all__ = ["Hello", "PoolWorker"]

#: Seconds to wait, after a worker's stream has ended, for the news how its process ended.
EXIT_NEWS_TIMEOUT = 0.5

#: First and longest pause between two requests to stop; see ``PoolWorker.settle``.
INTERRUPT_PAUSES = (0.05, 1.0)

_log = PoolLog("dspex_pool")
_worker_log = PoolLog("dspex_pool.worker")


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker said of itself in the handshake. Fields it left out are empty."""

    #: Protocol version that both sides speak.
    protocol: int = 1
    #: Process id, as the worker knows it.
    pid: int | None = None
    #: Versions by name: ``python``, ``dspy``, ``bridge``.
    versions: Mapping[str, Any] = field(default_factory=dict)
    #: Names of what the worker can do beyond the protocol's core.
    capabilities: tuple[str, ...] = ()


class PoolWorker:
    """Request and answer over one worker's port.

    One task uses it at a time: the caller who holds its lease, or the pool while nobody does.

    Args:
        port: The worker's port.
        worker_id: Its name.
        incarnation: Its incarnation number.
    """

    def __init__(self, port: Port, *, worker_id: str, incarnation: int) -> None:
        self.port = port
        self.worker_id = worker_id
        self.incarnation = incarnation
        self.hello = Hello()
        #: Whatever the pool's user wants to remember of this worker; see ``Lease.update``.
        self.state: Any = None
        #: Why the pool ends the process, once it does.
        self.retired_because: str | None = None
        #: Set when the process is reaped.
        self.exited = trio.Event()
        #: Whether a frame was cut short while it was written: the worker can never be proven clean again.
        self.is_torn = False
        #: Whether the stream to or from the worker has ended.
        self.is_cut = False
        #: Whether the worker broke the protocol.
        self.is_garbled = False
        #: When the answer to the running request is due at the latest.
        self.deadline = math.inf
        #: Who keeps the time of requests: is told each deadline, and calls ``expire`` once it has come.
        self.watch: Callable[[float], None] | None = None
        #: Tells the time of the run.
        self.now: Callable[[], float] = trio.current_time
        self._is_late = False
        self._expire_port: Callable[[], None] | None = getattr(port, "expire", None)
        self._conversation = ClientConversation(peer=f"worker {worker_id}")

    def __repr__(self) -> str:
        return f"<PoolWorker {self.worker_id} incarnation {self.incarnation} pid {self.port.pid}>"

    @property
    def owes_answer(self) -> bool:
        """Whether an answer is due that nobody waits for."""
        return self._conversation.is_owed

    def why_unclean(self) -> str | None:
        """Return why this worker cannot be proven clean, or ``None`` if it is."""
        if self.is_torn:
            return "torn_frame"
        if self.is_garbled:
            return "protocol_error"
        if self.is_cut:
            return "died"
        if self._conversation.due:
            return "answer_due"
        try:
            return "unread_bytes" if self.port.has_unread() else None
        except Exception:
            # A port of somebody's own. Whoever asks is about to lend the worker, or to take it back.
            _log.exception(
                "worker %s cannot be asked whether anything is unread; it is replaced", self.worker_id
            )
            return "port_failed"

    async def handshake(self) -> None:
        """Exchange the first ping; fills ``hello``.

        Raises:
            WorkerDiedError: The worker ended, or closed its stream.
            ProgramError: It answered with a failure.
            RemoteProtocolError: It answered with something else.

        Cancellation: The worker is of no use afterwards.
        """
        args = {
            "initialization": True,
            "worker_id": self.worker_id,
            "protocol": PROTOCOL_VERSION,
            "events": ["log", "chunk", "progress"],
        }
        said = await self.request("ping", args)
        if not isinstance(said, dict):
            raise RemoteProtocolError(f"worker {self.worker_id} answered its first ping with {said!r}")
        versions, capabilities = said.get("versions"), said.get("capabilities")
        self.hello = Hello(
            protocol=self._conversation.version,
            pid=said.get("pid"),
            versions=versions if isinstance(versions, dict) else {},
            capabilities=tuple(capabilities) if isinstance(capabilities, list) else (),
        )

    async def request(
        self,
        command: str,
        args: dict[str, Any],
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Any:
        """Run a command in the worker and return its result.

        Args:
            command: Name of the command.
            args: Its arguments, a JSON object.
            timeout: Seconds to wait for the answer; ``None`` or infinity for no bound.
            on_event: Called with each ``chunk`` and ``progress`` event of this request.

        Raises:
            ProgramError: The command failed; the worker is well. Or a subclass, or ``InvalidArgumentError``.
            CallTimeoutError: No answer within ``timeout``; the worker still owes it.
            WorkerDiedError: The worker ended; ``request_sent`` tells whether any byte had been written.
            LocalProtocolError: ``args`` cannot be sent, or an earlier answer is still due. Nothing was sent.
            RemoteProtocolError: The worker broke the protocol.

        Cancellation: Before the first byte nothing was sent. Later the command may run on; the worker owes an
            answer that will be dropped, or was left with half a frame (``is_torn``).
        """
        if self._conversation.due and self.owes_answer:
            raise await self._died(None, None, sent=0) if self.is_cut else self._in_debt()
        if timeout is None or timeout == math.inf:
            return await self._exchange(command, args, None, on_event)
        deadline = self.now() + timeout
        if self.watch is not None and self._expire_port is not None and timeout > 0:
            self.deadline = deadline
            self.watch(deadline)
            try:
                return await self._exchange(command, args, timeout, on_event)
            except WaitExpiredError:
                raise self._too_late(command, timeout) from None
            finally:
                self.deadline = math.inf
        with trio.CancelScope(deadline=deadline):
            return await self._exchange(command, args, timeout, on_event)
        raise self._too_late(command, timeout)

    def _in_debt(self) -> LocalProtocolError:
        return LocalProtocolError(
            f"worker {self.worker_id} still owes the answer to an earlier request. Return the lease and check out "
            "again.",
            worker_id=self.worker_id,
        )

    def expire(self) -> None:
        """End the running request: its deadline has come."""
        assert self._expire_port is not None
        self._is_late = True
        self._expire_port()

    def _too_late(self, command: str, timeout: float) -> CallTimeoutError:
        return CallTimeoutError(
            f"worker {self.worker_id} did not answer {command!r} within {timeout:g} s. The command is asked to "
            "stop; the worker is replaced if it does not.",
            worker_id=self.worker_id,
            pid=self.port.pid,
            command=command,
            waited=timeout,
            request_sent=self.owes_answer,
        )

    async def _exchange(
        self,
        command: str,
        args: dict[str, Any],
        timeout: float | None,
        on_event: Callable[[Event], None] | None,
    ) -> Any:
        self._is_late = False
        conversation, port = self._conversation, self.port
        request_id, payload = conversation.request(command, args, timeout_s=timeout)
        sent_before = port.bytes_sent
        try:
            await port.send(payload)
            # Late before the answer is waited for: while the request was written, or an event told.
            while not self._is_late:
                message = conversation.receive(await port.receive())
                if isinstance(message, Success):
                    return message.result
                if isinstance(message, Failure):
                    break
                if message is not None:
                    self._handle_event(message, on_event)
            else:
                raise WaitExpiredError
        except PortClosedError as error:
            self.is_cut = True
            conversation.abandon(request_id)
            raise await self._died(error, request_id, sent=port.bytes_sent - sent_before) from error
        except RemoteProtocolError as error:
            self.is_garbled = True
            error.worker_id, error.pid = self.worker_id, port.pid
            raise
        except BaseException:
            self._leave(request_id, sent=port.bytes_sent - sent_before, whole=HEADER_BYTES + len(payload))
            raise
        raise error_from_failure(message, command=command, args=args, worker_id=self.worker_id, pid=port.pid)

    @trio.lowlevel.enable_ki_protection
    def _leave(self, request_id: int, *, sent: int, whole: int) -> None:
        """Note how far a request had come when its caller stopped caring. Whole also at Ctrl-C."""
        if request_id not in self._conversation.due:
            return
        if sent == 0:
            self._conversation.retract(request_id)
            return
        self.is_torn = self.is_torn or sent < whole
        self._conversation.abandon(request_id)

    async def _died(
        self, error: PortClosedError | None, request_id: int | None, *, sent: int
    ) -> WorkerDiedError:
        # The stream ends a moment before the process is reaped; its exit status is worth that moment.
        with trio.move_on_after(EXIT_NEWS_TIMEOUT):
            await self.exited.wait()
        status, tail = self.port.exit_status, self.port.stderr_tail
        how = str(status) if status is not None else "its output ended"
        if error is not None and not error.clean:
            how += f", in the middle of an answer ({error.missing} bytes missing)"
        if self.retired_because is not None:
            how += f" (the pool ended it: {self.retired_because})"
        was_read = self._was_read(sent)
        if tail.strip():
            how += f"; its last words: {tail.strip().splitlines()[-1]}"
        effect = "It never had the request." if was_read is False else "The request may have taken effect."
        return WorkerDiedError(
            f"worker {self.worker_id} died: {how}. {effect}",
            worker_id=self.worker_id,
            pid=self.port.pid,
            exit_status=status.code if status is not None else None,
            signal=status.signal if status is not None else None,
            stderr_tail=tail,
            request_id=request_id,
            request_sent=sent > 0,
            request_read=was_read,
            how=how,
        )

    def _was_read(self, sent: int) -> bool | None:
        """Tell whether the worker took anything of its last request, once it can take no more."""
        unread = self.port.bytes_unread
        if sent == 0:
            return False
        return unread < sent if unread is not None and self.exited.is_set() else None

    async def settle(self) -> None:
        """Have the command that its caller left stopped, and take in its answer.

        Raises:
            WorkerDiedError: The worker ended.
            RemoteProtocolError: It broke the protocol.

        Cancellation: Loses nothing; the answer stays due.
        """
        pause, longest = INTERRUPT_PAUSES
        while self.owes_answer:
            # Again and again: the worker ignores the first if it has not begun the command yet.
            self.port.interrupt()
            with trio.move_on_after(pause):
                try:
                    await self._take_late_answers()
                except PortClosedError as error:
                    self.is_cut = True
                    raise await self._died(error, None, sent=0) from error
            pause = min(2 * pause, longest)

    async def _take_late_answers(self) -> None:
        while self.owes_answer:
            message = self._conversation.receive(await self.port.receive())
            if isinstance(message, Event):
                self._handle_event(message, None)

    def _handle_event(self, event: Event, on_event: Callable[[Event], None] | None) -> None:
        if event.event == "log":
            self._log(event.data, event.id)
        elif on_event is not None:
            on_event(event)

    def _log(self, data: Mapping[str, Any], request_id: int | None) -> None:
        level = data.get("level")
        if isinstance(level, str):
            level = logging.getLevelNamesMapping().get(level.upper())
        if not isinstance(level, int):
            level = logging.INFO
        if not _worker_log.isEnabledFor(level):
            return
        extra = {
            "worker_id": self.worker_id,
            "session_id": data.get("session_id"),
            "request_id": request_id,
            "remote_logger": data.get("logger"),
        }
        _worker_log.log(level, "%s: %s", self.worker_id, data.get("message", ""), extra=extra)
