"""Hours of steady work, as plain data: so many calls a second, and a worker killed now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.simulation.faults import GRID, Kill
from dspex_testkit.simulation.run import Setup
from dspex_testkit.simulation.schedulers import Schedule
from dspex_testkit.simulation.workload import Call, Case, Workload

if TYPE_CHECKING:
    from dspex_testkit.simulation.run import Run
    from dspex_testkit.simulation.world import World

__all__ = ["simulate_hours", "steady_workload"]

#: Virtual seconds.
HOUR = 3600.0


def steady_workload(
    seconds: float, *, workers: int = 4, calls_per_second: float = 2.0, kill_every: float = 60.0
) -> Workload:
    """Return a workload that goes on for ``seconds``, with a worker killed every ``kill_every`` seconds.

    A call takes half a second of its worker. No two kills hit the same worker in a row.
    """
    calls = (
        Call(number, at=round(number / calls_per_second / GRID), work=1)
        for number in range(round(seconds * calls_per_second))
    )
    kills = (
        Kill(round((number + 0.5) * kill_every / GRID), number % workers)
        for number in range(round(seconds / kill_every))
    )
    return Workload(tuple(calls), tuple(kills))


def simulate_hours(hours: float = 1.0, *, seed: int = 1, workers: int = 4, policy: str = "fair") -> Run:
    """Simulate a pool at steady work, with health checks, and check at the end that it works as parallel as ever.

    Raises:
        BaseException: The pool has broken a promise.
    """

    async def work(world: World) -> None:
        await world.run()

    setup = Setup(work, {"pool_size": workers, "health_check_interval": 30.0})
    workload = steady_workload(hours * HOUR, workers=workers)
    run = setup.play(Case(seed, Schedule(policy, seed), (workload,)))
    if run.error is not None:
        raise run.error
    return run
