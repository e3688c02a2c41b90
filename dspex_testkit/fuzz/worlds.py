"""What is fuzzed if nothing else is asked for: whole pools, their settings and their load drawn from the seed.

These are tests, but not of this project's own run: ``dspex-testkit fuzz`` plays them, and a replay line names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_testkit.seeds import random_of
from dspex_testkit.simulation.explore import explore
from dspex_testkit.simulation.faults import GRID, swarm
from dspex_testkit.simulation.sessions import SessionWorld
from dspex_testkit.simulation.world import World

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from dspex_testkit.simulation.workload import Case

__all__ = ["DrawnSessions", "DrawnWorld", "test_python_pool", "test_worker_pool"]


def __getattr__(name: str) -> Any:
    """Say of which layer these tests are; pytest is only there when it asks."""
    if name != "pytestmark":
        raise AttributeError(name)
    import pytest

    return pytest.mark.chaos


#: Settings that a pool may have beside its size, on the grid of the workload, so that things coincide.
_OPTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "max_overflow": (1, 2),
    "overflow_ttl": (2.0, 5.0),
    "lazy": (True,),
    "min_idle": (1,),
    "max_starting": (1, 3),
    "idle_order": ("lifo", "fifo"),
    "health_check_interval": (2.0, 5.0, 20.0),
    "max_idle_pings": (1,),
    "idle_timeout": (5.0,),
    "max_uses": (1, 3, 7),
    "max_lifetime": ((10.0, 15.0), (20.0, 30.0)),
    "cancel_grace": (0.5, 3.0),
    "terminate_grace": (0.5, 4.0),
    "backoff_min": (0.5, 2.0),
    "checkout_timeout": (3.0, 10.0),
}


def drawn_settings(numbers: random.Random) -> dict[str, Any]:
    """Draw the settings of a pool: a size, and a few of what else there is."""
    chosen = {name: numbers.choice(values) for name, values in _OPTIONS.items() if numbers.random() < 0.25}
    return {"pool_size": numbers.choice((1, 2, 2, 3, 4)), **chosen}


class DrawnWorld(World):
    """A world of which the pool's settings come from the seed of the run."""

    def __init__(self, case: Case, *, settings: Mapping[str, Any] | None = None, **others: Any) -> None:
        drawn = drawn_settings(random_of(case.seed, "settings"))
        super().__init__(case, settings=drawn | dict(settings or {}), **others)


class DrawnSessions(SessionWorld):
    """The same for a pool with sessions."""

    def __init__(self, case: Case, *, settings: Mapping[str, Any] | None = None, **others: Any) -> None:
        drawn = drawn_settings(random_of(case.seed, "settings"))
        super().__init__(case, settings=drawn | dict(settings or {}), **others)


async def _ask_a_while(world: World) -> None:
    """Play one workload or two with a pause between them, with more callers or fewer."""
    numbers = random_of(world.case.seed, "load")
    for number in range(numbers.choice((1, 1, 2))):
        if number:
            await trio.sleep(numbers.choice((0, 2, 20, 60)) * GRID)
        await world.run(clients=numbers.choice((2, 4, 8, 16)), calls=numbers.choice((10, 25, 40)))


@explore(seeds=20, faults=swarm(), cancel="everywhere", world=DrawnWorld)
async def test_worker_pool(world: World) -> None:
    """A pool of workers keeps its promises, whatever its settings, its load and its faults.

    Cancellation: Reaches all callers.
    """
    await _ask_a_while(world)


@explore(seeds=20, faults=swarm(), cancel="everywhere", world=DrawnSessions)
async def test_python_pool(world: World) -> None:
    """So does a pool with sessions, programs, a supervisor and a monitor.

    Cancellation: Reaches all callers.
    """
    await _ask_a_while(world)
