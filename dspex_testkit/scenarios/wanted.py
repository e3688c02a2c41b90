"""What the fixture ``scenario`` gives: plays scenarios in the run of its test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.ports.run import WANTED, Companion, Wanted
from dspex_testkit.scenarios.run import run_scenario

if TYPE_CHECKING:
    import contextlib

    from dspex_testkit.chaos.chaos import Chaos
    from dspex_testkit.ports.run import BodyRun, MakePool
    from dspex_testkit.scenarios.performance import Result
    from dspex_testkit.scenarios.scenario import Scenario

__all__ = ["Player", "WantedScenarios"]


class Player:
    """Plays scenarios: ``await scenario("crash-storm")``.

    Args:
        make_pool: Opens their pools.
        chaos: Injects their faults.
        seed: The seed of the run.
    """

    def __init__(self, make_pool: MakePool, chaos: Chaos, seed: int) -> None:
        self._make_pool = make_pool
        self._chaos = chaos
        self._seed = seed

    @property
    def port(self) -> str:
        """``sim``, ``server`` or ``process``."""
        return self._make_pool.port

    async def __call__(
        self, name: str | Scenario, *, seed: int | None = None, seconds: float | None = None
    ) -> Result:
        """Play a scenario, from the seed of the run unless another is given; see ``run_scenario``.

        Cancellation: What was injected is mended, and the pool is closed.
        """
        drawn_from = self._seed if seed is None else seed
        return await run_scenario(self._make_pool, self._chaos, name, seed=drawn_from, seconds=seconds)


class WantedScenarios(Companion, Wanted):
    """Stands in a test's arguments for a ``Player``.

    Args:
        chaos: Injects.
        seed: The seed of the run.
    """

    def __init__(self, chaos: Chaos, seed: int) -> None:
        super().__init__(self._open, "scenario")
        self._chaos = chaos
        self._seed = seed

    def join(self, run: BodyRun) -> None:
        """Put lines before all workers."""
        self._chaos.join(run)

    async def _open(self, run: BodyRun, stack: contextlib.AsyncExitStack) -> Player:
        return Player(await WANTED["make_pool"].open(run, stack), self._chaos, self._seed)
