"""The worker's process: its descriptors, its session, its parent, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from io import TextIOWrapper
    from types import FrameType
    from typing import NoReturn

__all__ = [
    "EXIT_BROKEN",
    "EXIT_NOT_A_FRAME",
    "EXIT_USAGE",
    "Process",
    "Wires",
    "claim_wires",
    "hear_signals",
    "release_in_forks",
]

#: Exit status when the program was started in a wrong way; argparse uses it, too.
EXIT_USAGE = 2
#: Exit status when the bytes on stdin are no frames: ``EX_DATAERR`` of sysexits.h.
EXIT_NOT_A_FRAME = 65
#: Exit status after a fault of the bridge itself: ``EX_SOFTWARE`` of sysexits.h.
EXIT_BROKEN = 70

# Who drains stderr does so at once; for somebody who does not, last words are not worth a longer wait.
_LAST_WORDS_TIMEOUT = 0.2
# What stands in for the stdout that is the protocol's, once it does.
_stand_in: TextIOWrapper | None = None
# A parent that is killed closes its pipes a moment before its children are given to another parent.
_ORPHAN_GRACE = 0.05
# Descriptors 0 to 2 are everybody's.
_FIRST_PRIVATE_FD = 3


#: How many threads numeric libraries start, unless the environment says otherwise. One per core in each of N
#: workers would make N times the cores in threads.
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


class Wires(NamedTuple):
    """The private descriptors that carry the protocol. No process that is started inherits them."""

    #: Where the client's frames are read.
    stdin: int
    #: Where frames to the client are written.
    stdout: int


def claim_wires() -> Wires:
    """Keep the real stdin and stdout for the protocol, and give everybody else harmless ones.

    Afterwards descriptor 1 is stderr and descriptor 0 the null device, for Python, for C code and for
    all processes that are started.

    Raises:
        OSError: stdin or stdout is closed.
    """
    wires = Wires(*(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE_FD) for fd in (0, 1)))
    null = os.open(os.devnull, os.O_RDWR)  # becomes descriptor 2 if that was closed
    os.dup2(null, 0)
    os.set_inheritable(2, True)
    os.dup2(2, 1)
    if null >= _FIRST_PRIVATE_FD:
        os.close(null)
    _stand_in_for_stdout()
    return wires


def _stand_in_for_stdout() -> None:
    global _stand_in
    # A fork of the template has one, for a pipe like its own.
    if _stand_in is None or sys.stdout is not _stand_in or _stand_in.closed:
        # What is printed is a log now: seen when it happens, and never an encoding error. A new object, because the
        # old one remembers whether the old file could seek.
        sys.stdout = _stand_in = open(  # noqa: SIM115 # open as long as the process
            1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
    sys.__stdout__ = _stand_in  # type: ignore[misc] # typeshed thinks it final


def hear_signals() -> None:
    """Take back what a program may have set for itself, and hands down: blocked signals, and SIGCHLD ignored.

    The stop of a command could not reach it; nobody would know the exit status of a child. Main thread only, once
    the handlers of this process are in place: what was blocked may have come.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def limit_library_threads() -> None:
    """Let numeric libraries that are imported later start one thread each, unless the environment says otherwise."""
    for name in _THREAD_LIMITS:
        os.environ.setdefault(name, "1")


class Process:
    """This process as the worker of one parent. Create it early: it remembers who the parent is."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._parent = os.getppid()
        self._ending = threading.Lock()

    def lead_session(self) -> None:
        """Become the leader of a process session, or stay the leader of a group."""
        # The leader of a group cannot make a session; it can end its group all the same.
        if os.getpgrp() != self._pid:
            os.setsid()

    def install(self) -> None:
        """Take over SIGTERM. Main thread only.

        When the main thread is blocked in C code, this handler does not run; the reader thread, woken by the
        signal, ends the process then.
        """
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def end(self, status: int, last_words: str = "") -> NoReturn:
        """End this process at once, and with it the rest of its process group. For any thread.

        Nothing is finished: no cleanup runs, no thread is waited for.

        Args:
            status: The exit status.
            last_words: A line for stderr, if somebody reads there.
        """
        if self._ending.acquire(blocking=False):
            _say(last_words)
            _flush()
            self._end_group()
        else:
            time.sleep(1.0)  # another thread is about to end the process, with its own status
        os._exit(status)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        # While the process ends, this is the signal that its own group was sent.
        if not self._ending.locked():
            self.end(0)

    def _end_group(self) -> None:
        if os.getpgrp() != self._pid or not callable(signal.getsignal(signal.SIGTERM)):
            return
        os.killpg(self._pid, signal.SIGTERM)
        deadline = time.monotonic() + _ORPHAN_GRACE
        # No function of ours is called in this loop: in Python 3.11, a thread that is traced hangs at the entry
        # of a function while a signal waits for a main thread that is busy. Sleeping lets go of the lock, which
        # makes the interpreter see that the signal is not for this thread.
        while os.getppid() == self._parent and time.monotonic() < deadline:
            time.sleep(0.002)
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
        if os.getppid() != self._parent:
            # Nobody is left who would kill what ignores SIGTERM.
            os.killpg(self._pid, signal.SIGKILL)  # pragma: no cover # nobody is left to measure it either


def release_in_forks(wires: Wires) -> None:
    """Take the worker's duties off every process that is forked without starting another program.

    Otherwise such a child would hold the wires open, would end the worker's group when it gets SIGTERM, and
    would tell its own signals to the worker's reader.
    """
    held = [wires.stdin, wires.stdout]
    masks = threading.local()

    def block() -> None:
        # A signal that hit the child before its release would be taken for the worker's.
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def release() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        while held:  # a child of a child has released them already, and may use the numbers for its own
            os.close(held.pop())
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=release)


def _say(text: str) -> None:
    """Write one line to stderr, if that is possible without waiting for long."""
    if not text:
        return
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if poll.poll(_LAST_WORDS_TIMEOUT * 1000):
        with contextlib.suppress(OSError):
            # A pipe that is ready takes this much without blocking.
            os.write(2, f"{text}\n".encode(errors="backslashreplace")[: select.PIPE_BUF])


def _flush() -> None:
    """Flush the standard streams; give up if another thread holds them or nobody reads them."""

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()

    thread = threading.Thread(target=flush, daemon=True)
    # The system may give no thread. Nothing is flushed then: on this one that could take for ever.
    with contextlib.suppress(RuntimeError):
        thread.start()
        thread.join(_LAST_WORDS_TIMEOUT)
