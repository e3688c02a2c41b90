"""Results on disk: what was measured last of each case, whether in one run or in several."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.figures import CaseResult
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["UnreadableResultsError", "load_results", "merged"]


class UnreadableResultsError(Exception):
    """A file of stored results is none, or is of a shape that was written in another time."""


def load_results(file: Path) -> list[CaseResult]:
    """Return the results of a file of JSON, without cases that do not exist any more; none if there is no file.

    Raises:
        UnreadableResultsError: The file holds something else.
    """
    if not file.exists():
        return []
    try:
        return _read(file.read_text(encoding="utf-8"))
    except (LookupError, TypeError, ValueError) as error:
        raise UnreadableResultsError(
            f"{file} holds no results that this version can read ({error!r}); remove it, or name another --output"
        ) from error


def _read(text: str) -> list[CaseResult]:
    found = json.loads(text)["results"]
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
