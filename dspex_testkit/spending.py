"""What the layers of a run have cost, against what they may cost."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dspex_testkit.descendants import seconds_since_start
from dspex_testkit.layers import LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Cost", "Spending"]


class Cost(NamedTuple):
    """Seconds that something took."""

    wall: float = 0.0
    cpu: float = 0.0

    def of(self, layer: str) -> float:
        """Return the seconds that count in ``layer``."""
        return self.cpu if LAYERS[layer].counts_cpu else self.wall

    def plus(self, other: Cost) -> Cost:
        """Return the sum."""
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


@dataclass
class Spending:
    """Adds up what tests cost.

    A run of one layer costs that layer all of its time, from the start of its process: so start-up and collection are
    included. A run of several layers costs each of them what its tests took.
    """

    #: Cost by layer and test.
    tests: dict[str, dict[str, Cost]] = field(default_factory=dict)
    #: CPU seconds of other processes that ran tests of this run.
    workers_cpu: float = 0.0
    #: What the start took, collection included.
    start: Cost = field(default_factory=Cost)
    #: What the whole run took.
    whole: Cost = field(default_factory=Cost)

    def note_start(self) -> None:
        """Take the time when the first test is about to begin."""
        self.start = self._now()

    def note_end(self) -> None:
        """Take the time when the last test has ended."""
        now = self._now()
        self.whole = Cost(now.wall, now.cpu + self.workers_cpu)

    def _now(self) -> Cost:
        return Cost(seconds_since_start(os.getpid()), time.process_time())

    def add(self, layer: str, test: str, cost: Cost) -> None:
        """Note what a test, or a part of it, cost."""
        tests = self.tests.setdefault(layer, {})
        tests[test] = tests.get(test, Cost()).plus(cost)

    def total(self, layer: str) -> float:
        """Return the seconds that ``layer`` cost."""
        if len(self.tests) == 1:
            return self.whole.of(layer)
        return sum(cost.of(layer) for cost in self.tests.get(layer, {}).values())

    def lines(self, test_budgets: Mapping[str, float], layer_budgets: Mapping[str, float]) -> Iterator[str]:
        """Yield one line for each layer that ran: its time and that of its slowest test, against their budgets."""
        for name in LAYERS:
            if tests := self.tests.get(name):
                unit = "CPU s" if LAYERS[name].counts_cpu else "s"
                slowest = max(tests, key=lambda test: tests[test].of(name))
                total = f"{self.total(name):.2f}{_of(layer_budgets[name])} {unit}"
                worst = f"{tests[slowest].of(name):.2f}{_of(test_budgets[name])} {unit}"
                yield f"{name:<12} {len(tests):>5} tests {total:>20}   slowest {worst:<18} {slowest}"
        if self.tests:
            yield f"start-up     {self.start.wall:.2f} s, {self.start.cpu:.2f} CPU s{self._where_start_counts()}"

    def _where_start_counts(self) -> str:
        return ", included" if len(self.tests) == 1 else ", beside the layers, of which there are several"

    def over(self, budgets: Mapping[str, float], enforced: frozenset[str], slack: float) -> Iterator[str]:
        """Yield what is to be said of each layer of ``enforced`` that cost more than its budget and the slack."""
        for name in self.tests:
            budget, used = budgets[name], self.total(name)
            if name in enforced and budget and used > budget * slack:
                unit = "CPU seconds" if LAYERS[name].counts_cpu else "seconds"
                yield f"layer {name} took {used:.2f} {unit}, more than {slack:g} times its budget of {budget:g}"


def _of(budget: float) -> str:
    return f" of {budget:g}" if budget else ""
