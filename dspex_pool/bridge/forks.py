"""Forking: what forbids it, and how a fork of the template becomes a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

__all__ = ["become_worker", "find_hazards"]

_STANDARD_STREAMS = frozenset({0, 1, 2})
_DESCRIPTORS = "/proc/self/fd"
_SQLITE_MAGIC = b"SQLite format 3\0"


def find_hazards(own: Set[int]) -> list[str]:
    """Name what would be broken, or shared, in every fork of this process.

    A thread is not copied, but the locks that it holds are. A database, a connection or an event loop would be used
    by several processes at a time. Files that are open for reading are no hazard: models are mapped from them.

    Args:
        own: Descriptors that are the template's own.
    """
    return [*_threads(), *_shared_descriptors(own)]


def _threads() -> list[str]:
    count = len(_names_in("/proc/self/task")) - 1
    if not count:
        return []
    names = [repr(thread.name) for thread in threading.enumerate() if thread is not threading.main_thread()]
    told = ", ".join(names) if names else "of a C library"
    return [f"{count} thread{'s'[: count > 1]} beside the main one ({told})"]


def _shared_descriptors(own: Set[int]) -> list[str]:
    found = []
    for descriptor in sorted(set(map(int, _names_in(_DESCRIPTORS))) - own - _STANDARD_STREAMS):
        # The listing's own is closed by now.
        with contextlib.suppress(OSError):
            if what := _why_shared(descriptor):
                found.append(f"{what} ({Path(_DESCRIPTORS, str(descriptor)).readlink()})")
    return found


def _names_in(folder: str) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208 - before each fork; making paths takes ten times as long


def _why_shared(descriptor: int) -> str:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISDIR(mode):
        return ""
    if not stat.S_ISREG(mode):
        return "an open socket" if stat.S_ISSOCK(mode) else "an open pipe or event loop"
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
        return "a cache or another file that is open for writing"
    return "an open database" if os.pread(descriptor, 16, 0) == _SQLITE_MAGIC else ""


def become_worker(streams: Sequence[int], channel: int, environment: Mapping[str, str | None]) -> None:
    """Make this fork a worker: own session, own streams, own random numbers, nothing of the template's.

    What else is open is the handler's: a moment ago, no hazard was among it.

    Args:
        streams: What becomes stdin, stdout and stderr.
        channel: The template's socket.
        environment: Variables to change; ``None`` removes one.
    """
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.close(channel)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _reseed()
    gc.enable()


def _reseed() -> None:
    # Python's own generator does it by itself; uuid and secrets have no state.
    for name in ("numpy.random", "torch"):
        if (module := sys.modules.get(name)) is not None:
            module.seed()
