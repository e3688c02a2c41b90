"""H: what the books cost when they are full."""

from __future__ import annotations

import contextlib
import functools
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

_FEW = 10
_PIECES, _PIECE = 50, 100


def with_sessions(entries: int) -> Callable[[], None]:
    """Return a checkout and check-in of one of so many sessions, by chance."""
    state, names = ready_core(4, max_sessions=entries + 1), [f"session-{number}" for number in range(entries)]
    for name in names:
        lend_once(state, name)
    choose = random.Random(0).choice
    return lambda: lend_once(state, choose(names))


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
    books: ClassVar[Mapping[str, Callable[[int], Callable[[], None]]]] = {
        "idle sessions": with_sessions,
        "waiters in line": serving_line,
    }
    subjects = tuple(books)
    reference = None

    @contextlib.asynccontextmanager
    async def prepare(self, subject: str, settings: Settings) -> AsyncIterator[Round]:
        """Fill the books."""
        fill = self.books[subject]
        yield functools.partial(self._repeat, (fill(settings["entries"]), fill(_FEW)))

    async def _repeat(self, actions: tuple[Callable[[], None], ...]) -> dict[str, float]:
        took = [0.0 for _ in actions]
        # In turns of half a millisecond: what the machine does meanwhile hits both.
        for piece in range(_PIECES + 1):
            for place, action in enumerate(actions):
                began = time.perf_counter()
                for _ in range(_PIECE):
                    action()
                # The first warms up.
                took[place] += time.perf_counter() - began if piece else 0.0
        each, beside = (seconds / (_PIECES * _PIECE) for seconds in took)
        return {EACH: each, BESIDE: beside}
