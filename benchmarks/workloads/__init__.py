"""The workloads by their letters."""

from __future__ import annotations

from benchmarks.workloads.many_callers import ManyCallers
from benchmarks.workloads.one_caller import OneCaller
from benchmarks.workloads.workload import Workload

__all__ = ["WORKLOADS", "Workload"]

WORKLOADS: dict[str, Workload] = {workload.letter: workload for workload in (OneCaller(), ManyCallers())}
