"""Finder: whole pools in simulated worlds, with faults, cancellations and a portfolio of schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from dspex_testkit.simulation.faults import GRID, swarm
from dspex_testkit.simulation.run import Setup
from dspex_testkit.simulation.schedulers import PORTFOLIO, Schedule
from dspex_testkit.simulation.sessions import SessionWorld
from dspex_testkit.simulation.workload import Case

if TYPE_CHECKING:
    from dspex_testkit.simulation.world import World

__all__ = ["SETUPS", "play"]


async def serve(world: World) -> None:
    """Ask the pool for as much as it can do, and for more."""
    await world.run(clients=8, calls=40)


async def serve_twice(world: World) -> None:
    """Ask, rest, and ask again."""
    await world.run(clients=8, calls=25)
    await trio.sleep(20 * GRID)
    await world.run(clients=4, calls=15)


#: The worlds that are played in turn.
SETUPS: Final = (
    Setup(serve, {"pool_size": 2}, swarm(), "everywhere"),
    Setup(
        serve_twice,
        {"pool_size": 2, "max_overflow": 1, "lazy": True, "max_uses": 7, "max_lifetime": (20.0, 30.0)},
        swarm(),
        "everywhere",
    ),
    Setup(serve, {"pool_size": 2}, swarm(), "everywhere", SessionWorld),
)


def play(seed: int) -> int:
    """Play one seed; raises what the run ended with."""
    setup = SETUPS[seed % len(SETUPS)]
    run = setup.play(Case(seed, Schedule(PORTFOLIO[seed // len(SETUPS) % len(PORTFOLIO)], seed)))
    if run.error is not None:
        raise run.error
    return 1
