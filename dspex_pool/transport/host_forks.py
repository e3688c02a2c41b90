"""What a fork of this process closes at once: the pool's ends of its workers' pipes.

A worker leaves when its stdin ends, and a fork that runs on without starting another program, as ``multiprocessing``
makes them, would keep that from ever happening: it would hold the other end open long after the pool and its process
are gone.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import operator
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hold", "no_fork", "release"]

#: How a fork closes what it must not keep, by descriptor.
_held: dict[int, Callable[[], None]] = {}

#: A block in which no other thread forks: what is opened in it is held in it. A thread may enter it again, because a
#: finalizer or a signal's handler, which run in the middle of anything, may fork.
no_fork = threading.RLock()

#: One for each Ctrl-C that struck while a fork waited for its turn.
_interrupts: list[None] = []


def hold(descriptor: int, close: Callable[[], None]) -> None:
    """Have forks call ``close`` for a descriptor that was opened; told again, the latest holds."""
    _held[descriptor] = close


def release(descriptor: int) -> None:
    """Close a descriptor that is held, as forks would; one that is not, closed before perhaps, stays as it is."""
    with no_fork:
        close = _held.pop(descriptor, None)
        if close is not None:
            close()


class _KeptSignal:
    """The number of the signal that is kept: SIGINT if a Ctrl-C struck, else SIGKILL, which nobody handles."""

    def __index__(self) -> int:
        number = signal.SIGINT if _interrupts else signal.SIGKILL
        _interrupts.clear()
        return int(number)


def _wait_for_turn() -> None:
    # Python only prints what is raised here, and forks all the same: without the lock, which the child could then
    # never let go of, and with the Ctrl-C gone. So that is kept until the fork is made.
    taken: list[bool] = []
    while not taken:
        try:
            # Taken and noted with no step of Python between, in which a Ctrl-C could strike: it would be taken twice.
            taken.extend(map(operator.call, [no_fork.acquire]))
        except KeyboardInterrupt:
            _interrupts.append(None)


def _close_all() -> None:
    _interrupts.clear()
    while _held:
        # One that somebody has closed behind the pool's back must not save the others.
        with contextlib.suppress(OSError):
            _held.popitem()[1]()
    no_fork.release()


os.register_at_fork(before=_wait_for_turn, after_in_parent=no_fork.release, after_in_child=_close_all)
# Behind the number no step of Python follows: what strikes in one is printed, and what strikes now is raised by the
# fork. Of a signal that no Python handles, nothing comes. The release before it is no step of Python either.
_kept: Any = _KeptSignal()
os.register_at_fork(after_in_parent=functools.partial(_thread.interrupt_main, _kept))
