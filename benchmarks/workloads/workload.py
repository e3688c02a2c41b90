"""What every workload says of itself, and how one round of it is measured."""

from __future__ import annotations

import contextlib
import functools
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders import POOLS, RAW, Contender, open_contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from benchmarks.figures import Metric

__all__ = ["PoolWorkload", "Round", "Settings", "Workload", "affordable"]

#: What a case needs to know; JSON.
Settings = dict[str, Any]

if TYPE_CHECKING:
    #: Measures one round and returns its values by metric.
    Round = Callable[[], Awaitable[dict[str, float]]]
else:
    Round = object


class Workload(ABC):
    """One question to all subjects."""

    #: Its letter on the command line.
    letter: ClassVar[str]
    #: What it does, in one line.
    title: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    #: What the cases of it are called, and their settings.
    cases: ClassVar[Mapping[str, Settings]]
    #: What the settings are instead with ``--quick``.
    quick: ClassVar[Settings] = {}
    #: Who takes part.
    subjects: ClassVar[tuple[str, ...]] = POOLS
    #: With whom the others are compared.
    reference: ClassVar[str | None] = RAW
    #: Rounds, where nothing else is asked for.
    rounds: ClassVar[int] = 5
    #: Seconds that one round may take before its subject is given up.
    patience: ClassVar[float] = 60.0

    def settings(self, case: str, *, quick: bool) -> Settings:
        """Return the settings of a case."""
        return {**self.cases[case], **(self.quick if quick else {})}

    @abstractmethod
    def prepare(self, subject: str, settings: Settings) -> AbstractAsyncContextManager[Round]:
        """Open the subject and give what measures a round; both in a process of their own."""


class PoolWorkload(Workload):
    """A question to pools."""

    #: Whether each round opens a pool of its own.
    opens_each_round: ClassVar[bool] = False
    #: Whether all workers have been started and have answered before a round begins.
    is_warm: ClassVar[bool] = True

    @contextlib.asynccontextmanager
    async def prepare(self, subject: str, settings: Settings) -> AsyncIterator[Round]:
        """Open the pool, now or in each round."""
        if self.opens_each_round:
            yield functools.partial(self._open_and_measure, subject, settings)
            return
        async with self._opened(subject, settings) as contender:
            yield functools.partial(self.measure, contender, settings)

    @contextlib.asynccontextmanager
    async def _opened(self, subject: str, settings: Settings) -> AsyncIterator[Contender]:
        async with open_contender(subject, settings["workers"]) as contender:
            if self.is_warm:
                await contender.warm(settings["workers"])
            yield contender

    async def _open_and_measure(self, subject: str, settings: Settings) -> dict[str, float]:
        began = time.perf_counter()
        async with self._opened(subject, settings) as contender:
            return await self.measure(contender, {**settings, "began": began})

    @abstractmethod
    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Measure one round; return its values by metric."""


def affordable(seconds_a_call: float, seconds: float, *, most: int, least: int) -> int:
    """Return how many calls fit into a time, so that a slow contender or a busy machine does not take for ever."""
    return max(least, min(most, int(seconds / max(seconds_a_call, 1e-9))))
