"""What a test left behind: child processes, descriptors and threads, by comparing before and after."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Resources", "end_children", "leaks_since"]

_TASKS = "/proc/self/task"
_DESCRIPTORS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"

# A thread that was joined through its result, or a pipe that its last reader just closed, may need a moment.
_PATIENCE = 0.2
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Resources:
    """What the process has at one moment."""

    #: Process ids of direct children, zombies included.
    children: frozenset[int]
    #: Open descriptors.
    descriptors: frozenset[int]
    #: Idents of living threads, idle ones of trio's thread cache excepted.
    threads: frozenset[int]

    @classmethod
    def now(cls) -> Resources:
        """Look at this process."""
        return cls(_children(), _descriptors(), frozenset(_threads()))

    def __or__(self, other: Resources) -> Resources:
        return Resources(
            self.children | other.children,
            self.descriptors | other.descriptors,
            self.threads | other.threads,
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            self.children - other.children,
            self.descriptors - other.descriptors,
            self.threads - other.threads,
        )

    def __bool__(self) -> bool:
        return bool(self.children or self.descriptors or self.threads)

    def describe(self) -> list[str]:
        """Name each of them, while they are there."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return [
            *(f"child process {pid}: {_command(pid)}" for pid in sorted(self.children)),
            *(f"descriptor {number}: {_target(number)}" for number in sorted(self.descriptors)),
            *(f"thread {names.get(ident, ident)!r}" for ident in sorted(self.threads)),
        ]


def leaks_since(before: Resources, *, patience: float = _PATIENCE) -> Resources:
    """Return what is there now and was not ``before``.

    Costs some 15 µs while nothing leaks. Otherwise garbage is collected first, and what is just ending gets
    ``patience`` seconds to do so.
    """
    leaked = Resources.now() - before
    if leaked:
        gc.collect()
        leaked = Resources.now() - before
    deadline = time.monotonic() + patience
    while leaked and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        leaked = Resources.now() - before
    return leaked


def end_children(leaked: Resources) -> None:
    """Kill and reap the child processes among ``leaked``, so that the next test starts clean."""
    for pid in leaked.children:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children() -> frozenset[int]:
    if sys.platform != "linux":
        return _children_by_psutil()
    try:
        # Says at once whether there is any child, at a twentieth of the cost of listing, and reaps none.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return frozenset()
    return _listed_children()


def _listed_children() -> frozenset[int]:
    pids: list[str] = []
    for task in os.listdir(_TASKS):  # noqa: PTH208 - a third of the cost of Path.iterdir
        try:
            with open(f"{_TASKS}/{task}/children", encoding="ascii") as children:  # noqa: PTH123 - as above
                pids += children.read().split()
        except (FileNotFoundError, ProcessLookupError):
            # Either this thread has just ended, or the kernel was built without such files.
            if not Path(f"{_TASKS}/{os.getpid()}/children").exists():
                return _children_by_psutil()
    return frozenset(map(int, pids))


def _children_by_psutil() -> frozenset[int]:
    import psutil

    return frozenset(child.pid for child in psutil.Process().children())


def _descriptors() -> frozenset[int]:
    numbers = set(map(int, os.listdir(_DESCRIPTORS)))  # noqa: PTH208 - a third of the cost of Path.iterdir
    # Listing took a descriptor itself, the lowest that was free: the one that is given out next.
    own = os.open(os.devnull, os.O_RDONLY)
    os.close(own)
    return frozenset(numbers - {own})


def _threads() -> list[int]:
    # Trio keeps threads for ten seconds; they carry this name while they have no work.
    return [
        thread.ident
        for thread in threading.enumerate()
        if thread.ident is not None and not thread.name.startswith("Trio thread ")
    ]


def _command(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return " ".join(process.cmdline()) or f"({process.status()}) {process.name()}"
    except psutil.Error:
        return "ended meanwhile"


def _target(number: int) -> str:
    try:
        return os.readlink(f"{_DESCRIPTORS}/{number}")  # noqa: PTH115 - the answer is no path: pipe:[7], socket:[9]
    except OSError:
        return "closed meanwhile, or without a name"
