"""The catalogue of scenarios: each holds wherever it says so; one that does not, or proves nothing, is red."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from dspex_pool.errors import PoolSaturatedError
from dspex_testkit.chaos import catalogue as of
from dspex_testkit.chaos.chaos import Chaos
from dspex_testkit.history.record import Outcome
from dspex_testkit.ports.run import WANTED, BodyRun
from dspex_testkit.scenarios.catalogue import SCENARIOS
from dspex_testkit.scenarios.plan import Strike
from dspex_testkit.scenarios.run import BrokenScenarioError, run_scenario
from dspex_testkit.scenarios.scenario import Scenario
from dspex_testkit.scenarios.targets import BoundTo, LeaseHolder
from dspex_testkit.scenarios.workload import Clients
from tests.bugbench.catalogue import BUGS, planted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dspex_testkit.ports.run import MakePool
    from dspex_testkit.scenarios.performance import Result
    from dspex_testkit.scenarios.wanted import Player

pytestmark = pytest.mark.chaos

#: Those that do without processes.
SIMULATED = [name for name, scenario in SCENARIOS.items() if "sim" in scenario.ports]


@pytest.mark.ports("process")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario_holds_on_processes(name: str, scenario: Player) -> None:
    """Nothing is lost, doubled or crossed while faults run; then all workers serve at once, within the bound."""
    result = await scenario(name)
    assert result.proven, "nothing went wrong"


@pytest.mark.ports("sim")
@pytest.mark.parametrize("name", SIMULATED)
async def test_scenario_holds_on_simulated_workers(name: str, scenario: Player) -> None:
    """The same in simulated time."""
    result = await scenario(name)
    assert result.proven, "nothing went wrong"


def test_all_scenarios_are_there() -> None:
    """None is lost from the catalogue by accident, and each can be played on processes."""
    assert len(SCENARIOS) == 14
    assert all("process" in scenario.ports for scenario in SCENARIOS.values())


# --- soaks ---------------------------------------------------------------------------------------------------


def played(port: str, scenario: str | Scenario, *, seed: int, seconds: float) -> Result:
    """Play a scenario for longer than a test body may take."""
    results: list[Result] = []

    async def body(make_pool: MakePool, chaos: Chaos) -> None:
        results.append(await run_scenario(make_pool, chaos, scenario, seed=seed, seconds=seconds))

    run = BodyRun(port, hung_after=seconds + 120.0)
    run.run(body, {"make_pool": WANTED["make_pool"], "chaos": Chaos(random.Random(seed))})
    return results[0]


@pytest.mark.budget(180)
def test_crash_storm_of_a_minute_ends_with_a_full_pool_in_a_soak(dspex_seed: int, tmp_path: Path) -> None:
    """Sixty seconds, two of eight workers killed every 25 ms: nothing lost, doubled or crossed; full within 5 s."""
    notes = tmp_path / "notes"
    storm = replace(
        SCENARIOS["crash-storm"],
        settings={"pool_size": 8, "handler": "dspex_testkit.children.rogue:RogueHandler"},
        workload=Clients(count=16, command="note", args={"path": str(notes)}),
        heals_within=5.0,
    )
    result = played("process", storm, seed=dspex_seed, seconds=60.0)
    print(result)
    assert result.proven > 100
    runs = Counter(notes.read_text(encoding="ascii").split())
    for call in (each for each in result.history.operations if each.command == "note"):
        allowed = {Outcome.OK: {1}, Outcome.FAILED: {0}, Outcome.UNKNOWN: {0, 1}, None: set[int]()}[
            call.outcome
        ]
        assert runs[call.args["nonce"]] in allowed, f"ran {runs[call.args['nonce']]} times: {call}"


@pytest.mark.budget(60)
@pytest.mark.parametrize("name", ["everything-at-once", "corrupt-stream", "cascade"])
def test_scenario_holds_for_longer_in_a_soak(name: str, dspex_seed: int) -> None:
    """Ten times as long."""
    assert played("process", name, seed=dspex_seed, seconds=5.0).proven


#: A client that does not ask for much, where a simulation waits for what never comes.
QUIET = Clients(count=1, work=1.0)


def one(strike: Strike) -> Callable[[random.Random, float], Iterable[Strike]]:
    """Return what draws one strike, always the same."""
    return lambda _, __: (strike,)


# --- the runner can fail ---------------------------------------------------------------------------------------


@pytest.mark.ports("sim")
@pytest.mark.parametrize(
    ("bug", "name"),
    [
        ("leak_on_cancel", "single-death"),
        ("shrink_keeps_the_surplus", "resize-under-load"),
        ("starts_in_flight_uncounted", "half-the-workers"),
    ],
)
async def test_planted_bug_breaks_a_scenario(bug: str, name: str, scenario: Player) -> None:
    """A pool with a bug does not hold, and the error names the scenario and the seed that shows it."""
    with (
        planted(BUGS[bug]),
        pytest.raises(BrokenScenarioError, match=rf"scenario {name}, seed 1; replay with "),
    ):
        await scenario(name, seed=1)


@pytest.mark.ports("sim")
async def test_faults_that_do_not_happen_break_a_scenario(make_pool: MakePool, chaos: Chaos) -> None:
    """With the injector disarmed all is well, and nothing is proven: that is no success."""
    killed = Strike(at=0.1, fault=of.Kill(), target=LeaseHolder(), patience=1.0)
    mine = Scenario(name="mine", story="A worker is killed", strikes=one(killed), workload=QUIET)
    await run_scenario(make_pool, chaos, mine, seed=1)
    with pytest.raises(BrokenScenarioError, match="VacuousScenarioError: 0 of 1 strikes came to pass"):
        await run_scenario(make_pool, chaos.disarmed(), mine, seed=1)


@pytest.mark.ports("sim")
async def test_target_that_never_comes_breaks_a_scenario(scenario: Player) -> None:
    """A strike that finds nobody is not skipped in silence."""
    nobody = Strike(at=0.1, fault=of.Kill(), target=BoundTo("stranger"), patience=0.5)
    mine = Scenario(name="mine", story="Nobody is killed", strikes=one(nobody), workload=QUIET)
    with pytest.raises(BrokenScenarioError, match=r"0 of 1 strikes came to pass; in vain: .*stranger"):
        await scenario(mine)


@pytest.mark.ports("sim")
async def test_storm_without_a_strike_breaks_a_scenario(scenario: Player) -> None:
    """A plan that came out empty, by a loop over nothing, was played in calm and passed."""
    mine = Scenario(name="mine", story="Nobody is killed", strikes=lambda _, __: (), workload=QUIET)
    with pytest.raises(BrokenScenarioError, match="VacuousScenarioError: there was no strike in the plan"):
        await scenario(mine)


@pytest.mark.ports("sim")
async def test_error_that_was_not_foreseen_breaks_a_scenario(scenario: Player) -> None:
    """A scenario says of what its calls may fail."""
    mine = replace(SCENARIOS["single-death"], may_see=())
    with pytest.raises(
        BrokenScenarioError, match="WorkerDiedError is not among the errors that may happen here"
    ):
        await scenario(mine)


@pytest.mark.ports("sim")
async def test_error_that_must_be_seen_and_is_not_breaks_a_scenario(scenario: Player) -> None:
    """A scenario that is about an error is vacuous without it."""
    mine = Scenario(
        name="mine",
        story="A worker is killed, and nobody stands in a line that is full",
        strikes=one(Strike(at=0.1, fault=of.Kill(), target=LeaseHolder())),
        workload=QUIET,
        must_see=(PoolSaturatedError,),
    )
    with pytest.raises(BrokenScenarioError, match="never seen: PoolSaturatedError"):
        await scenario(mine)


@pytest.mark.ports("sim")
async def test_pool_that_heals_too_late_breaks_a_scenario(scenario: Player) -> None:
    """The bound is a promise."""
    mine = Scenario(
        name="mine",
        story="A worker is killed, and starts take as long as they may",
        strikes=lambda _, __: (
            Strike(at=0.1, fault=of.SlowStart(seconds=3.0), patience=20.0),
            Strike(at=0.2, fault=of.Kill(), target=LeaseHolder()),
        ),
        workload=QUIET,
        heals_within=0.01,
    )
    with pytest.raises(BrokenScenarioError, match=r"in vain until|after all faults"):
        await scenario(mine)


@pytest.mark.ports("sim")
async def test_scenario_is_refused_where_it_cannot_be_played(scenario: Player) -> None:
    """Memory is not simulated; and a name that nobody knows is told with those that there are."""
    with pytest.raises(ValueError, match="memory-leak can be played on process; this pool is on sim"):
        await scenario("memory-leak")
    with pytest.raises(LookupError, match=r"no scenario 'sunshine'; there are single-death, "):
        await scenario("sunshine")
