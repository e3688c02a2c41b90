"""One template process as the pool sees it: started, asked for workers, asked to reap them, ended."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import socket
from typing import TYPE_CHECKING

import msgspec
import trio

from dspex_pool.errors import WorkerStartError
from dspex_pool.logs import PoolLog
from dspex_pool.protocol.forking import (
    Answer,
    Fork,
    Forked,
    NotForked,
    Ready,
    Reap,
    Reaped,
    Refused,
    Request,
    decode_answer,
)
from dspex_pool.transport.host_forks import release
from dspex_pool.transport.launch import (
    Launched,
    LaunchedTemplate,
    explained,
    launch_template,
    open_wires,
    restrict,
)
from dspex_pool.transport.port import ExitStatus
from dspex_pool.transport.process import exit_status_of
from dspex_pool.transport.stderr_drain import LAST_STDERR_WAIT, StderrDrain
from dspex_pool.transport.subprocess import in_starting_thread
from dspex_pool.transport.template_fork import ForkedProcess
from dspex_pool.transport.template_packets import packet_of, receive_packet, too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dspex_pool.transport.options import SubprocessOptions

__all__ = ["TemplateLostError", "TemplateProcess"]

_LOG = PoolLog("dspex_pool.transport")

#: Whose lines of stderr these are.
TEMPLATE_NAME = "template"

# A fork takes milliseconds, and many may be asked for at once on a busy machine. A template that says nothing for
# this long has been stopped, or its fork hangs. Less than a worker's life has for reaping: then it must be over.
_ANSWER_TIMEOUT = 4.0
# Seconds in which a template that has closed its socket may end by itself, to be known by its own exit status.
_LAST_MOMENT = 0.5
_NO_DESCRIPTOR = "no descriptor is left to hold it by. Raise the limit on open files (ulimit -n)"
_UNKNOWN = "the template that forked it has ended"


class TemplateLostError(Exception):
    """The template has ended meanwhile; nothing was started."""


class _Awaited:
    """An answer that has not come yet."""

    def __init__(self) -> None:
        self.came = trio.Event()
        #: The answer; ``None`` if the template has ended without.
        self.answer: Answer | None = None
        #: The descriptor that came with it.
        self.descriptor = -1
        #: When it is overdue, however often it is waited for.
        self.due = trio.current_time() + _ANSWER_TIMEOUT

    def give(self, answer: Answer | None, descriptor: int = -1) -> None:
        self.answer, self.descriptor = answer, descriptor
        self.came.set()


class TemplateProcess:
    """A template from its start to its reaping. ``run`` is its life; the rest may be called meanwhile.

    Args:
        options: How its workers are started.
        on_stderr_line: Called with ``template`` and each line of its own stderr; must not raise.
        warm_up_timeout: Seconds after which it is ended if it cannot fork yet.
    """

    def __init__(
        self,
        options: SubprocessOptions,
        on_stderr_line: Callable[[str, str], None] | None = None,
        *,
        warm_up_timeout: float,
    ) -> None:
        #: Whether it has been able to fork.
        self.was_ready = False
        #: Whether it has forked a worker.
        self.has_forked = False
        #: Whether it found that it must not be forked any more.
        self.is_spoilt = False
        #: Set when it is reaped.
        self.ended = trio.Event()
        self._options = options
        self._on_stderr_line = on_stderr_line
        self._warm_up_timeout = warm_up_timeout
        self._environment = options.environment()
        self._launched: LaunchedTemplate | None = None
        self._stderr: StderrDrain | None = None
        self._settled = trio.Event()
        self._failure: WorkerStartError | None = None
        self._refusal: str | None = None
        self._numbers = itertools.count(1)
        self._forks: dict[int, _Awaited] = {}
        self._reapings: dict[int, _Awaited] = {}
        self._sending = trio.Lock()
        self._users = 0
        self._is_retired = False
        # What the pool's end must not do: workers are reaped through it.
        self._life = trio.CancelScope(shield=True)

    @property
    def pid(self) -> int | None:
        """Process id, once it is started."""
        return None if self._launched is None else self._launched.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether ended workers still wait to be reaped by it."""
        return self._launched is not None and not self.ended.is_set()

    # --- its life ------------------------------------------------------------------------------------

    def end(self) -> None:
        """End it now. Its workers live on, but nobody will know their exit status."""
        self._life.cancel()

    def retire(self) -> None:
        """End it as soon as all its workers are reaped."""
        self._is_retired = True
        self._end_if_unneeded()

    def _end_if_unneeded(self) -> None:
        if self._is_retired and not self._users:
            self.end()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Start it, hear what it says until it ends, reap it.

        Cancellation: None is seen; ``end`` ends it.
        """
        try:
            with self._life:
                await self._run()
        except WorkerStartError as error:
            self._failure = error
        except Exception as error:
            # In the nursery of the factory it would end the pool, and not only this template.
            _LOG.exception("the template (pid %s) failed; it is replaced", self.pid)
            self._failure = WorkerStartError(f"its template failed: {error!r}")
        finally:
            self.ended.set()
            self._settled.set()
            for awaited in (*self._forks.values(), *self._reapings.values()):
                awaited.give(None)

    async def _run(self) -> None:
        launched = self._launched = await in_starting_thread(
            launch_template, self._options, self._environment, what="the template"
        )
        launched.channel.setblocking(False)
        self._stderr = StderrDrain(
            launched.stderr, TEMPLATE_NAME, self._on_stderr_line, tail_bytes=self._options.stderr_tail_bytes
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stderr.drain)
                nursery.start_soon(self._bound_warm_up)
                try:
                    await self._hear(launched.channel)
                    # It is ending by itself, most likely; how, is worth a moment.
                    with trio.move_on_after(_LAST_MOMENT):
                        await launched.process.wait_ended()
                finally:
                    launched.process.signal_group(signal.SIGKILL)
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + _ANSWER_TIMEOUT):
                        await launched.process.reap()
                    nursery.cancel_scope.deadline = trio.current_time() + LAST_STDERR_WAIT
        finally:
            trio.lowlevel.notify_closing(launched.channel)
            release(launched.channel.fileno())
            self._stderr.close()
            launched.process.close()

    async def _bound_warm_up(self) -> None:
        with trio.move_on_after(self._warm_up_timeout) as patience:
            await self._settled.wait()
        if patience.cancelled_caught:
            waited = f"{self._warm_up_timeout:g} s"
            self._failure = WorkerStartError(f"its template has not imported the handler within {waited}")
            _LOG.warning("%s (pid %s); it is replaced", self._failure, self.pid)
            self.end()

    async def _hear(self, channel: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(channel)
            try:
                packet, descriptor = receive_packet(channel)
                if not packet:
                    return
                self._take(decode_answer(packet), descriptor)
            except BlockingIOError:
                continue
            except (OSError, msgspec.DecodeError) as error:
                _LOG.warning("the template (pid %s) is ended: %r", self.pid, error)
                return

    def _take(self, answer: Answer, descriptor: int) -> None:
        match answer:
            case Ready():
                self.was_ready = True
                self._settled.set()
            case Refused(reason):
                self._refusal = reason
            case Forked(number) | NotForked(number):
                self._give(self._forks.pop(number, None), answer, descriptor)
            case Reaped(pid):
                self._give(self._reapings.get(pid), answer, descriptor)

    def _give(self, awaited: _Awaited | None, answer: Answer, descriptor: int) -> None:
        if awaited is not None:
            awaited.give(answer, descriptor)
        elif descriptor >= 0:
            # Nobody waits any more. Its stdin has ended, so the worker leaves.
            os.close(descriptor)

    # --- forking -------------------------------------------------------------------------------------

    async def fork(self, worker_id: str) -> Launched:
        """Have a worker forked, once the template is warm.

        Raises:
            TemplateLostError: It has ended meanwhile; another one can be asked.
            WorkerStartError: It cannot serve, or not now. Nothing was started, or nothing is left of it.

        Cancellation:
            Honoured while the template warms up. A fork under way is finished, and returned.
        """
        self._users += 1
        try:
            await self._settled.wait()
            self._require_alive(worker_id)
            with explained(f"worker {worker_id}", worker_id), open_wires() as wires:
                process = await self._fork(worker_id, wires.far)
                await self._restrict(process)
                return Launched(process, *wires.near)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._users -= 1
        self._end_if_unneeded()

    async def _fork(self, worker_id: str, streams: Sequence[int]) -> ForkedProcess:
        number = next(self._numbers)
        awaited = self._forks[number] = _Awaited()
        try:
            await self._send(Fork(number, worker_id, self._changes()), streams)
            with trio.CancelScope(shield=True, deadline=awaited.due):
                await awaited.came.wait()
        finally:
            self._forks.pop(number, None)
        match awaited.answer:
            case Forked(_, pid):
                self.has_forked = True
                self._users += 1
                if awaited.descriptor < 0:
                    await self._undo(pid)
                    raise self._start_error(worker_id, _NO_DESCRIPTOR)
                return ForkedProcess(pid, awaited.descriptor, self)
            case NotForked(_, reason, is_spoilt):
                self.is_spoilt = self.is_spoilt or is_spoilt
                raise self._start_error(worker_id, f"its template did not fork: {reason}")
        if awaited.came.is_set():
            raise TemplateLostError
        self.end()
        reason = f"its template has not answered within {_ANSWER_TIMEOUT:g} s, and is replaced"
        raise self._start_error(worker_id, reason)

    async def _undo(self, pid: int) -> None:
        """End a fork whose descriptor did not arrive."""
        # Its number stays its own until it is reaped by the template. It may not lead a group yet.
        for kill in (os.killpg, os.kill) if self.is_alive else ():
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await self.reap(pid)

    def _changes(self) -> dict[str, str | None]:
        """Return the variables that have changed since the template was started."""
        now = self._options.environment()
        changed: dict[str, str | None] = {
            name: value for name, value in now.items() if self._environment.get(name) != value
        }
        return changed | dict.fromkeys(self._environment.keys() - now.keys())

    async def _restrict(self, process: ForkedProcess) -> None:
        try:
            restrict(process.pid, self._options)
        except BaseException:
            process.signal_group(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.reap()
            process.close()
            raise

    def _require_alive(self, worker_id: str) -> None:
        if not self.ended.is_set():
            return
        if self.was_ready:
            raise TemplateLostError
        if self._failure is not None:
            reason = str(self._failure)
        elif self._refusal is not None:
            reason = f"its template refuses to serve: {self._refusal}"
        elif self._launched is not None:
            reason = f"its template has ended while it warmed up ({self._launched.process.exit_status})"
        else:
            reason = "its template was ended before it was started"
        raise self._start_error(worker_id, reason)

    def _start_error(self, worker_id: str, reason: str) -> WorkerStartError:
        tail = "" if self._stderr is None else self._stderr.tail
        last = f". Its last words: {tail.strip().splitlines()[-1]}" if tail.strip() else ""
        return WorkerStartError(
            f"worker {worker_id} could not be started: {reason}{last}", worker_id=worker_id, stderr_tail=tail
        )

    # --- reaping -------------------------------------------------------------------------------------

    async def reap(self, pid: int) -> ExitStatus:
        """Reap a worker that has ended, and tell how it did, as far as that is known.

        Cancellation:
            Reap again; the template is asked once.
        """
        try:
            awaited = await self._ask_to_reap(pid)
        except TemplateLostError:
            return ExitStatus(unknown_because=_UNKNOWN)
        with trio.move_on_at(awaited.due):
            await awaited.came.wait()
        if not awaited.came.is_set():
            # It was stopped, or is stuck. Without it, the system reaps.
            self.end()
            await awaited.came.wait()
        if self._reapings.pop(pid, None) is not None:
            self._leave()
        match awaited.answer:
            case Reaped(_, code):
                return exit_status_of(code, "somebody else in the template has reaped it")
        return ExitStatus(unknown_because=_UNKNOWN)

    async def _ask_to_reap(self, pid: int) -> _Awaited:
        awaited = self._reapings.get(pid)
        if awaited is None:
            awaited = self._reapings[pid] = _Awaited()
            try:
                await self._send(Reap(pid))
            except BaseException:
                del self._reapings[pid]
                raise
        return awaited

    async def _send(self, request: Request, descriptors: Sequence[int] = ()) -> None:
        assert self._launched is not None
        channel, packet = self._launched.channel, packet_of(request)
        async with self._sending:
            while not self.ended.is_set():
                try:
                    socket.send_fds(channel, [packet], descriptors)
                    return
                except BlockingIOError:
                    with contextlib.suppress(trio.ClosedResourceError):
                        await trio.lowlevel.wait_writable(channel)
                except OSError as error:
                    if error.errno == errno.EMSGSIZE:
                        raise too_long(packet) from error
                    # It is ending.
                    await self.ended.wait()
        raise TemplateLostError
