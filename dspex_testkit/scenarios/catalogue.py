"""The scenarios that are ready to use, by name, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dspex_pool.errors import (
    CallTimeoutError,
    CheckoutTimeoutError,
    PoolClosedError,
    PoolSaturatedError,
    ProgramError,
    ProgramExistsError,
    ProgramNotFoundError,
    RemoteProtocolError,
    WorkerDiedError,
)
from dspex_testkit.chaos.fault import PROCESS
from dspex_testkit.scenarios import strikes
from dspex_testkit.scenarios.close_under_load import CloseUnderLoad, stand_still
from dspex_testkit.scenarios.dead_model import ASKING_HANDLER, DeadModel, dead_model
from dspex_testkit.scenarios.lives import HostKilledError
from dspex_testkit.scenarios.parent_killed import ParentKilled
from dspex_testkit.scenarios.scenario import Scenario
from dspex_testkit.scenarios.workload import Clients

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SCENARIOS", "table"]

#: Bounds for workers that say nothing more, or nonsense, also in their handshake.
_IMPATIENT: Final[Mapping[str, Any]] = {
    "call_timeout": 0.5,
    "cancel_grace": 0.2,
    "terminate_grace": 0.2,
    "spawn_timeout": 3.0,
}
#: Seconds in which a pool is whole again that such a start has held up.
_AFTER_A_LOST_START: Final = 13.0

_ALL: Final = (
    Scenario(
        name="single-death",
        story="One of three workers is killed at work",
        strikes=strikes.single_death,
        settings={"pool_size": 3},
    ),
    Scenario(
        name="half-the-workers",
        story="Half of four workers are killed at the same moment",
        strikes=strikes.half_the_workers,
        settings={"pool_size": 4},
    ),
    Scenario(
        name="cascade",
        story="One worker after the other is killed at work, or with the session that has moved to it, each sooner",
        strikes=strikes.cascade,
        settings={"pool_size": 4},
    ),
    Scenario(
        name="crash-storm",
        story="Two of eight workers are killed every 25 ms, under sixteen clients",
        strikes=strikes.crash_storm,
        settings={"pool_size": 8},
        workload=Clients(count=16),
        least_proven=0.1,
    ),
    Scenario(
        name="thundering-herd",
        story="All workers are killed, starts are slow, and sixty clients want the first that is back",
        strikes=strikes.thundering_herd,
        settings={"pool_size": 3},
        workload=Clients(count=60, work=0.01),
    ),
    Scenario(
        name="slow-worker",
        story="One of three workers answers late, and another stands still for a while",
        strikes=strikes.slow_worker,
        settings={"pool_size": 3},
        may_see=(),
    ),
    Scenario(
        name="saturation",
        story="Workers stand still under more clients than may wait, and for longer than those have patience",
        strikes=strikes.saturation,
        settings={"pool_size": 2, "max_waiting": 8, "checkout_timeout": 0.15},
        workload=Clients(count=24),
        may_see=(PoolSaturatedError, CheckoutTimeoutError),
        must_see=(PoolSaturatedError, CheckoutTimeoutError),
    ),
    Scenario(
        name="memory-leak",
        story="Workers keep memory until they are replaced for it, and others for the number of their uses",
        strikes=strikes.memory_leak,
        settings={
            "pool_size": 2,
            "max_rss_bytes": 100 * 2**20,
            "max_uses": 25,
            "monitor_interval": 0.05,
        },
        may_see=(),
        must_retire=("max_rss", "max_uses"),
        ports=PROCESS,
    ),
    Scenario(
        name="corrupt-stream",
        story="Answers come as garbage, cut, too long, twice or under a wrong number",
        strikes=strikes.corrupt_stream,
        settings={"pool_size": 2, **_IMPATIENT},
        heals_within=_AFTER_A_LOST_START,
        may_see=(RemoteProtocolError, WorkerDiedError, CallTimeoutError),
    ),
    DeadModel(
        name="dead-language-model",
        story="The language model breaks off, refuses, fails and is slow; calls fail, and no worker is lost",
        strikes=dead_model,
        settings={"pool_size": 2, "handler": ASKING_HANDLER},
        workload=Clients(count=4, command="ask"),
        may_see=(ProgramError,),
        must_see=(ProgramError,),
        ports=PROCESS,
    ),
    ParentKilled(
        name="parent-killed",
        story="The program that has the pool is killed: no worker outlives it, and its sessions are found again",
        settings={"pool_size": 2},
        may_see=(HostKilledError, ProgramExistsError, ProgramNotFoundError),
        ports=PROCESS,
    ),
    CloseUnderLoad(
        name="close-under-load",
        story="The pool is closed at work, with a worker that stands still: all hear of it, and in time",
        strikes=stand_still,
        settings={"pool_size": 3, "terminate_grace": 0.3},
        may_see=(PoolClosedError, WorkerDiedError),
        must_see=(PoolClosedError,),
    ),
    Scenario(
        name="resize-under-load",
        story="The pool shrinks, grows, is suspended and replaced at work, and not one call fails",
        strikes=strikes.resizes,
        settings={"pool_size": 2},
        may_see=(),
    ),
    Scenario(
        name="everything-at-once",
        story="Deaths, stops, late and garbled answers, slow starts and resizes, as they are drawn",
        strikes=strikes.everything,
        settings={"pool_size": 3, **_IMPATIENT},
        heals_within=_AFTER_A_LOST_START,
        may_see=(RemoteProtocolError, WorkerDiedError, CallTimeoutError),
    ),
)

#: Every scenario by its name, in the order of the table.
SCENARIOS: Final[Mapping[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}


def table() -> str:
    """Return the catalogue as a table in Markdown."""
    rows = [
        "| Scenario | What happens | Faults last | Whole again within | Where |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| `{each.name}` | {each.story} | {each.seconds:g} s | {each.heals_within:g} s | {', '.join(each.ports)} |"
        for each in SCENARIOS.values()
    ]
    return "\n".join(rows) + "\n"
