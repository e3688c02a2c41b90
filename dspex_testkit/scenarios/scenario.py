"""What a scenario is: settings of a pool, what goes wrong with it and when, who uses it meanwhile, and the bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspex_pool.errors import WorkerDiedError
from dspex_testkit.chaos.fault import EVERYWHERE
from dspex_testkit.scenarios.plan import FaultPlan
from dspex_testkit.scenarios.workload import Clients
from dspex_testkit.seeds import random_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from dspex_testkit.scenarios.performance import Performance
    from dspex_testkit.scenarios.plan import Strike

__all__ = ["Scenario"]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One scenario. Those that need more than a storm over a pool override ``play``."""

    #: By which it is called, and from which, with the seed, all that is drawn comes.
    name: str
    #: What happens, in one line.
    story: str
    #: Draws the strikes of a storm of so many seconds.
    strikes: Callable[[random.Random, float], Iterable[Strike]] = lambda _, __: ()
    #: Settings of the pool: of ``PoolConfig``, and ``handler``.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Who uses it.
    workload: Clients = field(default_factory=Clients)
    #: How long faults run, in seconds, unless whoever plays it says otherwise.
    seconds: float = 0.4
    #: Seconds from the end of all faults until all workers serve at the same time.
    heals_within: float = 10.0
    #: Strikes of a plan that must come to pass, as a share; below 1 where faults outrun the starts of workers.
    least_proven: float = 1.0
    #: Classes of the errors that calls may end with; no others are honest.
    may_see: tuple[type[Exception], ...] = (WorkerDiedError,)
    #: Classes of the errors that some call must end with: what the scenario is about.
    must_see: tuple[type[Exception], ...] = ()
    #: Reasons for which workers must have left, some worker for each.
    must_retire: tuple[str, ...] = ()
    #: The kinds of port that it can be played on.
    ports: tuple[str, ...] = EVERYWHERE

    def plan(self, seed: int, seconds: float | None = None) -> FaultPlan:
        """Draw the plan of a seed."""
        length = self.seconds if seconds is None else seconds
        strikes = self.strikes(random_of(seed, self.name), length)
        return FaultPlan(
            seed=seed, seconds=length, strikes=tuple(sorted(strikes, key=lambda strike: strike.at))
        )

    async def play(self, performance: Performance) -> None:
        """Play it: a storm over a pool at work, and the pool's recovery.

        Cancellation: What was injected is mended, and the pool is closed.
        """
        async with performance.pool() as pool:
            await performance.storm(pool)
            await performance.heal(pool)
