"""The three kinds of port that one test body runs on: simulated, a mock server's, a process's."""

from __future__ import annotations

import os
import signal as signals
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio
from trio.testing import MockClock

from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPortFactory
from dspex_testkit.bridge_mock_server import ServerOptions
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.pipe_port import PipePortFactory
from dspex_testkit.ports.commands import ECHO_PLANS, Commands, commands_of_handler
from dspex_testkit.ports.names import DEFAULT_HANDLER, ECHO_HANDLER

if TYPE_CHECKING:
    from dspex_pool.transport.port import PortFactory

__all__ = ["KINDS", "PortKind"]


class PortKind(ABC):
    """One kind of port: how its workers are started, what time it runs in, and how a worker is lost.

    Args:
        handler: The class that serves, as ``package.module:Class``.
        commands: Commands instead of the handler's, where no process runs it; see ``CannedBridge``.
    """

    name: ClassVar[str]
    #: What bodies multiply their durations with: a second of virtual time, a moment of real time.
    unit: ClassVar[float]

    def __init__(self, *, handler: str = DEFAULT_HANDLER, commands: Commands | None = None) -> None:
        self.handler = handler
        self.commands = dict(commands or {})

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

    def _commands_of(self, worker_id: str) -> Commands:
        if self.handler == DEFAULT_HANDLER:
            # Its programs are those of the canned bridge, which is there already.
            return {**commands_of_handler(ECHO_HANDLER, worker_id), **ECHO_PLANS, **self.commands}
        return {**commands_of_handler(self.handler, worker_id), **self.commands}


class SimulatedKind(PortKind):
    """Scripted ports in virtual time: a worker that hangs for an hour costs nothing."""

    name = "sim"
    unit = 1.0

    @property
    def clock(self) -> trio.abc.Clock:
        """A clock that jumps to the next deadline when nothing can run."""
        return MockClock(autojump_threshold=0)

    def factory(self) -> MockPortFactory:
        """Return what starts simulated workers."""
        return MockPortFactory(self._prepare)

    def _prepare(self, port: MockPort) -> None:
        bridge = CannedBridge(
            worker_id=port.worker_id, clock=trio.current_time, commands=self._commands_of(port.worker_id)
        )
        port.answer_rest(bridge.plan)

    def end(self, port: Any, signal: int) -> None:
        """End a simulated worker."""
        port.die(signal=signal)


class ServerKind(PortKind):
    """Mock servers in threads, over real pipes."""

    name = "server"
    unit = 0.05

    def factory(self) -> PipePortFactory:
        """Return what starts mock servers."""
        return PipePortFactory(
            lambda worker_id, _: ServerOptions(worker_id=worker_id, commands=self._commands_of(worker_id))
        )

    def end(self, port: Any, signal: int) -> None:
        """End a mock server as by a signal."""
        (port.kill if signal == signals.SIGKILL else port.terminate)()


class ProcessKind(PortKind):
    """Real worker processes."""

    name = "process"
    unit = 0.1

    def factory(self) -> SubprocessPortFactory:
        """Return what starts worker processes."""
        return SubprocessPortFactory(SubprocessOptions(handler=self.handler))

    def end(self, port: Any, signal: int) -> None:
        """Send a signal to a worker process; one that has ended gets none."""
        if port.pid is not None and port.exit_status is None:
            os.kill(port.pid, signal)


#: Every kind by its name.
KINDS: Final = {kind.name: kind for kind in (SimulatedKind, ServerKind, ProcessKind)}
