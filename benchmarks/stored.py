"""Results on disk: what was measured last of each case, whether in one run or in several."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.figures import CaseResult
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["load_results", "merged"]


def load_results(file: Path) -> list[CaseResult]:
    """Return the results of a file of JSON, without cases that do not exist any more; none if there is no file."""
    if not file.exists():
        return []
    found = json.loads(file.read_text(encoding="utf-8"))["results"]
    return [
        CaseResult(
            each["workload"],
            each["title"],
            each["case"],
            WORKLOADS[each["workload"]].metrics,
            each["reference"],
            each["samples"],
            each["failures"],
        )
        for each in found
        if each["workload"] in WORKLOADS and each["case"] in WORKLOADS[each["workload"]].cases
    ]


def merged(before: Iterable[CaseResult], now: Iterable[CaseResult]) -> list[CaseResult]:
    """Return the results of now, and those of before whose cases were not measured now, in the usual order."""
    by_case = {(each.letter, each.case): each for each in (*before, *now)}
    usual = [(letter, case) for letter, workload in WORKLOADS.items() for case in workload.cases]
    return [by_case[key] for key in usual if key in by_case]
