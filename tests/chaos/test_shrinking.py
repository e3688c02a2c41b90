"""Shrinking by itself, with runs that are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dspex_testkit.simulation.shrink import Shrinker
from dspex_testkit.simulation.workload import Call, Case, Workload

CASE = Case(1, workloads=tuple(Workload(calls=(Call(2 * n, at=1), Call(2 * n + 1, at=2))) for n in range(2)))


def failed(case: Case) -> Any:
    """Return a run of ``case`` that failed."""
    return SimpleNamespace(case=case, failure="always the same")


@pytest.mark.parametrize("calls_left", [0, 1, 2, 3])
def test_shrinking_goes_on_when_a_smaller_case_fails_before_its_last_workload(calls_left: int) -> None:
    """Bug: a run tells of the workloads that it has played, and parts of those that it had not were asked for."""

    def play(case: Case) -> Any:
        played = 1 if case.calls <= calls_left else 2
        return failed(msgspec.structs.replace(case, workloads=case.workloads[:played]))

    best = Shrinker(play, failed(CASE), seconds=10.0).shrink()
    assert best.case.calls == 0


def test_shrinking_goes_on_when_a_simpler_part_is_not_played_any_more() -> None:
    """Bug: as above, but while the fields of a call are tried, one after the other."""
    call = Call(1, at=8)
    case = Case(1, workloads=(Workload(calls=(Call(0),)), Workload(calls=(call,))))

    def play(case: Case) -> Any:
        if len(case.workloads) > 1 and case.workloads[1].calls == (call,):
            return failed(case)
        if len(case.workloads) > 1 and not case.workloads[1].calls:
            return SimpleNamespace(case=case, failure="another")
        return failed(msgspec.structs.replace(case, workloads=case.workloads[:1]))

    assert Shrinker(play, failed(case), seconds=10.0).shrink().case.workloads == (Workload(),)
