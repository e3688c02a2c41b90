"""Plays a scenario from a seed: ``await run_scenario(make_pool, chaos, "crash-storm", seed=1)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dspex_testkit.scenarios.catalogue import SCENARIOS
from dspex_testkit.scenarios.performance import Performance
from dspex_testkit.seeds import how_to_replay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_testkit.chaos.chaos import Chaos
    from dspex_testkit.ports.run import MakePool
    from dspex_testkit.scenarios.performance import Result
    from dspex_testkit.scenarios.scenario import Scenario

__all__ = ["BrokenScenarioError", "run_scenario", "scenario_of"]


class BrokenScenarioError(AssertionError):
    """A scenario did not hold. The text names it and the seed, and says what is wrong."""


def scenario_of(name: str | Scenario) -> Scenario:
    """Return a scenario of the catalogue; one that was made elsewhere is returned as it is.

    Raises:
        LookupError: There is none of that name.
    """
    if not isinstance(name, str):
        return name
    try:
        return SCENARIOS[name.replace(" ", "-")]
    except KeyError:
        raise LookupError(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}") from None


async def run_scenario(
    make_pool: MakePool, chaos: Chaos, name: str | Scenario, *, seed: int, seconds: float | None = None
) -> Result:
    """Play a scenario: safety while faults run; then they stop, and the pool must be whole within a bound.

    Args:
        make_pool: Opens pools; what the fixture of that name gives.
        chaos: Injects the faults; what the fixture of that name gives.
        name: One of the catalogue, or one of your own.
        seed: What everything is drawn from.
        seconds: How long faults run; by default as long as the scenario says.

    Raises:
        BrokenScenarioError: The scenario did not hold, or proves nothing.
        LookupError: There is none of that name.
        ValueError: It cannot be played on this kind of port.

    Cancellation: What was injected is mended, and the pool is closed.
    """
    scenario, began_at = scenario_of(name), trio.current_time()
    if make_pool.port not in scenario.ports:
        where = ", ".join(scenario.ports)
        raise ValueError(f"{scenario.name} can be played on {where}; this pool is on {make_pool.port}")
    performance = Performance(scenario, scenario.plan(seed, seconds), make_pool, chaos)
    try:
        await scenario.play(performance)
        performance.check()
    except Exception as error:
        what = "\n".join(f"{type(each).__name__}: {each}" for each in _causes(error))
        broken = BrokenScenarioError(f"scenario {scenario.name}, {how_to_replay(seed)}:\n{what}")
        broken.add_note(f"its plan: {performance.plan.encode().decode()}")
        raise broken from error
    return performance.result(trio.current_time() - began_at)


def _causes(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    else:
        yield error
