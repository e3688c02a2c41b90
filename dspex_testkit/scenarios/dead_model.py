"""The scenario of a language model that fails in every way: calls fail, and not one worker is lost to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dspex_testkit.chaos import catalogue as of
from dspex_testkit.scenarios.plan import Strike
from dspex_testkit.scenarios.scenario import Scenario

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from dspex_testkit.scenarios.performance import Performance

__all__ = ["ASKING_HANDLER", "DeadModel", "dead_model"]

#: What asks the model in the workers.
ASKING_HANDLER = "dspex_testkit.children.asking:AskingHandler"


def dead_model(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Have the model break off, refuse, fail and be slow, in an order that is drawn."""
    faults = [of.LmDown(times=4), of.LmRateLimited(times=4), of.LmFailing(status=503, times=4)]
    slow = of.LmSlow(seconds=0.1, text="late", times=2)
    for number, fault in enumerate(numbers.sample([*faults, slow], 4)):
        yield Strike(at=(number + 0.5) / 4 * seconds, fault=fault)


@dataclass(frozen=True, kw_only=True)
class DeadModel(Scenario):
    """Plays over workers whose calls ask a scripted language model."""

    async def play(self, performance: Performance) -> None:
        """Start the model, and play over workers that ask it.

        Raises:
            AssertionError: A worker was lost.

        Cancellation: As for any scenario; the model is stopped.
        """
        from dspex_testkit.lm.server import LMServer  # which loads an HTTP server

        with LMServer() as server:
            server.script.otherwise("well")
            clients = replace(self.workload, args={"api_base": server.api_base})
            async with performance.pool() as pool:
                await performance.storm(pool, clients=clients, script=server.script)
                started = pool.statistics().counters.started
                assert started == pool.size, f"{started - pool.size} workers were lost to a dead model"
                await performance.heal(pool)
