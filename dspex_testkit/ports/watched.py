"""Ports of any kind, watched: what was sent to each worker, and what a test does to them from outside."""

from __future__ import annotations

import json
import signal as signals
from typing import TYPE_CHECKING, Any

from dspex_testkit.hangs.frames import log_frames
from dspex_testkit.ordered_starts import OrderedStarts
from dspex_testkit.port_facts import PortFacts
from dspex_testkit.ports.waiting import SOON, until
from dspex_testkit.protocol_audit import ProtocolAudit
from dspex_testkit.report.recorder import note_fault, recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.transport.port import Port, PortFactory
    from dspex_testkit.plan import Plan
    from dspex_testkit.ports.kinds import PortKind
    from dspex_testkit.ports.orders import Order

__all__ = ["WatchedPort", "WatchedPorts"]


class WatchedPort(PortFacts):
    """One worker's port, and what went through it; implements ``Port``.

    Args:
        port: The port itself.
        worker_id: Name of the worker.
        incarnation: Incarnation number of the worker.
        heard: Takes each payload that was sent, with the worker's name.
    """

    def __init__(
        self, port: Port, worker_id: str, incarnation: int, heard: Callable[[str, bytes], None]
    ) -> None:
        super().__init__(port)
        self.worker_id = worker_id
        self.incarnation = incarnation
        #: Names of the signals and closings that the owner sent, in order.
        self.signals: list[str] = []
        #: What is said of its resident memory instead of the truth.
        self.pretended_bytes: int | None = None
        #: Payloads that were sent.
        self.payloads: list[bytes] = []
        self._heard = heard
        self.send_eof = self._noted("eof", port.send_eof)
        self.interrupt = self._noted("interrupt", port.interrupt)
        self.terminate = self._noted("terminate", port.terminate)
        self.kill = self._noted("kill", port.kill)
        self.receive = port.receive
        self.expire: Callable[[], None] | None = getattr(port, "expire", None)
        self.has_unread = port.has_unread
        self.attend = port.attend

    def _noted(self, name: str, act: Callable[[], None]) -> Callable[[], None]:
        def noted() -> None:
            if self.exit_status is None:
                self.signals.append(name)
            act()

        return noted

    @property
    def resident_bytes(self) -> int | None:
        """Resident memory in bytes, or what a test wants it to be."""
        return self.inner.resident_bytes if self.pretended_bytes is None else self.pretended_bytes

    async def send(self, payload: bytes) -> None:
        """Write one frame, see ``Port``.

        Cancellation: As for ``Port``.
        """
        await self.inner.send(payload)
        self.payloads.append(payload)
        self._heard(self.worker_id, payload)

    @property
    def received(self) -> list[str]:
        """The commands that were sent whole, in order, the handshake included."""
        return [command_of(payload) for payload in self.payloads]

    def __repr__(self) -> str:
        return f"<WatchedPort {self.worker_id} incarnation {self.incarnation} over {self.inner!r}>"


def command_of(payload: bytes) -> str:
    """Return the command of a request."""
    command: str = json.loads(payload)["command"]
    return command


class WatchedPorts(OrderedStarts[WatchedPort]):
    """Starts workers of one kind; implements ``PortFactory``. What a test does to workers, it does here.

    Args:
        kind: What the workers run on.
        factory: Starts the workers, instead of what the kind would take.
        start_delay: Seconds that a start takes in addition.
        fail_starts: How many of the next starts fail.
        hang_starts: How many of the next starts (after the failing ones) never end.
    """

    def __init__(
        self,
        kind: PortKind,
        *,
        factory: PortFactory | None = None,
        start_delay: float = 0.0,
        fail_starts: int = 0,
        hang_starts: int = 0,
    ) -> None:
        super().__init__(start_delay=start_delay, fail_starts=fail_starts, hang_starts=hang_starts)
        self.kind = kind
        #: ``sim``, ``server`` or ``process``.
        self.name: str = kind.name
        #: Seconds to multiply durations with: 1 in virtual time, a moment in real time.
        self.unit: float = kind.unit
        self._factory = factory if factory is not None else kind.factory()
        self._sent: list[tuple[str, bytes]] = []
        #: Number of its pool in the run that is recorded.
        self.pool_number = 0

    async def _open(self, worker_id: str, incarnation: int) -> WatchedPort:
        port = await self._factory.open(worker_id=worker_id, incarnation=incarnation)
        watched = WatchedPort(port, worker_id, incarnation, lambda *sent: self._sent.append(sent))
        log_frames(watched)
        if (recorder := recording()) is not None:
            recorder.watch(watched, pool=self.pool_number)
        return watched

    # --- what was sent -----------------------------------------------------------------------------------

    @property
    def heard(self) -> list[str]:
        """Commands in the order in which they were sent, with the worker's name: ``"w-1 echo"``; no handshakes."""
        lines = []
        for worker_id, payload in self._sent:
            request = json.loads(payload)
            if request["id"] != 0:
                lines.append(f"{worker_id} {request['command']}")
        return lines

    def forget_heard(self) -> None:
        """Begin ``heard`` anew."""
        self._sent.clear()

    def assert_clean(self) -> None:
        """Check that all that was sent to any worker is in order by the protocol.

        Raises:
            AssertionError: With every violation.
        """
        for port in self.ports:
            audit = ProtocolAudit(max_frame_bytes=2**31)
            for payload in port.payloads:
                audit.feed(len(payload).to_bytes(4, "big") + payload)
            assert not audit.violations, f"{port}: {[str(each) for each in audit.violations]}"

    # --- what is done to workers ---------------------------------------------------------------------------

    def order(
        self, command: str, plan: Plan, *, worker: str | None = None, times: int | None = None
    ) -> Order:
        """Have workers follow a plan instead of answering a command; pauses alone come before the answer.

        Args:
            command: The command; ``handshake`` is the first ping, ``*`` everything else.
            plan: What they do.
            worker: Name of the worker that is meant; by default any.
            times: How often; by default always.

        Raises:
            TypeError: The command or the worker is no name, the plan no ``Plan``, or the times no whole number.
            ValueError: It is to be carried out less often than never.
        """
        return self.kind.orders.give(command, plan, worker=worker, times=times)

    def end(self, port: WatchedPort, signal: int = signals.SIGKILL) -> None:
        """End a worker as by a signal from outside, whatever it is doing."""
        self._note(f"signal {signals.Signals(signal).name}", port)
        self.kind.end(port.inner, signal)

    def _note(self, fault: str, port: WatchedPort) -> None:
        # What is done to a worker that has ended does nothing to it.
        if port.exit_status is None:
            note_fault(fault, port.incarnation, pool=self.pool_number)

    def kill(self, worker_id: str = "w-1", signal: int = signals.SIGKILL) -> WatchedPort:
        """End the newest worker of a name as by a signal from outside; return its port."""
        port = self.port(worker_id)
        self.end(port, signal)
        return port

    def kill_all(self) -> None:
        """Kill every worker that lives."""
        for port in self.live:
            self.end(port)

    def stop(self, worker_id: str = "w-1") -> WatchedPort:
        """Stop a worker, as SIGSTOP does: it reads, does and hears nothing, until it is killed or goes on."""
        port = self.port(worker_id)
        self._note("stopped", port)
        self.kind.stop(port.inner)
        return port

    def go_on(self, worker_id: str = "w-1") -> WatchedPort:
        """Have a stopped worker go on."""
        port = self.port(worker_id)
        self._note("goes on", port)
        self.kind.go_on(port.inner)
        return port

    async def until(
        self, condition: Callable[[], object], what: str = "it comes true", *, within: float = SOON
    ) -> None:
        """Wait until ``condition()`` holds.

        Raises:
            AssertionError: It does not within so many seconds.

        Cancellation: Changes nothing.
        """
        await until(condition, what, within=within)

    async def holding(self, pool: Any, session_id: str) -> list[str]:
        """Return the names of the idle workers that hold something of a session, by asking them.

        Cancellation: The workers go back to the pool.
        """
        return [worker_id for worker_id, held in (await self.held(pool)).items() if session_id in held]

    async def held(self, pool: Any) -> dict[str, dict[str, Any]]:
        """Return, by the idle workers' names, the sessions that each holds something of, with their models.

        Cancellation: The workers go back to the pool.
        """
        found = {}
        for worker in pool.workers():
            claim = pool.claim(worker)
            if claim is not None:
                async with claim as lease:
                    found[worker.worker_id] = await lease.request("held")
        return found
