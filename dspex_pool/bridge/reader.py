"""Taking frames from the client, and ending the process when it is time to.

The main thread reads its own frames: handing each over from another thread costs more than all else that a short
command costs. But it may be blocked for long in any command, so a second thread watches. It is woken by the end of
stdin, by a stdout that nobody reads any more, and by signals; and while a command takes long, it reads ahead, so that
what is no frame is found out. It sleeps while there is nothing to do, and looks twenty times a second while there is.
"""

from __future__ import annotations

import io
import os
import select
import signal
import stat
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING

from dspex_pool.bridge.process import EXIT_BROKEN, EXIT_NOT_A_FRAME
from dspex_pool.errors import PortClosedError, RemoteFrameTooLargeError
from dspex_pool.protocol.framing import FrameDecoder

if TYPE_CHECKING:
    from typing import NoReturn

    from dspex_pool.bridge.process import Process, Wires

__all__ = ["Reader"]

# A usual frame whole. For a larger block each read maps fresh memory, which takes longer than a short command.
_READ_BYTES = 64 * 1024
# A client asks one thing at a time. More than this that is read ahead is left in the pipe, so that the client has to
# wait and not this process's memory to grow.
_MAX_WAITING_FRAMES = 64
# Seconds after which a command takes long. Also what a main thread has to find the end of stdin by itself.
_LONG = 0.05


class Reader:
    """Gives the main thread its requests, and ends the process when the client leaves.

    Args:
        process: What is ended when stdin ends.
        wires: The descriptors to read and to watch.
        max_frame_bytes: Largest payload accepted, in bytes.
    """

    def __init__(self, process: Process, wires: Wires, *, max_frame_bytes: int) -> None:
        self._process = process
        self._stdin = wires.stdin
        self._decoder = FrameDecoder(max_frame_bytes=max_frame_bytes, peer="client")
        #: Whether the decoder may have something to tell: most frames pass it by.
        self._is_fed = False
        #: Payloads to be given out before what the decoder holds.
        self._ahead: deque[bytes] = deque()
        # Held by whoever reads: the main thread, except while it runs a command.
        self._turn = threading.Lock()
        #: Requests that the main thread has taken.
        self._taken = 0
        self._is_asleep = False
        self._wakeup, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._wakeup_write, False)
        # Written to by the C part of the signal handling, whatever the main thread is doing.
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        self._input = select.poll()
        self._input.register(wires.stdin, select.POLLIN)
        self._poll = select.poll()
        self._poll.register(self._wakeup, select.POLLIN)
        # The end of a pipe is always reported; of a socket, whose other direction may live on, only when asked for. A
        # pipe is not asked, since that wakes this thread for every frame.
        is_socket = stat.S_ISSOCK(os.fstat(wires.stdin).st_mode)
        self._end_of_stdin = getattr(select, "POLLRDHUP", 0) if is_socket else 0
        self._poll.register(wires.stdin, self._end_of_stdin)
        self._poll.register(wires.stdout, 0)  # errors and hang-ups are always reported

    # --- the main thread -------------------------------------------------------------------------------------

    def next_payload(self) -> bytes:
        """Wait for the next frame and return its payload. The process ends where there is none. Main thread only."""
        ahead, turn = self._ahead, self._turn
        turn.acquire()  # not as a context, which costs as much again
        try:
            while not ahead:
                payload = self._next_frame() if self._is_fed else None
                if payload is None:
                    self._is_fed = False
                    self._read()
                else:
                    ahead.append(payload)
            self._taken += 1
            payload = ahead.popleft()
        finally:
            turn.release()
        if self._is_asleep:
            self._is_asleep = False
            os.write(self._wakeup_write, b"\0")  # which is no signal's number
        return payload

    def _read(self) -> bool:
        """Wait for bytes and take them; tell whether the stream goes on. A whole frame is given out at once."""
        decoder = self._decoder
        frame = decoder.long_frame
        try:
            # Not in the read itself: there the kernel hands bytes even to a process that is being killed, and the
            # pool could not know any more that a request was never seen.
            self._input.poll()
            if frame is not None and not frame.is_whole:
                count = os.readv(self._stdin, (frame.room,))
                frame.filled(count)
            else:
                data = os.read(self._stdin, _READ_BYTES)
                payload = decoder.take(data)
                if payload is not None:
                    self._ahead.append(payload)
                    return True
                count = len(data)
        except BlockingIOError:  # whoever gave us the descriptor made it so, and somebody else was quicker
            return True
        except OSError:
            self._fail()
        self._is_fed = True
        if not count:
            decoder.feed_eof()
        elif count == _READ_BYTES:
            decoder.begin_long_frame(io.BytesIO)
        return count > 0

    def _next_frame(self) -> bytes | None:
        try:
            return self._decoder.next_frame()
        except PortClosedError as error:
            self._process.end(0, "" if error.clean else f"dspex_pool.bridge: {error}")
        except RemoteFrameTooLargeError as error:
            self._process.end(EXIT_NOT_A_FRAME, f"dspex_pool.bridge: {error}")

    def _fail(self) -> NoReturn:
        # Without a reader the worker would be deaf, and would outlive its parent.
        self._process.end(EXIT_BROKEN, f"the bridge's reader failed: {traceback.format_exc()}")

    # --- the watcher -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch, on a thread of its own."""
        threading.Thread(target=self._watch, name="dspex-reader", daemon=True).start()

    def _watch(self) -> None:
        try:
            while True:
                self._step()
        except Exception:
            self._fail()

    def _step(self) -> None:
        taken = self._taken
        events = self._poll.poll(None if self._is_asleep else _LONG * 1000)
        for fd, event in events:
            if fd == self._wakeup:
                self._hear_signals()
            elif fd != self._stdin:
                self._process.end(0)  # nobody reads the answers any more
            elif event & select.POLLIN:
                self._read_ahead()
            else:
                self._end_with_stdin()
        if not events and taken == self._taken:
            self._look(taken)

    def _hear_signals(self) -> None:
        if signal.SIGTERM in os.read(self._wakeup, 4096):
            self._process.end(0)

    def _look(self, taken: int) -> None:
        """Nothing has happened for a while: sleep if there is nothing to do, else read in the main thread's stead."""
        if self._turn.acquire(blocking=False):
            # The read that brought the request of this command may have brought more, of which no poll tells.
            self._take_ahead()
            self._turn.release()
            is_full = len(self._ahead) >= _MAX_WAITING_FRAMES
            self._poll.modify(self._stdin, self._end_of_stdin | (0 if is_full else select.POLLIN))
            return
        self._is_asleep = True
        if taken != self._taken:
            # A command began before the main thread could see that it must wake us.
            self._is_asleep = False

    def _read_ahead(self) -> None:
        # Once: a main thread that is back at its own reading must not have to compete for each frame.
        self._poll.modify(self._stdin, self._end_of_stdin)
        if self._turn.acquire(blocking=False):
            # The main thread may have taken meanwhile what we were told of, and begun the command.
            if self._input.poll(0):
                self._read()
                self._take_ahead()
            self._turn.release()

    def _take_ahead(self) -> None:
        while (payload := self._next_frame()) is not None:
            self._ahead.append(payload)

    def _end_with_stdin(self) -> NoReturn:
        """End the process: stdin has ended, perhaps behind requests that nobody waits for."""
        # A main thread that is reading finds the end by itself. One at work does not: what is left in the pipe then
        # tells whether the client broke off in the middle of a frame.
        if self._turn.acquire(timeout=_LONG):
            while self._read():
                pass
            while self._next_frame() is not None:
                pass
        self._process.end(0)
