"""What a fork of this process closes at once: the pool's ends of its workers' pipes.

A worker leaves when its stdin ends, and a fork that runs on without starting another program, as ``multiprocessing``
makes them, would keep that from ever happening: it would hold the other end open long after the pool and its process
are gone.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hold", "no_fork", "release"]

#: How a fork closes what it must not keep, by descriptor.
_held: dict[int, Callable[[], None]] = {}

#: A block in which no other thread forks: what is opened in it is held in it. A thread may enter it again, because a
#: finalizer or a signal's handler, which run in the middle of anything, may fork.
no_fork = threading.RLock()


def hold(descriptor: int, close: Callable[[], None]) -> None:
    """Have forks call ``close`` for a descriptor that was opened; told again, the latest holds."""
    _held[descriptor] = close


def release(descriptor: int) -> None:
    """Close a descriptor that is held, as forks would; one that is not, closed before perhaps, stays as it is."""
    with no_fork:
        close = _held.pop(descriptor, None)
        if close is not None:
            close()


def _close_all() -> None:
    while _held:
        # One that somebody has closed behind the pool's back must not save the others.
        with contextlib.suppress(OSError):
            _held.popitem()[1]()
    no_fork.release()


os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=_close_all)
