"""Processes that a test started, by whatever way: children of children too, and such as their parents left alone.

What a test starts inherits a variable of the environment whose value names this process. A descendant that was left
alone still carries it, or belongs to the group or session of a process that is known; so it is found without being a
child. Where there is no ``/proc`` only descendants with living parents are found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "TEST_RUN_VARIABLE",
    "Descendant",
    "descendants",
    "end_processes",
    "kernel_time",
    "own_tag",
    "seconds_since_start",
    "tagged",
]

#: Environment variable of whatever a layered test starts: the tags of the pytest processes above it.
TEST_RUN_VARIABLE = "DSPEX_TEST_RUN"

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
#: How often an empty environment is looked at again, and the seconds between.
_TRIES, _PAUSE = 5, 0.002
_IS_LINUX = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Descendant:
    """One process, as the kernel shows it."""

    pid: int
    #: Its parent now; somebody else's once its own has ended.
    parent: int
    group: int
    session: int
    #: When it was started, in the kernel's ticks.
    started: int
    #: Whether it has ended and nobody has waited for it.
    is_zombie: bool


def own_tag() -> str:
    """Return the tag of this process: its id and when it was started."""
    started = own.started if (own := _look_at(os.getpid())) is not None else 0
    return f"{os.getpid()}-{started}"


def tagged(environment: Mapping[str, str], tag: str) -> str:
    """Return the value of the variable with ``tag`` added; a test may run pytest within its own."""
    tags = environment.get(TEST_RUN_VARIABLE, "").split()
    return " ".join([*tags, *([] if tag in tags else [tag])])


def kernel_time() -> int:
    """Return the time by the clock that processes' starts are told in, in ticks."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_SECOND) if _IS_LINUX else 0


def seconds_since_start(pid: int) -> float:
    """Return how long ago a process was started; zero where the system does not tell."""
    process = _look_at(pid)
    return (kernel_time() - process.started) / _TICKS_PER_SECOND if process is not None else 0.0


def descendants(tag: str, known: Iterable[int], *, since: int) -> dict[int, Descendant]:
    """Return the processes that were started ``since`` by this process or by its descendants, by process id.

    What a process that is older than ``since`` has started is that one's own business.

    Args:
        tag: The tag of this process.
        known: Ids of processes that this one has started.
        since: Time in ticks, as of ``kernel_time``.
    """
    if not _IS_LINUX:
        return _descendants_by_psutil()
    everything = {process.pid: process for process in map(_look_at, _numbers()) if process is not None}
    groups, own = {*known, os.getpid()} - {os.getpgrp()}, os.getpid()

    def is_ours(process: Descendant) -> bool:
        return (
            process.parent == own
            or not groups.isdisjoint((process.group, process.session))
            or (not process.is_zombie and tag in _tags_of(process.pid))
        )

    found = {}
    for process in everything.values():
        if process.started < since or process.pid == own or not is_ours(process):
            continue
        above = everything.get(process.parent)
        while above is not None and above.started >= since:
            above = everything.get(above.parent)
        if above is None or above.pid in (own, 1) or not is_ours(above):
            found[process.pid] = process
    return found


def end_processes(pids: Iterable[int]) -> None:
    """Kill processes, and reap those that are children, so that the next test starts clean."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _numbers() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdecimal()]  # noqa: PTH208 - a third of the cost


def _look_at(pid: int) -> Descendant | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as above
            # The name of the program stands in brackets and may hold anything.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return Descendant(
        pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), is_zombie=fields[0] in "ZX"
    )


def _environment_of(pid: int) -> bytes:
    """Return the environment of a process. While it is starting a program, it has none for a moment."""
    for _ in range(_TRIES):
        if environment := (_PROC / str(pid) / "environ").read_bytes():
            return environment
        time.sleep(_PAUSE)
    return b""


def _tags_of(pid: int) -> list[str]:
    try:
        environment = _environment_of(pid)
    except OSError:
        return []
    prefix = f"{TEST_RUN_VARIABLE}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("ascii", "replace").split()
    return []


def _descendants_by_psutil() -> dict[int, Descendant]:
    import psutil

    return {
        child.pid: Descendant(child.pid, child.ppid(), 0, 0, 0, is_zombie=child.status() == "zombie")
        for child in psutil.Process().children(recursive=True)
    }
