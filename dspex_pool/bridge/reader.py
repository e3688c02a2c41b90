"""The reader thread: takes frames from the client, and ends the process when it is time to.

The main thread runs the commands and may be blocked for long in any of them, so somebody else has to see that
stdin has ended, that nobody reads stdout any more, or that SIGTERM has come.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import traceback
from typing import TYPE_CHECKING

from dspex_pool.bridge.process import EXIT_BROKEN, EXIT_NOT_A_FRAME
from dspex_pool.errors import PortClosedError, RemoteFrameTooLargeError
from dspex_pool.protocol.framing import FrameDecoder

if TYPE_CHECKING:
    from queue import SimpleQueue

    from dspex_pool.bridge.process import Process, Wires

__all__ = ["Reader"]

_READ_BYTES = 256 * 1024
# A client asks one thing at a time. More than this in the line is left in the pipe, so that the client has
# to wait and not this process's memory to grow.
_MAX_WAITING_FRAMES = 64
# How often the line is looked at, in seconds, while it is too long to read on.
_LINE_RECHECK = 0.02


class Reader:
    """Feeds the line of requests.

    Args:
        process: What is ended when stdin ends.
        wires: The descriptors to watch.
        line: Where payloads are put.
        max_frame_bytes: Largest payload accepted, in bytes.
    """

    def __init__(
        self, process: Process, wires: Wires, line: SimpleQueue[bytes], *, max_frame_bytes: int
    ) -> None:
        self._process = process
        self._stdin = wires.stdin
        self._line = line
        self._decoder = FrameDecoder(max_frame_bytes=max_frame_bytes, peer="client")
        self._wakeup, wakeup_write = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(wakeup_write, False)
        # Written to by the C part of the signal handling, whatever the main thread is doing.
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._wakeup, select.POLLIN)
        self._poll.register(wires.stdin, select.POLLIN)
        self._poll.register(wires.stdout, 0)  # errors and hang-ups are always reported

    def start(self) -> None:
        """Begin to read, on a thread of its own."""
        threading.Thread(target=self._run, name="dspex-reader", daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                self._step()
        except Exception:
            # Without a reader the worker would be deaf, and would outlive its parent.
            self._process.end(EXIT_BROKEN, f"the bridge's reader failed: {traceback.format_exc()}")

    def _step(self) -> None:
        full = self._line.qsize() >= _MAX_WAITING_FRAMES
        self._poll.modify(self._stdin, 0 if full else select.POLLIN)
        for fd, events in self._poll.poll(_LINE_RECHECK * 1000 if full else None):
            if fd == self._wakeup:
                self._hear_signals()
            elif fd != self._stdin:
                self._process.end(0)  # nobody reads the answers any more
            elif not full:
                self._read()
            elif events & (select.POLLHUP | select.POLLERR):
                self._process.end(0)  # stdin has ended, behind requests that nobody waits for

    def _hear_signals(self) -> None:
        if signal.SIGTERM in os.read(self._wakeup, 4096):
            self._process.end(0)

    def _read(self) -> None:
        data = os.read(self._stdin, _READ_BYTES)
        if data:
            self._decoder.feed(data)
        else:
            self._decoder.feed_eof()
        try:
            while (payload := self._decoder.next_frame()) is not None:
                self._line.put(payload)
        except PortClosedError as error:
            self._process.end(0, "" if error.clean else f"dspex_pool.bridge: {error}")
        except RemoteFrameTooLargeError as error:
            self._process.end(EXIT_NOT_A_FRAME, f"dspex_pool.bridge: {error}")
