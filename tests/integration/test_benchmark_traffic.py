"""What callers of a benchmark notice when something happens to their pool, on a pool that is made up."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from benchmarks.contenders.contender import TrioContender
from benchmarks.traffic import Traffic
from benchmarks.workloads.bookkeeping import Bookkeeping


class TwoWorkers(TrioContender):
    """Workers 1 and 2 in turn; worker 2 can die, to be replaced by 3, and a call can be lost without a word."""

    def __init__(self) -> None:
        self._turns = itertools.count()
        self._alive = [1, 2]
        self.loses_next = False

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        """Take the time asked for, in the worker whose turn it is."""
        if self.loses_next:
            self.loses_next = False
            await trio.sleep_forever()
        mine = self._alive[next(self._turns) % len(self._alive)]
        await trio.sleep(argument)
        if mine not in self._alive:
            raise RuntimeError("died")
        return mine

    async def replace_second(self) -> None:
        """Let worker 2 die, and 3 take its place a second later."""
        self._alive.remove(2)
        await trio.sleep(1)
        self._alive.append(3)


async def _watch(*, loses: bool) -> tuple[float | None, int]:
    """Let a worker die at 10.5 s, and a call get lost if asked to; return when all was well again, and the losses."""
    pool = TwoWorkers()
    traffic = Traffic(pool, callers=2, seconds=1.0)
    async with trio.open_nursery() as nursery:
        traffic.begin(nursery)
        await trio.sleep(10.5)
        nursery.start_soon(pool.replace_second)
        pool.loses_next = loses
        back = await traffic.until_served_by(2, since=10.5, within=20)
        lost = await traffic.lost(within=5)
        nursery.cancel_scope.cancel()
    return back, lost


def test_lost_call_and_full_capacity_are_noticed() -> None:
    """The call in the dead worker fails; capacity is full when both workers have answered calls begun since."""
    back, lost = trio.run(lambda: _watch(loses=False), clock=MockClock(autojump_threshold=0))
    assert lost == 1
    assert back is not None
    assert back > 11.5


def test_call_that_is_never_answered_is_lost() -> None:
    """A pool that replaces the worker and forgets the call does not pass for one that lost nothing."""
    _, lost = trio.run(lambda: _watch(loses=True), clock=MockClock(autojump_threshold=0))
    assert lost == 2


@pytest.mark.parametrize("subject", Bookkeeping.subjects)
def test_books_of_the_benchmark_are_full(subject: str) -> None:
    """What is timed is a checkout and check-in that succeeds, again and again."""
    assert Bookkeeping.books[subject](10)(25) > 0
