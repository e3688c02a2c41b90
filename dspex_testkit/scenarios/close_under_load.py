"""The scenario of a pool that is closed while everybody works: all hear of it, in time, and nothing is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from dspex_testkit.chaos import catalogue as of
from dspex_testkit.scenarios.plan import Strike
from dspex_testkit.scenarios.scenario import Scenario
from dspex_testkit.scenarios.targets import LeaseHolder

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from dspex_testkit.scenarios.performance import Performance

__all__ = ["CloseUnderLoad", "stand_still"]


def stand_still(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Have a worker stand still, so that it hears no goodbye."""
    yield Strike(at=numbers.uniform(0.5, 0.9) * seconds, fault=of.Stop(seconds=60.0), target=LeaseHolder())


@dataclass(frozen=True, kw_only=True)
class CloseUnderLoad(Scenario):
    """Closes its pool under load, and opens another."""

    #: Seconds in which the pool must have closed.
    closes_within: float = 5.0

    async def play(self, performance: Performance) -> None:
        """Close the pool while clients call and a worker stands still; then see that another serves.

        Raises:
            AssertionError: Closing took too long.

        Cancellation: As for any scenario.
        """
        is_over = trio.Event()
        async with trio.open_nursery() as nursery:
            async with performance.pool() as pool:
                storm = performance.new_storm(pool)
                nursery.start_soon(performance.run_clients, self.workload, pool, is_over)
                await storm.run()
                began_at = trio.current_time()
            took = trio.current_time() - began_at
            storm.mend()
            assert took <= self.closes_within, f"closing took {took:.2f} s, not {self.closes_within:g}"
            is_over.set()
        async with performance.pool() as another:
            await performance.heal(another, since=trio.current_time())
