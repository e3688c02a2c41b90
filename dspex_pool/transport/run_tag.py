"""The tag by which the workers of a run are found again when the run itself is gone."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import psutil

__all__ = ["RUN_TAG_VARIABLE", "own_run_tag", "run_has_ended", "shares_numbers"]

#: Environment variable of every worker that carries the tag of the process that started it.
RUN_TAG_VARIABLE = "DSPEX_POOL_RUN"

#: Seconds by which two readings of one start may differ.
_TOLERANCE = 2.0


def own_run_tag() -> str:
    """Return the tag of this process: its id and its start time, as ``PID-SECONDS``.

    On Linux the seconds are those since the system's start, which do not change when its clock is set. They are zero
    where the time cannot be read, as without ``/proc`` or at the limit on open files.
    """
    pid = os.getpid()
    try:
        started = _started(pid)
    except (psutil.Error, OSError):
        started = 0.0
    return f"{pid}-{started:.2f}"


@functools.lru_cache(maxsize=1)
def _started(pid: int) -> float:
    return _start_of(psutil.Process(pid))


def _start_of(process: psutil.Process) -> float:
    # Linux keeps seconds since its start, to which the time of that start is added. It moves with the clock.
    booted = psutil.boot_time() if sys.platform == "linux" else 0.0
    return process.create_time() - booted


def run_has_ended(tag: str) -> bool:
    """Tell whether the process that ``tag`` names is gone. A worker that still runs is then an orphan.

    Args:
        tag: A value of the variable ``DSPEX_POOL_RUN``.

    Raises:
        ValueError: ``tag`` is not of the form that ``own_run_tag`` gives.
    """
    pid_text, _, started_text = tag.partition("-")
    pid, started = int(pid_text), float(started_text)
    try:
        process = psutil.Process(pid)
        # The id may belong to a later process by now. Linux rounds the time of its start, up or down.
        is_another = started > 0 and abs(_start_of(process) - started) > _TOLERANCE
        return process.status() == psutil.STATUS_ZOMBIE or is_another
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def shares_numbers(pid: int) -> bool:
    """Tell whether a process numbers processes as this one does: not in a container, whose tags say little outside.

    Raises:
        OSError: The process is gone, or is somebody else's.
    """
    if sys.platform != "linux":
        return True
    return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
