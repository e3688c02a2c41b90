"""Ports with a line before them that faults can tap: wraps any port and any factory of ports."""

from __future__ import annotations

import functools
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import DspexPoolError, PortClosedError
from dspex_pool.protocol.framing import FrameDecoder, encode_frame
from dspex_pool.transport.port import WaitExpiredError
from dspex_testkit.chaos.line import END, Passage, Piece, Tap, payload_of
from dspex_testkit.ordered_starts import OrderedStarts
from dspex_testkit.port_facts import PortFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dspex_pool.transport.port import Port, PortFactory
    from dspex_testkit.ports.handle import PoolHandle

__all__ = ["LinedPort", "LinedPorts", "Start", "lined_ports_of"]

# Frames go through whole, whatever limit the port beneath has: that one has checked it.
_NO_LIMIT = 2**31


class LinedPort(PortFacts):
    """One worker's port with a line before it; implements ``Port``.

    Args:
        port: The port itself.
        worker_id: Name of the worker.
        taps: What sits on the lines of all workers, whenever it is put there.
        max_frame_bytes: Largest payload that the pool takes from the line.
    """

    def __init__(self, port: Port, worker_id: str, taps: Sequence[Tap], max_frame_bytes: int) -> None:
        super().__init__(port)
        self.worker_id = worker_id
        self._taps = taps
        self._decoder = FrameDecoder(max_frame_bytes=max_frame_bytes, peer=f"worker {worker_id}")
        #: What is on its way to the pool: when it arrives, what, and on whose account.
        self._coming: deque[tuple[float, bytes | None, Sequence[Passage]]] = deque()
        self._broken: DspexPoolError | None = None
        self._wait = trio.CancelScope()
        #: Who waits in the line itself, and not at the port.
        self._held: set[trio.CancelScope] = set()
        expire: Callable[[], None] | None = getattr(port, "expire", None)
        self.expire = None if expire is None else functools.partial(self._expire, expire)
        self.send_eof = port.send_eof
        self.interrupt = port.interrupt
        self.terminate = port.terminate
        self.kill = port.kill
        self.attend = port.attend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _expire(self, expire_port: Callable[[], None]) -> None:
        """End the ``send`` or ``receive`` that waits now, at the port or in the line, with ``WaitExpiredError``."""
        expire_port()
        for scope in self._held:
            scope.cancel()

    async def _stay(self, until: float) -> None:
        """Wait in the line until a moment.

        Raises:
            WaitExpiredError: The time of whoever waits is over.
        """
        with trio.CancelScope() as scope:
            self._held.add(scope)
            try:
                await trio.sleep_until(until)
            finally:
                self._held.discard(scope)
        if scope.cancelled_caught:
            raise WaitExpiredError

    # --- to the worker -----------------------------------------------------------------------------------

    async def send(self, payload: bytes) -> None:
        """Write one frame, or what the taps make of it.

        Cancellation: As for ``Port``; nothing is written while a tap holds it back.
        """
        began_at = trio.current_time()
        pieces, passages = self._through(encode_frame(payload, max_frame_bytes=_NO_LIMIT), Tap.pass_request)
        for delay, frame in pieces:
            if delay:
                await self._stay(began_at + delay)
            if frame is not END:
                await self.inner.send(payload_of(frame))
            for passage in passages:
                passage.left.append((trio.current_time(), frame))

    # --- from the worker ---------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """Return the payload of the next frame that the line lets through.

        Raises:
            PortClosedError: The stream ended, or the line was cut.
            RemoteFrameTooLargeError: A header announces more than the limit.

        Cancellation: Loses nothing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            # A piece at a time, as it is with small reads.
            if (payload := self._decoder.next_frame()) is not None:
                return payload
            if self._arrive():
                continue
            if self._broken is not None and not self._coming:
                raise self._broken
            await self._wait_for_more()

    async def _wait_for_more(self) -> None:
        due = self._coming[0][0] if self._coming else math.inf
        with trio.CancelScope(deadline=due) as self._wait:
            if self._broken is not None:
                await self._stay(math.inf)
            try:
                payload = await self.inner.receive()
            except DspexPoolError as error:
                self._end(error)
            else:
                frame = encode_frame(payload, max_frame_bytes=_NO_LIMIT)
                self._queue(*self._through(frame, Tap.pass_answer))

    def _end(self, error: DspexPoolError) -> None:
        """Note the end of the stream; if it was clean, the decoder knows best what is lacking on the line."""
        self._broken = error
        if isinstance(error, PortClosedError) and error.clean:
            self._queue(((0.0, END),), ())

    def _through(
        self, frame: bytes, pass_: Callable[[Tap, bytes, object], tuple[Passage, Sequence[Piece]]]
    ) -> tuple[list[Piece], list[Passage]]:
        """Send a frame past the taps; return what comes out, and on whose account."""
        pieces: list[Piece] = [(0.0, frame)]
        passages: list[Passage] = []
        for tap in self._taps:
            if tap.is_for(self.worker_id):
                coming, pieces = pieces, []
                for delay, data in coming:
                    if data is END:
                        pieces.append((delay, data))
                        continue
                    passage, changed = pass_(tap, data, self)
                    passages.append(passage)
                    pieces += [(delay + more, made) for more, made in changed]
        return pieces, passages

    def _queue(self, pieces: Sequence[Piece], passages: Sequence[Passage]) -> None:
        for delay, data in pieces:
            # Nothing overtakes on a line.
            latest = self._coming[-1][0] if self._coming else 0.0
            self._coming.append((max(latest, trio.current_time() + delay), data, passages))

    def _arrive(self) -> bool:
        """Take the next piece from the line, if it has arrived by now; tell whether it has."""
        if not self._has_arrived():
            return False
        _, data, passages = self._coming.popleft()
        for passage in passages:
            passage.left.append((trio.current_time(), data))
        if data is END:
            self._decoder.feed_eof()
            self._coming.clear()
        elif not self._decoder.at_eof:
            self._decoder.feed(data)
        return True

    def _has_arrived(self) -> bool:
        return bool(self._coming) and self._coming[0][0] <= trio.current_time()

    def put(self, data: bytes | None) -> None:
        """Have bytes, or the end of the stream, arrive now, whatever the worker does."""
        self._queue(((0.0, data),), ())
        self._wait.deadline = -math.inf

    def has_unread(self) -> bool:
        """Tell whether bytes have arrived or wait, or the stream has ended."""
        while self._arrive():
            pass
        return self._decoder.buffered > 0 or self._decoder.at_eof or self.inner.has_unread()

    def __repr__(self) -> str:
        return f"<LinedPort over {self.inner!r}>"


@dataclass(slots=True)
class Start:
    """One start of a worker."""

    worker_id: str
    #: When it began, in seconds of trio's clock.
    began_at: float
    #: When it ended; ``None`` while it goes on.
    ended_at: float | None = None
    #: When the orders to starts let it pass; ``None`` before, and if it was given up before.
    passed_at: float | None = None
    #: ``None`` while it goes on, else ``started``, or the class of what ended it.
    outcome: str | None = None

    @property
    def held_for(self) -> float:
        """Seconds for which orders have held it back so far. What it took afterwards is the machine's affair."""
        for end in (self.passed_at, self.ended_at):
            if end is not None:
                return end - self.began_at
        return trio.current_time() - self.began_at


class LinedPorts(OrderedStarts[LinedPort]):
    """Starts workers by another factory, and puts a line before each; implements ``PortFactory``.

    Args:
        factory: Starts the workers.
        max_frame_bytes: Largest payload that the pool takes from a line.
    """

    def __init__(self, factory: PortFactory, *, max_frame_bytes: int = 64 * 2**20) -> None:
        super().__init__()
        self.factory = factory
        self.max_frame_bytes = max_frame_bytes
        #: Every start, in order.
        self.starts: list[Start] = []
        self._taps: list[Tap] = []

    async def open(self, *, worker_id: str, incarnation: int) -> LinedPort:
        """Start one worker.

        Cancellation: No worker was started.
        """
        start = Start(worker_id, trio.current_time())
        self.starts.append(start)
        try:
            port = await super().open(worker_id=worker_id, incarnation=incarnation)
        except BaseException as error:
            start.outcome = type(error).__name__
            raise
        finally:
            start.ended_at = trio.current_time()
        start.outcome = "started"
        return port

    async def _open(self, worker_id: str, incarnation: int) -> LinedPort:
        start = next(start for start in reversed(self.starts) if start.worker_id == worker_id)
        start.passed_at = trio.current_time()
        port = await self.factory.open(worker_id=worker_id, incarnation=incarnation)
        return LinedPort(port, worker_id, self._taps, self.max_frame_bytes)

    def tap(self, worker_id: str | None) -> Tap:
        """Put a tap on the line of a worker, or on all lines."""
        tap = Tap(worker_id)
        self._taps.append(tap)
        return tap

    def untap(self, tap: Tap) -> None:
        """Take a tap off; what it kept back arrives now."""
        self._taps.remove(tap)
        for port in self.live:
            for _, data in tap.rest(port):
                port.put(data)


def lined_ports_of(pool: PoolHandle) -> LinedPorts:
    """Return what starts the workers of a pool.

    Raises:
        TypeError: Its workers have no line that could be tapped.
    """
    ports = pool.started_by
    if not isinstance(ports, LinedPorts):
        raise TypeError(
            "nothing can be done to the bytes and starts of this pool: let the test ask for the fixture chaos, or "
            "wrap what starts its workers in LinedPorts"
        )
    return ports
