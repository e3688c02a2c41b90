"""What every workload says of itself, and how one round of it is measured."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders import POOLS, RAW, Contender, open_contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from benchmarks.figures import Metric

__all__ = ["Round", "Settings", "Workload"]

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

    @contextlib.asynccontextmanager
    async def prepare(self, subject: str, settings: Settings) -> AsyncIterator[Round]:
        """Open the subject and give what measures a round; both in a process of their own."""
        async with open_contender(subject, settings["workers"]) as contender:
            yield functools.partial(self.measure, contender, settings)

    @abstractmethod
    async def measure(self, contender: Contender, settings: Settings) -> dict[str, float]:
        """Measure one round; return its values by metric."""
