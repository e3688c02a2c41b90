"""An instrument in every trio run that begins while tests run, put there when the run's clock is started.

No public name tells of runs that others begin. Every run starts its clock, so the classes of trio's own clocks are
given another way to start. ``trio`` is not imported here: whoever does not use it does not pay for it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["WATCHERS", "Watcher", "attend", "is_system_clock", "leave", "task_watch"]

#: Is told the clock of a run that begins; returns the instrument for it, or ``None``.
Watcher: TypeAlias = Callable[[Any], Any]

#: Whoever wants to know of runs, in order.
WATCHERS: list[Watcher] = []

#: The clocks' own ways to start, by their classes.
_STARTS: dict[type, Callable[[Any], None]] = {}


def attend() -> None:
    """See every run from now on, once trio is loaded. Does nothing where that is done already."""
    trio = sys.modules.get("trio")
    if trio is None:
        return
    mocks = getattr(sys.modules.get("trio.testing"), "MockClock", None)
    for kind in (_system_clock(trio), mocks):
        if kind is not None and kind not in _STARTS:
            _STARTS[kind] = kind.start_clock
            kind.start_clock = _start


def leave() -> None:
    """Give the clocks back their own way to start."""
    while _STARTS:
        kind, start = _STARTS.popitem()
        if kind.start_clock is _start:  # type: ignore[attr-defined] # a clock's class
            kind.start_clock = start  # type: ignore[attr-defined] # as above


def is_system_clock(clock: Any) -> bool:
    """Tell whether waits on ``clock`` take real time."""
    return type(clock) is _system_clock(sys.modules["trio"])


@functools.cache
def _system_clock(trio: Any) -> Any:
    async def ask() -> Any:
        return type(trio.lowlevel.current_clock())

    return trio.run(ask)


def _start(clock: Any) -> None:
    for watcher in tuple(WATCHERS):
        if (instrument := watcher(clock)) is not None:
            sys.modules["trio"].lowlevel.add_instrument(instrument)
    next(_STARTS[kind] for kind in type(clock).__mro__ if kind in _STARTS)(clock)


@functools.cache
def task_watch() -> Any:
    """Return a class of instruments that tell which tasks outlived a run's own, and whether the run ended."""
    trio: Any = sys.modules["trio"]
    library = str(trio.__file__).removesuffix("__init__.py")

    class TaskWatch(trio.abc.Instrument):  # type: ignore[misc] # trio is not imported here
        """Watches one run. ``locate`` returns where the code that runs now is."""

        def __init__(self, locate: Callable[[], Any]) -> None:
            self._locate = locate
            self._root: Any = None
            self._main: Any = None
            #: What was spawned beside the run's own task and has not ended, and where.
            self.alive: dict[Any, Any] = {}
            #: Names of such tasks at the end of the run's own, and where they were spawned.
            self.left: list[tuple[str, Any]] = []
            self.has_ended = False
            self.began_at = locate()

        def task_spawned(self, task: Any) -> None:
            nursery = task.parent_nursery
            if nursery is None:
                self._root = task
            elif nursery.parent_task is self._root and not _is_from(library, task):
                if self._main is None:
                    self._main = task
                else:
                    self.alive[task] = self._locate()

        def task_exited(self, task: Any) -> None:
            self.alive.pop(task, None)
            if task is self._main:
                # What trio ends now, because the run is over, was nobody's to wait for.
                self.left = [(other.name, where) for other, where in self.alive.items()]

        def after_run(self) -> None:
            self.has_ended = True

    return TaskWatch


def _is_from(library: str, task: Any) -> bool:
    code = getattr(task.coro, "cr_code", None)
    return code is not None and code.co_filename.startswith(library)
