"""Callers who go on calling while something happens to their pool, and what they notice of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from benchmarks.contenders import Contender

__all__ = ["Traffic"]

#: Errors after which a caller gives a pool up: one is the call that was hit, the next is the pool.
_MOST_ERRORS = 2


class Traffic:
    """Some callers, each with one call after the other.

    Args:
        contender: What they call.
        callers: How many they are.
        seconds: How long each call takes in its worker.
    """

    def __init__(self, contender: Contender, *, callers: int, seconds: float) -> None:
        self._contender = contender
        self._callers = callers
        self._seconds = seconds
        self._began = [0.0] * callers
        self._changed = trio.Event()
        #: Of each worker's process, when the call began that it answered last.
        self.served: dict[int, float] = {}
        #: Calls that were answered with an error.
        self.errors = 0

    def begin(self, nursery: trio.Nursery) -> None:
        """Begin to call."""
        for number in range(self._callers):
            nursery.start_soon(self._call, number)

    async def _call(self, number: int) -> None:
        errors = 0
        while errors < _MOST_ERRORS:
            self._began[number] = trio.current_time()
            try:
                pid = await self._contender.call("hold", self._seconds)
            except Exception:
                errors += 1
                self.errors += 1
            else:
                self.served[pid] = self._began[number]
            self._changed.set()
            self._changed = trio.Event()
        # Who has given up waits for no answer.
        self._began[number] = math.inf

    async def until_served_by(self, workers: int, *, since: float, within: float) -> float | None:
        """Wait until so many workers have answered calls that began at some time or later.

        Returns:
            When it was, or ``None`` if it was not.

        Cancellation: Changes nothing.
        """
        with trio.move_on_after(within):
            while len(self.workers_since(since)) < workers:
                await self._changed.wait()
            return trio.current_time()
        return None

    def workers_since(self, since: float) -> set[int]:
        """Return the workers that have answered calls that began then or later."""
        return {pid for pid, began in self.served.items() if began >= since}

    async def lost(self, *, within: float) -> int:
        """Return how many calls failed, or are under way now and are not answered within some seconds.

        Cancellation: Changes nothing.
        """
        now = trio.current_time()
        with trio.move_on_after(within):
            while any(began < now for began in self._began):
                await self._changed.wait()
        return self.errors + sum(began < now for began in self._began)
