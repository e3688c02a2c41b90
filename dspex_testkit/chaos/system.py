"""What faults do to processes by the system, and what can be read of it there."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "address_space_of",
    "children_of",
    "end_burners",
    "error_of_writing",
    "feed",
    "has_burnt",
    "is_starved",
    "lift_limit",
    "living_in_group",
    "lowest_free_descriptor",
    "no_processes_of",
    "set_limit",
    "soon",
    "start_burner",
    "starve",
]

#: Seconds for the system to do what it does at once, on a busy machine. Trio stands still meanwhile.
_MOMENT: Final = 0.5
_PAUSE: Final = 0.001
_NICEST: Final = 19


def soon(look: Callable[[], Any]) -> Any:
    """Look again and again for a moment, until there is something to be seen; return the last look."""
    deadline = time.monotonic() + _MOMENT
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return seen


# --- limits --------------------------------------------------------------------------------------------------


def set_limit(pid: int, kind: int, value: int) -> None:
    """Set a limit of a process; it can be lifted again."""
    hard = resource.prlimit(pid, kind)[1]
    resource.prlimit(pid, kind, (value, hard))


def lift_limit(pid: int, kind: int) -> None:
    """Lift a limit of a process, if the process lives."""
    with contextlib.suppress(ProcessLookupError):
        hard = resource.prlimit(pid, kind)[1]
        resource.prlimit(pid, kind, (hard, hard))


def address_space_of(pid: int) -> int:
    """Return the bytes of address space that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[0])
    return pages * resource.getpagesize()


def lowest_free_descriptor(pid: int) -> int:
    """Return the number that the next descriptor of a process would have."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208 - names, not paths
    return next(number for number in range(len(used) + 1) if number not in used)


def error_of_writing(pid: int, *, descriptor: int) -> int | None:
    """Return the number of the error that writing to a device brings that a process has open; ``None`` for none.

    What is no device is left alone: somebody may read it.
    """
    path = Path(f"/proc/{pid}/fd/{descriptor}")
    try:
        if not str(path.readlink()).startswith("/dev/"):
            return None
        with path.open("wb", buffering=0) as file:
            file.write(b"?")
    except OSError as error:
        return error.errno
    return None


# --- processes -----------------------------------------------------------------------------------------------


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Give the id and the fields from the state on of each process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield (
                int(path.parent.name),
                path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split(),
            )


def children_of(pid: int) -> list[int]:
    """Return the ids of the living children of a process."""
    return [child for child, fields in _stats() if int(fields[1]) == pid and fields[0] != "Z"]


def living_in_group(group: int) -> list[int]:
    """Return the ids of the processes of a group that live."""
    return [pid for pid, fields in _stats() if int(fields[2]) == group and fields[0] != "Z"]


def ignored_signals(pid: int) -> int:
    """Return which signals a process ignores, as bits; signal 1 is the lowest."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("SigIgn:"):
                return int(line.split()[1], 16)
    return 0


def no_processes_of(tag: str) -> bool:
    """Tell whether no process carries a run tag that begins with ``tag``; zombies and grandchildren count."""
    return not any(_variable(process, RUN_TAG_VARIABLE).startswith(tag) for process in psutil.process_iter())


def _variable(process: psutil.Process, name: str) -> str:
    try:
        return process.environ().get(name, "")
    except (psutil.Error, OSError):
        return ""


# --- processors ----------------------------------------------------------------------------------------------


def starve(pid: int, processor: int) -> tuple[set[int], int]:
    """Bind a process to a processor, and have it come last there; return how it was."""
    before = os.sched_getaffinity(pid), os.getpriority(os.PRIO_PROCESS, pid)
    os.sched_setaffinity(pid, {processor})
    os.setpriority(os.PRIO_PROCESS, pid, _NICEST)
    return before


def feed(pid: int, before: tuple[set[int], int]) -> None:
    """Undo ``starve``, as far as the system lets us, if the process lives."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.sched_setaffinity(pid, before[0])
        os.setpriority(os.PRIO_PROCESS, pid, before[1])


def is_starved(pid: int, processor: int) -> bool:
    """Tell whether a process is bound to a processor and comes last there."""
    with contextlib.suppress(ProcessLookupError):
        return os.sched_getaffinity(pid) == {processor} and os.getpriority(os.PRIO_PROCESS, pid) == _NICEST
    return False


def start_burner(processor: int) -> subprocess.Popen[bytes]:
    """Start a process that keeps a processor busy."""
    program = f"import os; os.sched_setaffinity(0, {{{processor}}})\nwhile True: pass"
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", program], start_new_session=True)


def has_burnt(burner: subprocess.Popen[bytes] | None) -> bool:
    """Tell whether a burner has used a processor."""
    if burner is None or burner.poll() is not None:
        return False
    fields = Path(f"/proc/{burner.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[11]) > 0


def end_burners(burners: Sequence[subprocess.Popen[bytes]]) -> None:
    """End burners."""
    for burner in burners:
        burner.kill()
        burner.wait()
