"""The lifeline: a pipe whose end has the system itself end this worker, whatever the worker is busy with.

That stdin has ended is seen by a thread, and by nobody while C code holds the interpreter's lock, or while the
process is stopped. A worker that computes so would go on long after the program that has the pool was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import stat
import sys

from dspex_pool.protocol.environment import LIFELINE_VARIABLE

__all__ = ["hang_on", "has_hung_up", "inherited_lifeline"]


def inherited_lifeline() -> int | None:
    """Return the descriptor that the pool has passed on, if it has; programs that are started hear nothing of it."""
    number = os.environ.pop(LIFELINE_VARIABLE, "")
    return int(number) if number.isdecimal() and len(number) <= 10 else None


def hang_on(descriptor: int) -> None:
    """Have the system kill this process, and the group that it leads, when the other end of the pipe is closed.

    If it is closed already, of which no signal comes any more, they are killed at once.

    Where the system cannot (it is not Linux), or ``descriptor`` is no pipe, the end of stdin has to do.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return
        os.set_inheritable(descriptor, False)
        # A number below zero names a group.
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
        if has_hung_up(descriptor):
            os.killpg(0, signal.SIGKILL)


def has_hung_up(descriptor: int) -> bool:
    """Tell whether the other end of a pipe or socket is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)  # hang-ups are always reported
    return bool(poll.poll(0))
