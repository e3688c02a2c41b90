"""Plans of faults: drawn from a seed, carried as JSON, aimed at workers in service."""

from __future__ import annotations

import random

import msgspec
import pytest

from dspex_testkit.chaos import catalogue as of
from dspex_testkit.scenarios.catalogue import SCENARIOS
from dspex_testkit.scenarios.plan import FaultPlan, Strike
from dspex_testkit.scenarios.targets import All, BoundTo, Candidate, LeaseHolder, One, Some

#: Four workers, of which two are lent; a session is bound to the last.
LIVING = [
    Candidate(0, 11),
    Candidate(1, 12, is_lent=True),
    Candidate(2, 13, is_lent=True),
    Candidate(3, 14, sessions=frozenset({"alice"})),
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_plan_is_the_same_for_the_same_seed(name: str) -> None:
    """What is drawn comes of the seed and the scenario, and of nothing else."""
    scenario = SCENARIOS[name]
    assert scenario.plan(1) == scenario.plan(1)
    times = [strike.at for strike in scenario.plan(1).strikes]
    assert times == sorted(times)


def test_plan_is_another_for_another_seed() -> None:
    """Whatever draws, draws something else."""
    fixed = {"crash-storm", "parent-killed"}
    same = {name for name, each in SCENARIOS.items() if each.plan(1).strikes == each.plan(2).strikes}
    assert same == fixed


@pytest.mark.parametrize("name", SCENARIOS)
def test_plan_travels_as_json(name: str) -> None:
    """What is written of a failure is the plan that failed."""
    plan = SCENARIOS[name].plan(3)
    assert FaultPlan.decode(plan.encode()) == plan


def test_plan_with_an_unknown_fault_is_refused() -> None:
    """A plan from elsewhere does nothing else than it says."""
    text = b'{"seed": 1, "seconds": 1, "strikes": [{"at": 0, "fault": {"type": "Sunshine"}}]}'
    with pytest.raises(msgspec.ValidationError, match="Sunshine"):
        FaultPlan.decode(text)


def test_strike_on_a_worker_needs_a_fault_of_workers() -> None:
    """Nobody takes starts that fail for starts of one worker that fail."""
    with pytest.raises(ValueError, match=r"FailStart\(.*\) is not one worker's: it has no target"):
        Strike(at=0.0, fault=of.FailStart(), target=One())


def test_strike_is_aimed_at_its_worker() -> None:
    """The fault that is injected names the worker that was chosen."""
    assert Strike(at=0.0, fault=of.Kill(), target=One()).aimed_at(3) == of.Kill(worker=3)


@pytest.mark.parametrize(
    ("target", "hit"),
    [
        (All(), {0, 1, 2, 3}),
        (LeaseHolder(), {1, 2}),
        (BoundTo("alice"), {3}),
        (BoundTo("bob"), set()),
    ],
)
def test_target_is_whom_it_says(target: All | LeaseHolder | BoundTo, hit: set[int]) -> None:
    """Over many draws everybody is hit that may be, and nobody else."""
    numbers = random.Random(1)
    assert {each.index for _ in range(30) for each in target.choose(LIVING, numbers)} == hit


@pytest.mark.parametrize(
    ("target", "count"), [(One(), 1), (Some(count=3), 3), (Some(share=0.6), 3), (Some(count=9), 4)]
)
def test_target_is_as_many_as_it_says(target: One | Some, count: int) -> None:
    """A share is rounded up, and nobody is hit twice."""
    chosen = target.choose(LIVING, random.Random(1))
    assert len({each.index for each in chosen}) == len(chosen) == count
    assert target.choose([], random.Random(1)) == []


@pytest.mark.parametrize("settings", [{}, {"count": 1, "share": 0.5}, {"count": 0}, {"share": 0.0}])
def test_some_workers_are_a_count_or_a_share(settings: dict[str, float]) -> None:
    """Half a target is refused when it is written, not when it strikes."""
    with pytest.raises(ValueError, match=r"count|share"):
        Some(**settings)  # type: ignore[arg-type] # that is the point
