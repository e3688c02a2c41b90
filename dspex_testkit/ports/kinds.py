"""The three kinds of port that one test body runs on: simulated, a mock server's, a process's."""

from __future__ import annotations

import functools
import os
import signal as signals
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio
from trio.testing import MockClock

from dspex_pool.protocol.messages import Request
from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPortFactory
from dspex_testkit.bridge_mock_server import ServerOptions
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.pipe_port import PipePort, PipePortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.plan_json import plan_from_json
from dspex_testkit.ports.commands import ECHO_PLANS, Commands, commands_of_handler
from dspex_testkit.ports.names import DEFAULT_HANDLER, ECHO_HANDLER
from dspex_testkit.ports.orders import HANDSHAKE, ORDERS_VARIABLE, OrderFolder, Orders, carried_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.transport.port import Port, PortFactory
    from dspex_testkit.script import Scripted

__all__ = ["KINDS", "PortKind"]


class PortKind(ABC):
    """One kind of port: how its workers are started, what time it runs in, and what is done to a worker from outside.

    Args:
        handler: The class that serves, as ``package.module:Class``.
        commands: Commands instead of the handler's, where no process runs it; see ``CannedBridge``.
    """

    name: ClassVar[str]
    #: What bodies multiply their durations with: a second of virtual time, a moment of real time.
    unit: ClassVar[float]
    #: Seconds after which a body counts as hung.
    hung_after: ClassVar[float] = 40.0

    def __init__(self, *, handler: str = DEFAULT_HANDLER, commands: Commands | None = None) -> None:
        self.handler = handler
        self.commands = dict(commands or {})
        #: What workers are to do instead of answering.
        self.orders = Orders()

    @property
    def clock(self) -> trio.abc.Clock | None:
        """The clock of the run; ``None`` for that of the system."""
        return None

    @abstractmethod
    def factory(self) -> PortFactory:
        """Return what starts workers."""

    @abstractmethod
    def end(self, port: Any, signal: int) -> None:
        """End a worker as by a signal from outside."""

    def stop(self, port: Any) -> None:
        """Stop a worker as by SIGSTOP."""
        port.stop()

    def go_on(self, port: Any) -> None:
        """Have a stopped worker go on."""
        port.go_on()

    def close(self) -> None:
        """Remove what the kind has put into the file system."""
        self.orders.given.clear()

    def _serve(self, worker: Scripted, bridge: CannedBridge) -> None:
        """Have a worker without a process answer by a bridge, unless something else is ordered."""

        def answer(request: Request) -> Plan:
            return self._by_order(bridge, request, request.command)

        worker.answer_rest(answer)
        worker.answer_handshake(lambda args: self._by_order(bridge, Request(0, "ping", args, ""), HANDSHAKE))

    def _by_order(self, bridge: CannedBridge, request: Request, name: str) -> Plan:
        if request.command in self._further:
            bridge.count()
            return self._further[request.command](bridge, request.args)
        plan = self.orders.take(bridge.worker_id, name)
        answer = functools.partial(bridge.plan, request)
        return answer() if plan is None else carried_out(plan, answer)

    @property
    def _further(self) -> Mapping[str, Callable[[CannedBridge, dict[str, Any]], Plan]]:
        """The commands of the default handler that are about the worker itself."""
        return _FURTHER if self.handler == DEFAULT_HANDLER else {}

    def _commands_of(self, worker_id: str) -> Commands:
        if self.handler == DEFAULT_HANDLER:
            # Its programs are those of the canned bridge, which is there already.
            return {**commands_of_handler(ECHO_HANDLER, worker_id), **ECHO_PLANS, **self.commands}
        return {**commands_of_handler(self.handler, worker_id), **self.commands}


_FURTHER: Final[Mapping[str, Callable[[CannedBridge, dict[str, Any]], Plan]]] = {
    "do": lambda _, args: plan_from_json(args["steps"]),
    "held": lambda bridge, _: Plan().reply(bridge.held()),
}


class SimulatedKind(PortKind):
    """Scripted ports in virtual time: a worker that hangs for an hour costs nothing."""

    name = "sim"
    unit = 1.0
    hung_after = 400.0

    @property
    def clock(self) -> trio.abc.Clock:
        """A clock that jumps to the next deadline when nothing can run."""
        return MockClock(autojump_threshold=0)

    def factory(self) -> MockPortFactory:
        """Return what starts simulated workers."""
        return MockPortFactory(self._prepare)

    def _prepare(self, port: MockPort) -> None:
        commands = self._commands_of(port.worker_id)
        self._serve(port, CannedBridge(worker_id=port.worker_id, clock=trio.current_time, commands=commands))

    def end(self, port: Any, signal: int) -> None:
        """End a simulated worker."""
        port.die_of(signal)


class ServerKind(PortKind):
    """Mock servers in threads, over real pipes."""

    name = "server"
    unit = 0.02

    def factory(self) -> PipePortFactory:
        """Return what starts mock servers."""
        return PipePortFactory(
            lambda worker_id, _: ServerOptions(worker_id=worker_id, commands=self._commands_of(worker_id)),
            prepare=lambda server: self._serve(server, server.bridge),
        )

    def end(self, port: Any, signal: int) -> None:
        """End a mock server as by a signal."""
        (port.server.kill if signal == signals.SIGKILL else port.server.terminate)()

    def stop(self, port: PipePort) -> None:
        """Stop a mock server."""
        port.server.stop()

    def go_on(self, port: PipePort) -> None:
        """Have a stopped mock server go on."""
        port.server.go_on()


class ProcessKind(PortKind):
    """Real worker processes."""

    name = "process"
    unit = 0.05

    def __init__(self, *, handler: str = DEFAULT_HANDLER, commands: Commands | None = None) -> None:
        super().__init__(handler=handler, commands=commands)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def factory(self) -> SubprocessPortFactory:
        """Return what starts worker processes."""
        environment = {}
        if self.handler == DEFAULT_HANDLER:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="dspex-orders-")
                self.orders = OrderFolder(Path(self._folder.name))
            environment[ORDERS_VARIABLE] = self._folder.name
        return SubprocessPortFactory(SubprocessOptions(handler=self.handler, env=environment))

    def end(self, port: Any, signal: int) -> None:
        """Send a signal to a worker process; one that has ended gets none."""
        if port.pid is not None and port.exit_status is None:
            os.kill(port.pid, signal)

    def stop(self, port: Port) -> None:
        """Stop a worker process, and see that it has stopped; it may read something until then."""
        self.end(port, signals.SIGSTOP)
        if port.pid is not None and port.exit_status is None:
            os.waitid(os.P_PID, port.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self, port: Port) -> None:
        """Have a stopped worker process go on."""
        self.end(port, signals.SIGCONT)

    def close(self) -> None:
        """Remove the folder of the orders."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


#: Every kind by its name.
KINDS: Final = {kind.name: kind for kind in (SimulatedKind, ServerKind, ProcessKind)}
