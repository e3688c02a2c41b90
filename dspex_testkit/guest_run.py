"""A trio run that goes on between the calls of a synchronous program, for tests that are not coroutines.

The run is a guest of a loop that only turns while somebody waits for a job. So background tasks live from one job to
the next, no time passes in between, and no thread is needed.
"""

from __future__ import annotations

import math
import queue
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import outcome
import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["GuestRun"]

T = TypeVar("T")

#: Real seconds after which a job that waits for nothing that could happen is given up.
PATIENCE: Final = 5.0


class GuestRun:
    """A trio run under a clock of its own, which stands still unless a job lets it go.

    Background tasks are started in ``nursery``. If one of them fails, so does the job of that moment.
    """

    def __init__(self) -> None:
        self.clock = MockClock()
        self._due: deque[Callable[[], object]] = deque()
        self._due_from_threads: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._job: Callable[[], Awaitable[Any]] | None = None
        self._answer: outcome.Outcome[Any] | None = None
        self._end: outcome.Outcome[None] | None = None
        trio.lowlevel.start_guest_run(
            self._serve,
            run_sync_soon_threadsafe=self._due_from_threads.put,
            run_sync_soon_not_threadsafe=self._due.append,
            done_callback=self._note_end,
            host_uses_signal_set_wakeup_fd=True,
            clock=self.clock,
        )
        self._turn_until(lambda: self._token is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def nursery(self) -> trio.Nursery:
        """Where tasks run that outlive a job."""
        assert self._nursery is not None
        return self._nursery

    def run(self, job: Callable[[], Awaitable[T]]) -> T:
        """Run ``job`` to its end, and everything else meanwhile. No time passes.

        Raises:
            AssertionError: The job waits for what cannot happen, or the run has ended.
            Exception: What the job raises, or a background task.
        """
        assert self._end is None, "the run has ended"
        self._job = job
        self._turn_until(lambda: self._answer is not None)
        answer, self._answer = self._answer, None
        assert answer is not None
        if isinstance(answer, outcome.Error) and isinstance(answer.error, trio.Cancelled):
            # A background task has failed, and the nursery ends everything.
            self._turn_until(lambda: self._end is not None)
        result: T = answer.unwrap()
        return result

    def settle(self) -> None:
        """Run everything until all tasks wait for something, without letting time pass."""
        self.run(trio.testing.wait_all_tasks_blocked)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, from one deadline to the next, and run what falls due."""

        async def nap() -> None:
            await trio.sleep(seconds)
            self.clock.autojump_threshold = math.inf
            await trio.testing.wait_all_tasks_blocked()

        self.clock.autojump_threshold = 0.0
        try:
            self.run(nap)
        finally:
            self.clock.autojump_threshold = math.inf

    def close(self) -> None:
        """Cancel all tasks and end the run. Closing again does nothing.

        Raises:
            Exception: What a task raised while it was cancelled.
        """
        if self._end is not None:
            return
        self.clock.autojump_threshold = 0.0
        assert self._token is not None
        # From outside, because a job that hangs stands in the way of all later ones.
        self._token.run_sync_soon(self.nursery.cancel_scope.cancel)
        self._turn_until(lambda: self._end is not None)

    # --- inside -----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            while True:
                # A job runs in this task: a task that waited for one beside it would never be seen as blocked.
                job, self._job = self._job, None
                if job is None:
                    await trio.lowlevel.checkpoint()
                else:
                    self._answer = await outcome.acapture(job)

    def _note_end(self, end: outcome.Outcome[None]) -> None:
        self._end = end

    def _turn_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            if self._end is not None:
                self._raise_end()
            if self._due:
                self._due.popleft()()
                continue
            try:
                self._due_from_threads.get(timeout=PATIENCE)()
            except queue.Empty:
                raise AssertionError("hung: nothing can happen any more, and the job is not done") from None
        if self._end is not None:
            self._raise_end()

    def _raise_end(self) -> None:
        assert self._end is not None
        try:
            self._end.unwrap()
        except BaseExceptionGroup as group:
            # One failure is easier to read, and to tell from others, without its wrapping.
            raise _innermost(group) from None


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
