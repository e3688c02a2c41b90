"""A port to a mock server: real pipes, real frames, a thread where a process would be."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import trio

from dspex_pool.errors import PortClosedError
from dspex_pool.protocol.framing import FrameDecoder, encode_frame
from dspex_pool.transport.pipes import PipeReader, PipeWriter
from dspex_pool.transport.port import WaitExpiredError
from dspex_testkit.bridge_mock_server import BridgeMockServer
from dspex_testkit.origins import note_port
from dspex_testkit.unread import whole_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.transport.port import ExitStatus
    from dspex_testkit.server_loop import ServerOptions

__all__ = ["PipePort", "PipePortFactory"]


class PipePort:
    """One mock server's frames, signals and end; implements ``Port``. Made inside a trio run.

    Args:
        server: The server, not started yet.
    """

    def __init__(self, server: BridgeMockServer) -> None:
        self.server = server
        #: No process stands behind this port.
        self.pid: int | None = None
        #: What ``resident_bytes`` reports.
        self.resident_bytes: int | None = None
        self.exit_status: ExitStatus | None = None
        self._gone = trio.Event()
        token = trio.lowlevel.current_trio_token()
        server.on_exit.append(functools.partial(token.run_sync_soon, self._gone.set))
        requests, answers = server.start().detach()
        self._stdin = PipeWriter(requests)
        self._stdout = PipeReader(answers)
        self._max_frame_bytes = server.options.max_frame_bytes
        self._name = f"worker {server.options.worker_id}"
        self._decoder = FrameDecoder(max_frame_bytes=self._max_frame_bytes, peer=self._name)
        self.worker_id = server.options.worker_id
        self._unread_frames = 0
        note_port(self)

    @property
    def bytes_sent(self) -> int:
        """Bytes that the pipe has taken so far, headers included."""
        return self._stdin.bytes_written

    @property
    def bytes_unread(self) -> int | None:
        """Of the bytes sent, those that the worker has not read; ``None`` where the system does not tell."""
        # A socket tells this of its own buffer only.
        return self._stdin.bytes_unread if self.server.options.wire == "pipes" else None

    @property
    def stderr_tail(self) -> str:
        """Everything the worker wrote to stderr."""
        return self.server.stderr

    async def send(self, payload: bytes) -> None:
        """Write one frame.

        Raises:
            LocalFrameTooLargeError: ``payload`` is over the limit; nothing was written.
            PortClosedError: The worker does not read any more, or an earlier frame was torn.

        Cancellation:
            Before the first byte nothing is written. Later the frame is torn.
        """
        frame = encode_frame(payload, max_frame_bytes=self._max_frame_bytes)
        if self._stdin.torn_bytes:
            raise self._closed("was left with half a frame", missing=self._stdin.torn_bytes)
        try:
            await self._stdin.write(frame)
        except (BrokenPipeError, trio.ClosedResourceError) as error:
            raise self._closed("does not read any more", missing=self._stdin.torn_bytes) from error

    async def receive(self) -> bytes:
        """Return the payload of the next frame.

        Raises:
            PortClosedError: The stream ended; ``clean`` and ``missing`` tell how.
            RemoteFrameTooLargeError: The header announces more than the limit.

        Cancellation:
            Loses nothing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._stdout.is_expired = False
        while (payload := self._decoder.next_frame()) is None:
            if self._stdout.is_expired:
                raise WaitExpiredError
            # Closed by attend while this task waited: then attend has read the rest and the end.
            with contextlib.suppress(trio.ClosedResourceError):
                await self._stdout.wait()
                self._take(self._stdout.read_now())
        return payload

    def expire(self) -> None:
        """End the ``send`` or ``receive`` that waits now, with ``WaitExpiredError``."""
        self._stdin.expire()
        self._stdout.expire()

    def _take(self, data: bytes | None) -> None:
        if data:
            self._decoder.feed(data)
        elif data is not None:
            self._decoder.feed_eof()

    def has_unread(self) -> bool:
        """Tell whether bytes wait, or the stream has ended."""
        return self._decoder.buffered > 0 or self._decoder.at_eof or self._stdout.has_unread()

    def unread_frames(self) -> int:
        """Count what a living worker wrote and nobody read. To be asked when nobody will read any more."""
        if self.exit_status is not None:
            return 0
        if not self._stdout.closed:
            self._take(self._stdout.read_now())
        self._unread_frames += whole_frames(self._decoder)
        return self._unread_frames

    def interrupt(self) -> None:
        """Send SIGINT to the worker."""
        self.server.interrupt()

    def send_eof(self) -> None:
        """Close the worker's stdin."""
        self._stdin.close()

    def terminate(self) -> None:
        """Send SIGTERM to the worker."""
        self.server.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the worker."""
        self.server.kill()

    async def attend(self) -> ExitStatus:
        """Wait for the worker's end and close the descriptors; what it wrote before can still be received.

        Cancellation:
            The worker stays as it is. Kill it and attend again, or its thread is left behind.
        """
        await self._gone.wait()
        if self.exit_status is None:
            while not self._stdout.closed and (data := self._stdout.read_now()):
                self._decoder.feed(data)
            self._decoder.feed_eof()
            self._stdin.close()
            self._stdout.close()
            self.server.close()
            self.exit_status = self.server.exit_status
        assert self.exit_status is not None
        return self.exit_status

    def _closed(self, what: str, *, missing: int) -> PortClosedError:
        worker_id = self.server.options.worker_id
        return PortClosedError(
            f"{self._name} {what}", worker_id=worker_id, clean=not missing, missing=missing
        )


class PipePortFactory:
    """Starts mock servers and remembers their ports; implements ``PortFactory``.

    Args:
        options: Gives what a worker is by its name and incarnation number.
        prepare: Called with each server before it starts, to fill its script.
    """

    def __init__(
        self,
        options: Callable[[str, int], ServerOptions],
        *,
        prepare: Callable[[BridgeMockServer], object] | None = None,
    ) -> None:
        self._options = options
        self._prepare = prepare
        #: Every port that was opened, in order.
        self.ports: list[PipePort] = []

    async def open(self, *, worker_id: str, incarnation: int) -> PipePort:
        """Start one mock server.

        Cancellation:
            No worker was started.
        """
        await trio.lowlevel.checkpoint()
        server = BridgeMockServer(self._options(worker_id, incarnation))
        if self._prepare is not None:
            self._prepare(server)
        port = PipePort(server)
        self.ports.append(port)
        return port
