"""H: what the books cost when they are full."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import time
from typing import TYPE_CHECKING, ClassVar

from benchmarks.books import lend_once, ready_core, serving_line
from benchmarks.figures import Metric
from benchmarks.workloads.workload import Settings, Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from benchmarks.workloads.workload import Round

__all__ = ["BESIDE", "EACH", "Bookkeeping"]

#: What is measured: with all entries, and with few of them in turn with that.
EACH, BESIDE = "a checkout and check-in", "10 entries beside it"

#: Seconds from one to the next: what a short call takes.
_CALL_S = 50e-6

_FEW = 10
_PIECES, _PIECE = 50, 100


def with_sessions(entries: int) -> Callable[[int], float]:
    """Return what does so many checkouts and check-ins of sessions drawn by chance, and tells their seconds."""
    state, draw = ready_core(4, max_sessions=entries + 1), random.Random(0).randrange
    clock = (number * _CALL_S for number in itertools.count())
    for number in range(entries):
        lend_once(state, f"session-{number}", next(clock))

    def repeat(times: int) -> float:
        # A caller comes with an id of its own; to draw one is no part of what it asks for.
        calls = [(f"session-{draw(entries)}", next(clock)) for _ in range(times)]
        began = time.perf_counter()
        for session, now in calls:
            lend_once(state, session, now)
        return time.perf_counter() - began

    return repeat


def with_waiters(length: int) -> Callable[[int], float]:
    """Return what has so many check-ins serve the first of a line of this length, and tells their seconds."""
    serve = serving_line(length)

    def repeat(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            serve()
        return time.perf_counter() - began

    return repeat


class Bookkeeping(Workload):
    """The pure core alone; no process, no loop."""

    letter = "H"
    title = "checkout and check-in in the core alone"
    metrics = (Metric(EACH, has_ratio=False), Metric(BESIDE, has_ratio=False))
    cases: ClassVar[Mapping[str, Settings]] = {
        "10 entries": {"entries": 10},
        "1,000 entries": {"entries": 1000},
        "100,000 entries": {"entries": 100_000},
    }
    books: ClassVar[Mapping[str, Callable[[int], Callable[[int], float]]]] = {
        "idle sessions": with_sessions,
        "waiters in line": with_waiters,
    }
    subjects = tuple(books)
    reference = None

    @contextlib.asynccontextmanager
    async def prepare(self, subject: str, settings: Settings) -> AsyncIterator[Round]:
        """Fill the books."""
        fill = self.books[subject]
        yield functools.partial(self._repeat, (fill(settings["entries"]), fill(_FEW)))

    async def _repeat(self, repeats: tuple[Callable[[int], float], ...]) -> dict[str, float]:
        took = [0.0 for _ in repeats]
        # In turns of half a millisecond: what the machine does meanwhile hits both.
        for piece in range(_PIECES + 1):
            for place, repeat in enumerate(repeats):
                seconds = repeat(_PIECE)
                # The first warms up.
                took[place] += seconds if piece else 0.0
        each, beside = (seconds / (_PIECES * _PIECE) for seconds in took)
        return {EACH: each, BESIDE: beside}
