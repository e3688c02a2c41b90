"""The mock server's loop: moves bytes and signals between descriptors and the worker model, in real time."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.canned_bridge import CannedBridge, CannedOutputs
from dspex_testkit.plan import Pause, Plan
from dspex_testkit.protocol_audit import ProtocolAudit
from dspex_testkit.script import Script, Scripted, UnexpectedRequestError
from dspex_testkit.server_faults import Fault, FaultyAnswerer
from dspex_testkit.worker_model import Reactions, WorkerModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.protocol.messages import Request
    from dspex_testkit.worker_model import Answerer

__all__ = ["EX_PROTOCOL", "ServerLoop", "ServerOptions", "ServerScript"]

_READ_BYTES = 1 << 16

#: Exit status of a strict server whose client broke the protocol.
EX_PROTOCOL = 76

# Long enough for any client that still reads; one that does not must not keep the server from leaving.
_LAST_WRITE_WAIT = 2.0


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What worker the server plays.

    Raises:
        TypeError: A delay is no number.
        ValueError: A delay is no time.
    """

    #: Whether programs belong to sessions.
    mode: Literal["pool-worker", "standalone"] = "pool-worker"
    #: Name of the worker.
    worker_id: str = "w-0"
    #: Newest version of the protocol it speaks: 1 or 2.
    version: int = 2
    #: Outputs of programs by signature string.
    canned: CannedOutputs = field(default_factory=dict)
    #: Further commands, as for ``CannedBridge``. They run in the server's thread.
    commands: Mapping[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    #: Seconds before an answer, by command.
    delays: Mapping[str, float] = field(default_factory=dict)
    #: Ways to misbehave.
    faults: tuple[Fault, ...] = ()
    #: Seed of the faults' probabilities.
    seed: int = 0
    #: How it reacts to interrupts, the end of stdin and signals.
    reactions: Reactions = field(default_factory=Reactions)
    #: Largest payload either side may send, in bytes.
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    #: Whether it ends with status 76 at the first violation.
    is_strict: bool = False
    #: What its frames travel on: a pair of pipes, or a pair of sockets for each direction.
    wire: Literal["pipes", "sockets"] = "pipes"
    #: Whether only what was expected, or has a rule, is answered; all else is refused, and noted.
    is_scripted_only: bool = False

    def __post_init__(self) -> None:
        for seconds in self.delays.values():
            Pause(seconds)


class ServerScript(Scripted):
    """What one server expects and answers: first what was expected, then by rule, then as the DSPy bridge.

    Args:
        options: What worker it is.
    """

    def __init__(self, options: ServerOptions) -> None:
        super().__init__(Script(f"mock server {options.worker_id}"))
        #: The commands of the DSPy bridge, over canned programs.
        self.bridge = CannedBridge(
            mode=options.mode, worker_id=options.worker_id, canned=options.canned, commands=options.commands
        )
        self.answer_handshake(lambda args: self.bridge.run("ping", args))
        if not options.is_scripted_only:
            self.answer_rest(self.bridge.plan)

    def plan(self, request: Request) -> Plan:
        """Answer ``request``: the ``Answerer`` of a ``WorkerModel``. What nobody expected is a failure."""
        try:
            return self.script.plan(request)
        except UnexpectedRequestError as error:
            return Plan().fail(str(error), type="UnexpectedRequest")


class ServerLoop:
    """One worker, from its first byte to its end.

    Args:
        options: What worker it is.
        answer: What it answers when it is well.
        stdin: Descriptor to read requests from.
        stdout: Descriptor to write answers to; made non-blocking.
        signals: Descriptor to read signal numbers from, one byte each; made non-blocking.
        say: Called with text for stderr.
    """

    def __init__(
        self,
        options: ServerOptions,
        answer: Answerer,
        *,
        stdin: int,
        stdout: int,
        signals: int,
        say: Callable[[str], None],
    ) -> None:
        self.faults = FaultyAnswerer(answer, delays=options.delays, faults=options.faults, seed=options.seed)
        self.model = WorkerModel(
            self.faults.plan,
            reactions=options.reactions,
            max_frame_bytes=options.max_frame_bytes,
            timestamp=time.time,
            version=options.version,
        )
        self.audit = ProtocolAudit(max_frame_bytes=options.max_frame_bytes, version=options.version)
        self._is_strict = options.is_strict
        self._stdin: int | None = stdin
        self._stdout = stdout
        self._signals = signals
        self._say = say
        self._said = 0
        self._told = 0
        self._unwritten = bytearray()
        self._is_killed = self._is_stopped = False

    def run(self) -> ExitStatus:
        """Serve until the worker ends, and return how."""
        os.set_blocking(self._stdout, False)
        os.set_blocking(self._signals, False)
        while self.model.exit_status is None:
            self._wait(self.model.next_wakeup - time.monotonic())
            self.model.advance(time.monotonic())
            self._speak()
        if not self._is_killed:
            self._write_the_rest()
        return self.model.exit_status

    def _wait(self, timeout: float) -> None:
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        if self._stdin is not None and not self._is_stopped:
            poll.register(self._stdin, select.POLLIN)
        if self._unwritten and not self._is_stopped:
            poll.register(self._stdout, select.POLLOUT)
        ready = {number for number, _ in poll.poll(None if timeout == math.inf else max(0.0, timeout * 1000))}
        # Always, and first: a signal that came before a request may be told after it. Its byte is written when the
        # poll above returns, so that the poll itself has not seen it.
        self._take_signals()
        if self._stdin in ready and not self._is_stopped:
            self._take_input()

    def _take_signals(self) -> None:
        acts = {
            signal.SIGINT: self.model.interrupt,
            signal.SIGTERM: self.model.terminate,
            signal.SIGKILL: self.model.kill,
            signal.SIGSTOP: self.model.stop,
            signal.SIGCONT: self.model.go_on,
        }
        try:
            numbers = os.read(self._signals, 100)
        except BlockingIOError:
            return
        for number in numbers:
            self._is_killed = self._is_killed or number == signal.SIGKILL
            if number in (signal.SIGSTOP, signal.SIGCONT):
                self._is_stopped = number == signal.SIGSTOP
            acts[signal.Signals(number)](time.monotonic())

    def _take_input(self) -> None:
        assert self._stdin is not None
        if data := os.read(self._stdin, _READ_BYTES):
            self.audit.feed(data, outstanding=self.model.outstanding)
            self._tell_violations()
            self.model.feed(data, time.monotonic())
        else:
            self._stdin = None
            self.audit.feed_eof()
            self._tell_violations()
            self.model.feed_eof(time.monotonic())

    def _tell_violations(self) -> None:
        for violation in self.audit.violations[self._told :]:
            self._told += 1
            self._say(f"protocol violation: {violation}\n")
            if self._is_strict:
                self.model.exit(ExitStatus(code=EX_PROTOCOL), time.monotonic())

    def _speak(self) -> None:
        self._say(self.model.stderr[self._said :])
        self._said = len(self.model.stderr)
        self._unwritten += self.model.take_output()
        try:
            while self._unwritten and not self._is_stopped:
                self._write()
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self.model.exit(ExitStatus(code=0), time.monotonic())
        except OSError as error:
            self._unwritten.clear()
            self._say(f"nothing can be answered any more: {error.strerror}\n")
            self.model.exit(ExitStatus(code=1), time.monotonic())

    def _write(self) -> None:
        del self._unwritten[: os.write(self._stdout, self._unwritten)]

    def _write_the_rest(self) -> None:
        poll = select.poll()
        poll.register(self._stdout, select.POLLOUT)
        deadline = time.monotonic() + _LAST_WRITE_WAIT
        with contextlib.suppress(BrokenPipeError):
            while self._unwritten and (left := deadline - time.monotonic()) > 0:
                if poll.poll(left * 1000):
                    self._write()
