"""What a test left behind: processes, descriptors, threads, tasks, files, frames; and the lines that opened them.

Children, descriptors and threads are counted before and after. The rest is known from what the test's ledger noted.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspex_testkit.descendants import descendants, kernel_time, own_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_testkit.origins import Ledger
    from dspex_testkit.sites import Site

__all__ = ["NOTHING", "Before", "Leaks", "Resources", "leaks_since"]

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

    def only_descriptors(self) -> Resources:
        """Return the descriptors, without the rest."""
        return Resources(frozenset(), self.descriptors, frozenset())

    def __bool__(self) -> bool:
        return bool(self.children or self.descriptors or self.threads)


#: Nothing at all.
NOTHING = Resources(frozenset(), frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Before:
    """What was there before a test."""

    resources: Resources
    #: The kernel's time, in ticks, when it was looked at.
    ticks: int

    @classmethod
    def now(cls) -> Before:
        """Look at this process."""
        return cls(Resources.now(), kernel_time())


@dataclass(frozen=True, slots=True)
class Leaks:
    """What a test left behind."""

    #: Children, descriptors and threads.
    resources: Resources
    #: Ids of processes that are no children: of children, or left alone by them.
    strays: frozenset[int] = frozenset()
    #: Whatever else, one sentence each, and where it was opened.
    others: tuple[tuple[str, Site], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.resources or self.strays or self.others)

    @property
    def processes(self) -> frozenset[int]:
        """Ids of all processes."""
        return self.resources.children | self.strays

    def describe(self, ledger: Ledger) -> list[str]:
        """Name each of them and the lines that opened it, while they are there."""
        return [
            f"{what}\n    opened at {lines}"
            if (lines := "\n    from ".join(ledger.sites.tell(site)))
            else what
            for what, site in self._each(ledger)
        ]

    def _each(self, ledger: Ledger) -> Iterator[tuple[str, Site]]:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for pid in sorted(self.resources.children):
            yield _process(pid, "child process"), ledger.starts.get(pid) or _likely_start(ledger)
        for pid in sorted(self.strays):
            yield _process(pid, "process of a process"), _start_of_stray(pid, ledger)
        for number in sorted(self.resources.descriptors):
            yield f"descriptor {number}: {_target(number)}", ledger.site_of_descriptor(number)
        for ident in sorted(self.resources.threads):
            yield f"thread {names.get(ident, ident)!r}", ledger.site_of_thread(ident)
        yield from self.others


def leaks_since(
    before: Before, ledger: Ledger, *, shared: Resources = NOTHING, patience: float = _PATIENCE
) -> Leaks:
    """Return what is there now and was not ``before``.

    With the look before and the ledger it costs some 45 µs while nothing leaks. Otherwise garbage is collected first,
    and what is just ending gets ``patience`` seconds to do so.

    Args:
        before: What was there.
        ledger: What was noted since.
        shared: What belongs to others than this test.
        patience: Seconds.
    """
    known = before.resources | shared
    if leaked := _look(known, before.ticks, ledger):
        gc.collect()
        leaked = _look(known, before.ticks, ledger)
    deadline = time.monotonic() + patience
    while leaked and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        leaked = _look(known, before.ticks, ledger)
    return leaked


def _look(known: Resources, ticks: int, ledger: Ledger) -> Leaks:
    resources = Resources.now() - known
    strays: frozenset[int] = frozenset()
    if ledger.starting:
        found = descendants(own_tag(), ledger.starts, since=ticks)
        strays = frozenset(
            process.pid
            for process in found.values()
            if process.parent != os.getpid() and not process.is_zombie
        )
    return Leaks(resources, strays, tuple(_others(ledger)))


def _others(ledger: Ledger) -> Iterator[tuple[str, Site]]:
    for path, site in ledger.left_files().items():
        yield f"temporary {'folder' if Path(path).is_dir() else 'file'} {path}", site
    for watch in ledger.runs:
        if not watch.has_ended:
            yield "a trio run that has not ended", watch.began_at
        for name, site in watch.left:
            yield f"task {name}, which outlived the run's own task", site
    for port, site in ledger.ports:
        if count := port.unread_frames():
            yield f"{count} unread frames of worker {port.worker_id}, whose port was not closed", site


def _start_of_stray(pid: int, ledger: Ledger) -> Site:
    """Return where the process was started that started ``pid``, as far as that can be told."""
    for of_group in (os.getpgid, os.getsid):
        with contextlib.suppress(OSError):
            if site := ledger.starts.get(of_group(pid)):
                return site
    return _likely_start(ledger)


def _likely_start(ledger: Ledger) -> Site:
    return ledger.starting[-1] if ledger.starting else ()


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


def _process(pid: int, what: str) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return f"zombie {pid}: {process.name()}, which has ended and was not waited for"
        return f"{what} {pid}: {' '.join(process.cmdline()) or process.name()}"
    except psutil.Error:
        return f"{what} {pid}: ended meanwhile"


def _target(number: int) -> str:
    try:
        return os.readlink(f"{_DESCRIPTORS}/{number}")  # noqa: PTH115 - the answer is no path: pipe:[7], socket:[9]
    except OSError:
        return "closed meanwhile, or without a name"
