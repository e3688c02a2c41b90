"""What a fork of this process closes at once: the pool's ends of its workers' pipes.

A worker leaves when its stdin ends, and a fork that runs on without starting another program, as ``multiprocessing``
makes them, would keep that from ever happening: it would hold the other end open long after the pool and its process
are gone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hold", "let_go"]

#: How a fork closes what it must not keep, by descriptor.
_held: dict[int, Callable[[], None]] = {}


def hold(descriptor: int, close: Callable[[], None]) -> None:
    """Have forks call ``close`` for a descriptor that was opened; told again, the latest holds."""
    _held[descriptor] = close


def let_go(descriptor: int) -> None:
    """Have forks leave a descriptor alone: it is about to be closed, and its number given to somebody else."""
    _held.pop(descriptor, None)


def _close_all() -> None:
    while _held:
        _held.popitem()[1]()


os.register_at_fork(after_in_child=_close_all)
