"""Who opened what: the lines that opened descriptors, started threads and processes, made files, while a test runs.

Most of it raises audit events before it happens. A descriptor that is about to be opened will have the lowest free
number, so that number is asked for at the event; what happens without an event, and what has no number before it is
there, goes through functions of ``os``, ``subprocess`` and ``threading`` that note what came of it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, Any

from dspex_testkit import run_watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dspex_testkit.sites import Site, Sites

__all__ = ["Ledger", "install", "kept", "note_port", "remove"]

_STARTS = frozenset(
    {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn"}
)
_MADE_FILES = frozenset({"tempfile.mkstemp", "tempfile.mkdtemp", "os.mkdir"})
_EVENTS = _STARTS | _MADE_FILES | {"open", "socket.__new__", "socket.bind"}
# Modules are read while tests run, by the hundred, and their files are closed at once.
_CODE = (".py", ".pyc", ".so")


class Ledger:
    """What was opened during one test, and where.

    Args:
        sites: Names the lines of the project.
        spared: Beginnings of the paths of files that are no leak: where pytest keeps those of its own.
    """

    def __init__(self, sites: Sites, *, spared: tuple[str, ...] = ()) -> None:
        self.sites = sites
        self.descriptors: dict[int, Site] = {}
        #: Processes that were started here, by id.
        self.starts: dict[int, Site] = {}
        #: Where anything was done that starts a process; its id may have stayed unknown.
        self.starting: list[Site] = []
        self.threads: list[tuple[threading.Thread, Site]] = []
        #: Files and folders that were not there before, by path.
        self.files: dict[str, Site] = {}
        #: The test kit's ports, each with its own line.
        self.ports: list[tuple[Any, Site]] = []
        #: Instruments of the trio runs that began.
        self.runs: list[Any] = []
        self._sockets: list[tuple[weakref.ref[Any], Site]] = []
        self._temporary = os.path.join(tempfile.gettempdir(), "")  # noqa: PTH118 - keeps the last separator
        self._spared = spared

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Be kept within the block, beside others."""
        _LEDGERS.append(self)
        try:
            yield
        finally:
            _LEDGERS.remove(self)

    def here(self) -> Site:
        """Return the lines of the project that run now."""
        return self.sites.of(sys._getframe(1))

    def site_of_descriptor(self, number: int) -> Site:
        """Return where a descriptor was opened, or nothing."""
        for reference, site in self._sockets:
            if (found := reference()) is not None and found.fileno() == number:
                return site
        return self.descriptors.get(number, ())

    def site_of_thread(self, ident: int) -> Site:
        """Return where a thread was started, or nothing."""
        return next((site for thread, site in reversed(self.threads) if thread.ident == ident), ())

    def on_event(self, event: str, args: tuple[Any, ...]) -> None:
        """Note an audit event."""
        if event == "open":
            self._on_open(*args)
        elif event == "socket.__new__":
            self._sockets.append((weakref.ref(args[0]), self.here()))
        elif event in _STARTS:
            self.starting.append(self.here())
        else:
            self._on_file(event, args[1] if event == "socket.bind" else args[0])

    def _on_open(self, path: object, _: object, flags: int) -> None:
        if isinstance(path, str) and path.endswith(_CODE):
            return
        site = self.here()
        if not isinstance(path, int):
            with contextlib.suppress(OSError):
                self.descriptors[_next_descriptor()] = site
        if flags & os.O_CREAT and isinstance(path, str):
            self._note_file(path, site)

    def _on_file(self, event: str, path: object) -> None:
        if isinstance(path, str) and path and path[0] != "\0":
            is_named_temporary = event.startswith("tempfile")
            self._note_file(path, self.here(), anywhere=is_named_temporary)

    def _note_file(self, path: str, site: Site, *, anywhere: bool = False) -> None:
        path = os.path.abspath(path)  # noqa: PTH100 - a tenth of the cost
        if path.startswith(self._spared) or not (anywhere or path.startswith(self._temporary)):
            return
        if not os.path.lexists(path):
            self.files[path] = site

    def counts(self) -> tuple[int, int, int]:
        """Return how many ports, runs and files were noted so far."""
        return len(self.ports), len(self.runs), len(self.files)

    def forget_since(self, counts: tuple[int, int, int]) -> None:
        """Forget the ports, runs and files that were noted since ``counts``: others than the test hold them."""
        ports, runs, files = counts
        del self.ports[ports:], self.runs[runs:]
        self.files = dict(itertools.islice(self.files.items(), files))

    def left_files(self) -> dict[str, Site]:
        """Return the files and folders that are still there; of a folder not what is in it."""
        there = {path: site for path, site in self.files.items() if os.path.lexists(path)}
        return {
            path: site
            for path, site in there.items()
            if not any(path.startswith(other + os.sep) for other in there)
        }


#: The ledgers that are kept now; a test may run pytest within its own.
_LEDGERS: list[Ledger] = []


def kept() -> tuple[Ledger, ...]:
    """Return the ledgers that are kept now."""
    return tuple(_LEDGERS)


def note_port(port: object) -> None:
    """Note that the test kit opened ``port``: the leak gate looks for frames that nobody read from it."""
    for ledger in _LEDGERS:
        ledger.ports.append((port, ledger.sites.of(sys._getframe(2))))


def _next_descriptor() -> int:
    """Return the number that the next descriptor will have."""
    number = os.dup.__wrapped__(0) if hasattr(os.dup, "__wrapped__") else os.dup(0)
    os.close(number)
    return int(number)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _LEDGERS and event in _EVENTS:
        for ledger in _LEDGERS:
            ledger.on_event(event, args)


def _watch_run(clock: object) -> Any:
    if not _LEDGERS:
        return None
    watch = run_watch.task_watch()(_LEDGERS[-1].here)
    for ledger in _LEDGERS:
        ledger.runs.append(watch)
    return watch


# --- what raises no event -----------------------------------------------------------------------------------


def _note_descriptors(ledger: Ledger, result: Any) -> None:
    # Whoever captures output redirects the standard descriptors, pytest a dozen times for a test.
    numbers = [number for number in (result if isinstance(result, tuple) else (result,)) if number > 2]
    if numbers:
        ledger.descriptors.update(dict.fromkeys(numbers, ledger.here()))


def _note_process(ledger: Ledger, result: Any) -> None:
    pid, *descriptors = result if isinstance(result, tuple) else (result,)
    if pid:
        ledger.starts[pid] = site = ledger.here()
        ledger.descriptors.update(dict.fromkeys(descriptors, site))


_FUNCTIONS = {
    **dict.fromkeys(
        ("pipe", "pipe2", "dup", "dup2", "openpty", "eventfd", "memfd_create", "pidfd_open"),
        _note_descriptors,
    ),
    **dict.fromkeys(("fork", "forkpty", "posix_spawn", "posix_spawnp"), _note_process),
}
#: Undo what ``install`` did.
_UNDO: list[Callable[[], None]] = []
_is_hooked = False


def install() -> None:
    """Have ledgers notice everything. Does nothing where that is done already."""
    global _is_hooked
    if not _is_hooked:
        _is_hooked = True
        sys.addaudithook(_hook)
    if _UNDO:
        return
    run_watch.WATCHERS.append(_watch_run)
    _UNDO.append(functools.partial(run_watch.WATCHERS.remove, _watch_run))
    for name, note in _FUNCTIONS.items():
        if hasattr(os, name):
            _replace(os, name, _noting(getattr(os, name), note))
    _replace(subprocess.Popen, "__init__", _noting_popen(subprocess.Popen.__init__))
    _replace(threading.Thread, "start", _noting_start(threading.Thread.start))


def remove() -> None:
    """Take everything back but the audit hook, which Python does not let go."""
    while _UNDO:
        _UNDO.pop()()


def _replace(owner: Any, name: str, new: Any) -> None:
    old = getattr(owner, name)
    setattr(owner, name, new)

    def undo() -> None:
        if getattr(owner, name) is new:
            setattr(owner, name, old)

    _UNDO.append(undo)


def _noting(function: Callable[..., Any], note: Callable[[Ledger, Any], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def noting(*args: Any, **options: Any) -> Any:
        result = function(*args, **options)
        for ledger in _LEDGERS:
            note(ledger, result)
        return result

    return noting


def _noting_popen(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def noting(self: subprocess.Popen[Any], *args: Any, **options: Any) -> None:
        function(self, *args, **options)
        for ledger in _LEDGERS:
            ledger.starts[self.pid] = site = ledger.here()
            for stream in (self.stdin, self.stdout, self.stderr):
                if stream is not None:
                    ledger.descriptors[stream.fileno()] = site

    return noting


def _noting_start(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def noting(self: threading.Thread) -> None:
        for ledger in _LEDGERS:
            ledger.threads.append((self, ledger.here()))
        function(self)

    return noting
