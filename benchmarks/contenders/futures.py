"""Pools of the standard library and others whose calls give futures."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import queue
import time
from abc import abstractmethod
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.contenders.contender import Contender, check
from benchmarks.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.pool import Pool

__all__ = [
    "FutureContender",
    "open_executor",
    "open_forkserver_executor",
    "open_loky",
    "open_multiprocessing_pool",
    "open_pebble",
]


class FutureContender(Contender):
    """A pool that gives a future for each call.

    Cancellation: As for ``Contender``.
    """

    #: Whether the pool itself ends a call that takes too long.
    has_timeouts = False

    @abstractmethod
    def submit(self, task: str, argument: Any, timeout: float | None = None) -> Future[Any]:
        """Begin one call."""

    async def one_by_one(self, task: str, argument: Any, count: int) -> list[float]:
        """Call and wait for the future, in this thread."""
        clock, taken = time.perf_counter, []
        for _ in range(count):
            began = clock()
            answer = self.submit(task, argument).result()
            taken.append(clock() - began)
            check(task, argument, answer)
        return taken

    async def together(self, task: str, argument: Any, *, count: int, callers: int) -> float:
        """Keep as many futures under way as there are callers; the pool's own thread submits the next.

        A thread for each caller would cost the pool switches that are none of its making.
        """
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        left = iter(range(count))

        def submit_next(done: Future[Any] | None) -> None:
            try:
                if done is not None:
                    check(task, argument, done.result())
                if next(left, None) is None:
                    ended.put(None)
                else:
                    self.submit(task, argument).add_done_callback(submit_next)
            except Exception as error:
                ended.put(error)

        began = time.perf_counter()
        for _ in range(callers):
            submit_next(None)
        for _ in range(callers):
            error = ended.get()
            if error is not None:
                raise error
        return time.perf_counter() - began

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        """Wait for the future beside others; a thread of the pool tells that it is done.

        Where the pool knows no timeouts, its caller leaves, which is all that can be done.
        """
        token, done = trio.lowlevel.current_trio_token(), trio.Event()
        future = self.submit(task, argument, timeout)
        future.add_done_callback(lambda _: token.run_sync_soon(done.set))
        bound = math.inf if timeout is None or self.has_timeouts else timeout
        with trio.fail_after(bound):
            await done.wait()
        return future.result()


class _OfExecutor(FutureContender):
    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def submit(self, task: str, argument: Any, timeout: float | None = None) -> Future[Any]:
        future: Future[Any] = self._executor.submit(TASKS[task], argument)
        return future


class _OfPool(FutureContender):
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def submit(self, task: str, argument: Any, timeout: float | None = None) -> Future[Any]:
        future: Future[Any] = Future()
        self._pool.apply_async(TASKS[task], (argument,), {}, future.set_result, future.set_exception)
        return future


class _OfPebble(FutureContender):
    has_timeouts = True

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def submit(self, task: str, argument: Any, timeout: float | None = None) -> Future[Any]:
        future: Future[Any] = self._pool.schedule(TASKS[task], args=(argument,), timeout=timeout)
        return future


@contextlib.asynccontextmanager
async def open_executor(workers: int) -> AsyncIterator[FutureContender]:
    """Open a ``ProcessPoolExecutor`` with the start method of this Python."""
    with ProcessPoolExecutor(workers) as executor:
        yield _OfExecutor(executor)


@contextlib.asynccontextmanager
async def open_forkserver_executor(workers: int) -> AsyncIterator[FutureContender]:
    """Open a ``ProcessPoolExecutor`` on the fork server, which has imported DSPy before it forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dspy", "benchmarks.tasks"])
    with ProcessPoolExecutor(workers, context) as executor:
        yield _OfExecutor(executor)


@contextlib.asynccontextmanager
async def open_multiprocessing_pool(workers: int) -> AsyncIterator[FutureContender]:
    """Open a ``multiprocessing.Pool`` with the start method of this Python."""
    with multiprocessing.Pool(workers) as pool:
        yield _OfPool(pool)


@contextlib.asynccontextmanager
async def open_loky(workers: int) -> AsyncIterator[FutureContender]:
    """Open loky's executor."""
    import loky

    executor = loky.get_reusable_executor(max_workers=workers, timeout=None)
    try:
        yield _OfExecutor(executor)
    finally:
        executor.shutdown(wait=True, kill_workers=True)


@contextlib.asynccontextmanager
async def open_pebble(workers: int) -> AsyncIterator[FutureContender]:
    """Open Pebble's pool of processes."""
    import pebble

    with pebble.ProcessPool(max_workers=workers) as pool:
        try:
            yield _OfPebble(pool)
        finally:
            pool.stop()
