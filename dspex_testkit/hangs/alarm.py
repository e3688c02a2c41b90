"""What ends a test that hangs: an alarm in the main thread, and a watch for deadlocks in virtual time.

A signal comes to the main thread whatever it is doing in Python: sleeping, waiting for a lock, computing, or deep in
trio's loop. Its handler draws the picture there, where all that hangs can be seen, and then stops the test: by an
exception if the code is synchronous, else by what Ctrl-C would do, which trio delivers to the main task when that
can be stopped without harm. The run of the tests goes on.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

from dspex_testkit import run_watch
from dspex_testkit.hangs.pools import pool_lines
from dspex_testkit.hangs.tasks import stack_lines, task_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["Alarm", "BodyHungError", "HangError", "draw", "heeding_interrupts"]

#: Seconds between two attempts to stop a test that does not let itself be stopped.
_AGAIN = 1.0
#: How often trio must have nothing to do, with no step between, before that counts as a deadlock. Whoever waits
#: for all tasks to be blocked is woken after the first time.
_IDLE_ROUNDS = 3


class HangError(BaseException):
    """Stops synchronous code that hangs. No ``Exception``, so that nobody takes it for one of his own."""


class BodyHungError(AssertionError):
    """A body did not end, in its own time. Its text is the picture."""


@contextlib.contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Heed SIGINT in the block, also in a job that a script started in the background. Main thread only.

    Such a job ignores what alarms stop blocks with, and trio then does, too. A handler that was set in the block and
    is there at its end stays.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class Alarm:
    """Stops a block that takes too long, and says what it was waiting for. Main thread only.

    Args:
        seconds: How long it may take, in real time.
        again: Seconds between two attempts to stop it.
        error: Makes of the picture what stops synchronous code.
    """

    def __init__(
        self,
        seconds: float,
        *,
        again: float = _AGAIN,
        error: Callable[[str], BaseException] = HangError,
    ) -> None:
        self.seconds = seconds
        self._again = again
        self._error = error
        #: What was seen when it went off; ``None`` if it did not.
        self.picture: str | None = None
        self._before: Any = None
        self._heeding = heeding_interrupts()

    @staticmethod
    def is_possible() -> bool:
        """Tell whether this is the main thread of a system with alarms, and no debugger is at work."""
        return (
            hasattr(signal, "setitimer")
            and threading.current_thread() is threading.main_thread()
            and "pydevd" not in sys.modules
        )

    def __enter__(self) -> Self:
        self._heeding.__enter__()
        self._before = signal.signal(signal.SIGALRM, self._on_signal)
        signal.setitimer(signal.ITIMER_REAL, self.seconds, self._again)
        run_watch.attend()
        run_watch.WATCHERS.append(self._watch_run)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        self._heeding.__exit__(None, None, None)
        run_watch.WATCHERS.remove(self._watch_run)

    def _watch_run(self, clock: Any) -> Any:
        """Return what watches a run on a mock clock for deadlocks."""
        return None if run_watch.is_system_clock(clock) else _deadlock_watch(self)

    def _on_signal(self, _: int, frame: FrameType | None) -> None:
        self.go_off(f"not done after {self.seconds:g} s", frame)

    def go_off(self, why: str, frame: FrameType | None) -> None:
        """Draw the picture, once, and stop the block.

        Raises:
            HangError: The code is synchronous.
        """
        if self.picture is None:
            self.picture = draw(why, frame)
        if not _in_trio_run():
            raise self._error(self.picture)
        signal.raise_signal(signal.SIGINT)


def _in_trio_run() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def draw(why: str, frame: FrameType | None) -> str:
    """Return what hangs, as text: the pools, the code that runs, and the tasks."""
    parts: dict[str, list[str]] = {}
    with contextlib.suppress(Exception):  # half a picture is better than none
        parts["pools"] = pool_lines()
    parts["running"] = stack_lines(frame)
    if _in_trio_run():
        parts["tasks"] = task_lines()
    told = [f"{title}:\n" + "\n".join(f"  {line}" for line in body) for title, body in parts.items() if body]
    return "\n".join([f"hang: {why}", *told])


def _deadlock_watch(alarm: Alarm) -> Any:
    """Return an instrument that sees when nothing can run any more and nothing is due."""
    trio: Any = sys.modules["trio"]
    instrument: Any = trio.abc.Instrument

    class DeadlockWatch(instrument):  # type: ignore[misc] # trio is not imported here
        def __init__(self) -> None:
            self.rounds = 0
            self._steps = StepWatch()

        def before_io_wait(self, timeout: float) -> None:
            if not _is_stuck(trio):
                self.start_again()
                return
            self.rounds += 1
            if self.rounds == 1:
                trio.lowlevel.add_instrument(self._steps)
            elif self.rounds == _IDLE_ROUNDS:
                with contextlib.suppress(KeyboardInterrupt):
                    alarm.go_off("deadlock in virtual time: nothing can run, nothing is due", None)

        def start_again(self) -> None:
            if self.rounds:
                self.rounds = 0
                trio.lowlevel.remove_instrument(self._steps)

    # There only while nothing seems to be able to run: looking at each step of each run costs a twentieth of it.
    class StepWatch(instrument):  # type: ignore[misc] # trio is not imported here
        def before_task_step(self, task: Any) -> None:
            watch.start_again()

    watch = DeadlockWatch()
    return watch


def _is_stuck(trio: Any) -> bool:
    now = trio.lowlevel.current_statistics()
    if now.tasks_runnable or now.run_sync_soon_queue_size or now.seconds_to_next_deadline != math.inf:
        return False
    # One task always waits to read: trio's own, for other threads.
    io = now.io_statistics
    waiting = getattr(io, "tasks_waiting_read", 0) + getattr(io, "tasks_waiting_write", 0)
    return waiting <= 1 and not trio.to_thread.current_default_thread_limiter().borrowed_tokens
