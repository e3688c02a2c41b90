"""The mock server: plays a worker over real descriptors, in a thread or as a program.

As a program it is a worker command like any other::

    python -m dspex_testkit.bridge_mock_server --worker-id w-1 --delay execute_program=0.2 \\
        --fault execute_program:die:0.1 --seed 7

It runs the model of ``worker_model`` in real time, answers the commands of the DSPy bridge with canned programs,
and notes whatever its client sends against the protocol.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES
from dspex_testkit.server_arguments import canned, delay, expectations, fault, frame_bytes, reaction, report
from dspex_testkit.server_faults import FAULT_KINDS
from dspex_testkit.server_loop import ServerLoop, ServerOptions, ServerScript
from dspex_testkit.worker_model import Reactions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dspex_pool.transport.port import ExitStatus
    from dspex_testkit.protocol_audit import Violation

__all__ = ["BridgeMockServer", "ServerOptions", "main"]

REACT_HELP = "reaction time to interrupt, eof, terminate or kill; 'never' for none"
EXPECT_HELP = "JSON: [{command, args, result}, …], to come in this order; what never came is in the report"
FAULT_HELP = f"misbehave; COMMAND may be * or handshake; KIND is one of {', '.join(FAULT_KINDS)}"


class BridgeMockServer(ServerScript):
    """Plays one worker in a thread, over pipes or sockets. A context manager; leaving it ends the worker.

    What is expected of its client, and answered by rule, is written as for a ``MockPort``.

    Args:
        options: What worker it plays; or give their names as keywords.
    """

    def __init__(self, options: ServerOptions | None = None, **settings: Any) -> None:
        self.options = options if options is not None else ServerOptions(**settings)
        super().__init__(self.options)
        #: Descriptor that the client writes requests to. The client may take it over, see ``detach``.
        self.requests: int | None = None
        #: Descriptor that the client reads answers from.
        self.answers: int | None = None
        #: What the worker wrote to stderr.
        self.stderr = ""
        #: How the worker ended, or ``None`` while it runs.
        self.exit_status: ExitStatus | None = None
        #: Called in the server's thread when the worker has ended and its descriptors are closed.
        self.on_exit: list[Any] = []
        self._loop: ServerLoop | None = None
        self._own: list[int] = []
        self._signals: int | None = None
        # A command that never comes back must not keep the process from ending.
        name = f"mock server {self.options.worker_id}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def violations(self) -> list[Violation]:
        """What the client sent against the protocol so far."""
        assert self._loop is not None, "the server is not started"
        return self._loop.audit.violations

    @property
    def injected(self) -> list[tuple[int, str, str]]:
        """The faults that happened: request id, command, kind."""
        assert self._loop is not None, "the server is not started"
        return self._loop.faults.injected

    @property
    def received(self) -> list[str]:
        """The commands that arrived, in order."""
        assert self._loop is not None, "the server is not started"
        return [request.command for request in self._loop.model.received]

    def start(self) -> Self:
        """Open the descriptors and start the thread."""
        open_pair = os.pipe if self.options.wire == "pipes" else _socket_pair
        stdin, self.requests = open_pair()
        self.answers, stdout = open_pair()
        signals, self._signals = os.pipe()
        self._own = [stdin, stdout, signals]
        self._loop = ServerLoop(
            self.options, self.plan, stdin=stdin, stdout=stdout, signals=signals, say=self._take_stderr
        )
        self._thread.start()
        return self

    def detach(self) -> tuple[int, int]:
        """Hand the client's two descriptors over: it will close them. Returns ``(requests, answers)``."""
        requests, answers = self.requests, self.answers
        assert requests is not None, "the descriptors were handed over already"
        assert answers is not None, "the descriptors were handed over already"
        self.requests = self.answers = None
        return requests, answers

    def interrupt(self) -> None:
        """Send SIGINT to the worker."""
        self._signal(signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM to the worker."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the worker."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Send SIGSTOP to the worker: it reads, does and hears nothing, until it is killed or goes on."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Send SIGCONT to the worker."""
        self._signal(signal.SIGCONT)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the worker's end; tell whether it came within ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def assert_clean(self) -> None:
        """Check that the client kept to the protocol.

        Raises:
            AssertionError: With every violation.
        """
        if self.violations:
            raise AssertionError("\n".join(["the client broke the protocol:", *map(str, self.violations)]))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self.close()

    def close(self) -> None:
        """Wait for the worker's end and close what is not handed over. Calling it again changes nothing."""
        self.join()
        for descriptor in (self.requests, self.answers, self._signals):
            if descriptor is not None:
                os.close(descriptor)
        self.requests = self.answers = self._signals = None

    def _signal(self, number: signal.Signals) -> None:
        if self._signals is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended
                os.write(self._signals, bytes([number]))

    def _take_stderr(self, text: str) -> None:
        self.stderr += text

    def _run(self) -> None:
        assert self._loop is not None
        try:
            self.exit_status = self._loop.run()
        finally:
            for descriptor in self._own:
                os.close(descriptor)
            for callback in self.on_exit:
                callback()


def _socket_pair() -> tuple[int, int]:
    """Return descriptors of two sockets that are joined, the reading end first; each closes its own direction."""
    reading, writing = socket.socketpair()
    return reading.detach(), writing.detach()


# --- as a program ------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bridge_mock_server", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--mode", choices=["pool-worker", "standalone"], default="standalone")
    add("--worker-id", default="w-0", metavar="ID")
    add("--protocol", type=int, choices=[1, 2], default=2, help="newest version it speaks")
    add("--max-frame-bytes", type=frame_bytes, default=DEFAULT_MAX_FRAME_BYTES, metavar="N")
    add("--canned", type=canned, default={}, metavar="FILE", help="JSON: outputs by signature string")
    add("--delay", type=delay, action="append", default=[], metavar="COMMAND=SECONDS")
    add("--react", type=reaction, action="append", default=[], metavar="HOW=SECONDS", help=REACT_HELP)
    add("--fault", type=fault, action="append", default=[], metavar="COMMAND:KIND[:SHARE]", help=FAULT_HELP)
    add("--seed", type=int, default=0, help="of the faults' shares")
    add("--report", type=report, metavar="FILE", help="write violations and faults there, as JSON")
    add("--strict", action="store_true", help="exit with 76 at the first violation")
    add("--expect", type=expectations, default=[], metavar="FILE", help=EXPECT_HELP)
    add("--only-expected", action="store_true", help="refuse every other command")
    return parser


def _options(given: argparse.Namespace, reactions: Reactions) -> ServerOptions:
    return ServerOptions(
        mode=given.mode,
        worker_id=given.worker_id,
        version=given.protocol,
        canned=given.canned,
        delays=dict(given.delay),
        faults=tuple(given.fault),
        seed=given.seed,
        reactions=reactions,
        max_frame_bytes=given.max_frame_bytes,
        is_strict=given.strict,
        is_scripted_only=given.only_expected,
    )


@dataclass(frozen=True, slots=True)
class _Order:
    """What the command line asks for."""

    options: ServerOptions
    report: Path | None
    expectations: list[dict[str, Any]]


def _parse(arguments: Sequence[str] | None) -> _Order:
    given = _parser().parse_args(arguments)
    reactions = Reactions()
    for how, seconds in given.react:
        setattr(reactions, how, seconds)
    return _Order(_options(given, reactions), given.report, given.expect)


def _script_of(order: _Order) -> ServerScript:
    script = ServerScript(order.options)
    for expected in order.expectations:
        script.expect(expected["command"], expected.get("args")).reply(expected.get("result"))
    return script


def _signal_pipe() -> int:
    """Have SIGINT and SIGTERM write their numbers into a pipe, and return its reading end."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return read_end


def _take_over_stdio() -> tuple[int, int]:
    """Keep the protocol's descriptors private: a stray print must not become a frame."""
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return stdin, stdout


def _report(loop: ServerLoop, script: ServerScript) -> str:
    happened = {
        "violations": [str(violation) for violation in loop.audit.violations],
        "faults": [list(fault) for fault in loop.faults.injected],
        "received": [request.command for request in loop.model.received],
        "not_met": [str(expectation) for expectation in script.script.left],
        "not_expected": [request.command for request in script.script.unexpected],
    }
    return json.dumps(happened, indent=2)


def _warn(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve on stdin and stdout until the worker ends; return its exit status."""
    order = _parse(arguments)
    try:
        # Before anything else is opened, which would take their numbers.
        for descriptor in (0, 1):
            os.fstat(descriptor)
    except OSError as error:
        _warn(f"bridge_mock_server: stdin and stdout carry the protocol, but are not open: {error}\n")
        return 2
    signals = _signal_pipe()
    stdin, stdout = _take_over_stdio()
    script = _script_of(order)
    loop = ServerLoop(order.options, script.plan, stdin=stdin, stdout=stdout, signals=signals, say=_warn)
    status = loop.run()
    if order.report is not None:
        try:
            order.report.write_text(_report(loop, script), encoding="utf-8")
        except OSError as error:
            _warn(f"bridge_mock_server: cannot write {order.report}: {error.strerror}\n")
            return 1
    if status.signal is not None:
        if status.signal != signal.SIGKILL:
            signal.signal(status.signal, signal.SIG_DFL)
        os.kill(os.getpid(), status.signal)
    return status.code or 0


if __name__ == "__main__":
    sys.exit(main())
