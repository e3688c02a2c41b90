"""The workloads by their letters."""

from __future__ import annotations

from benchmarks.workloads.bookkeeping import Bookkeeping
from benchmarks.workloads.cold_start import ColdStart
from benchmarks.workloads.command_rows import CommandRows
from benchmarks.workloads.further_workers import FurtherWorkers
from benchmarks.workloads.hanging_call import HangingCall
from benchmarks.workloads.holdings import Holdings
from benchmarks.workloads.killed_worker import KilledWorker
from benchmarks.workloads.large_payloads import LargePayloads
from benchmarks.workloads.many_callers import ManyCallers
from benchmarks.workloads.one_caller import OneCaller
from benchmarks.workloads.start_up import StartUp
from benchmarks.workloads.waiting_calls import WaitingCalls
from benchmarks.workloads.workload import Workload

__all__ = ["WORKLOADS", "Workload"]

WORKLOADS: dict[str, Workload] = {
    workload.letter: workload
    for workload in (
        OneCaller(),
        ManyCallers(),
        LargePayloads(),
        WaitingCalls(),
        ColdStart(),
        KilledWorker(),
        HangingCall(),
        Bookkeeping(),
        StartUp(),
        CommandRows(),
        Holdings(),
        FurtherWorkers(),
    )
}
