"""What every pool in the benchmark can be asked for."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from typing import Any

import trio

from benchmarks.machine import descendants_of

__all__ = ["Contender", "TrioContender", "WrongAnswerError", "check"]


class WrongAnswerError(Exception):
    """A call was answered with an error or with something else than it should be."""


def check(task: str, argument: Any, answer: Any) -> None:
    """Refuse an answer that is not right: a fast pool that answers nonsense has no figures.

    Raises:
        WrongAnswerError: It is not right.
    """
    if answer != argument:
        raise WrongAnswerError(f"{task} was answered with {repr(answer)[:100]}")


class Contender(ABC):
    """An opened pool.

    The coroutines may block the loop: nothing else runs while they measure. So callers that are no coroutines
    are measured without paying for a loop.

    Cancellation: Of no use; the process ends.
    """

    @abstractmethod
    async def one_by_one(self, task: str, argument: Any, count: int) -> list[float]:
        """Have one caller call ``count`` times, and return the seconds of each call."""

    @abstractmethod
    async def together(self, task: str, argument: Any, *, count: int, callers: int) -> float:
        """Have many callers share ``count`` calls, and return the seconds of all."""

    @abstractmethod
    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        """Call once beside others; a timeout raises whatever the pool raises."""

    async def warm(self, workers: int) -> None:
        """Have all workers started: each takes one of the calls, which last long enough for that."""
        await self.together("wait", 0.1, count=workers, callers=workers)

    def worker_pids(self) -> list[int]:
        """Return the processes below this one."""
        return descendants_of(os.getpid())


class TrioContender(Contender):
    """A pool whose callers are trio tasks.

    Cancellation: As for ``Contender``.
    """

    async def one_by_one(self, task: str, argument: Any, count: int) -> list[float]:
        """Call in this task."""
        clock, taken, call = time.perf_counter, [], self.call
        for _ in range(count):
            began = clock()
            answer = await call(task, argument)
            taken.append(clock() - began)
            check(task, argument, answer)
        return taken

    async def together(self, task: str, argument: Any, *, count: int, callers: int) -> float:
        """Call in as many tasks as there are callers."""
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                check(task, argument, await self.call(task, argument))

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(caller)
        return time.perf_counter() - began
