"""A whole run: the foundations one after the other, everything else at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dspex_testkit.conform.bench import Bench, Outcome, Verdict
from dspex_testkit.conform.catalogue import CLAUSES, FOUNDATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dspex_testkit.conform.clause import Clause
    from dspex_testkit.conform.profile import Profile

__all__ = ["DEFAULT_JOBS", "Findings", "conform"]

#: Clauses held at the same time. Most of them wait for the worker, so there may be more than there are cores.
DEFAULT_JOBS = 8


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a run."""

    #: What started the worker.
    command: tuple[str, ...]
    #: The version that was spoken.
    version: int
    #: One for each clause, in the order of the catalogue.
    verdicts: tuple[Verdict, ...]

    def of(self, outcome: Outcome) -> list[Verdict]:
        """Return the verdicts with this outcome."""
        return [verdict for verdict in self.verdicts if verdict.outcome is outcome]

    def ids(self, outcome: Outcome) -> set[str]:
        """Return the ids of the clauses that ended so."""
        return {verdict.clause.id for verdict in self.of(outcome)}


def conform(
    command: Sequence[str],
    profile: Profile,
    *,
    clauses: Sequence[Clause] = CLAUSES,
    version: int | None = None,
    jobs: int = DEFAULT_JOBS,
    on_verdict: Callable[[Verdict], None] = lambda verdict: None,
) -> Findings:
    """Hold a worker against clauses.

    Whatever happens, Ctrl-C included, no worker is left when this returns.

    Args:
        command: What starts the worker.
        profile: What is known of it.
        clauses: What it is held against. The foundations are always tried, and shown if they are broken.
        version: The version to be spoken; ``None`` for what the worker says that it speaks.
        jobs: How many clauses are held at the same time.
        on_verdict: Told of each verdict when it is there, on the calling thread.

    Raises:
        WorkerStartError: The command starts no worker.
    """
    bench = Bench(command, profile)
    try:
        # Workers are started on other threads only. There Ctrl-C, which comes to the main thread, cannot hit the
        # moment between the start of a process and the note that it has to be ended.
        with ThreadPoolExecutor(jobs, thread_name_prefix="conform") as threads:
            try:
                return _judge(bench, clauses, version, threads, on_verdict)
            except BaseException:
                # The threads wait for workers; without workers they end at once.
                bench.kill()
                threads.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        bench.close()


def _judge(
    bench: Bench,
    clauses: Sequence[Clause],
    version: int | None,
    threads: ThreadPoolExecutor,
    on_verdict: Callable[[Verdict], None],
) -> Findings:
    spoken = threads.submit(bench.probe, version).result()
    verdicts = threads.submit(_judge_foundations, bench).result()
    for verdict in verdicts.values():
        on_verdict(verdict)
    broken = [verdict for verdict in verdicts.values() if verdict.outcome is Outcome.FAILED]
    rest = [clause for clause in clauses if not clause.is_foundation]
    if broken:
        verdicts |= {clause.id: _not_judged(clause, broken[0]) for clause in rest}
    else:
        for judged in as_completed([threads.submit(bench.judge, clause) for clause in rest]):
            verdict = judged.result()
            verdicts[verdict.clause.id] = verdict
            on_verdict(verdict)
    wanted = {clause.id for clause in clauses} | {verdict.clause.id for verdict in broken}
    ordered = [verdicts[clause.id] for clause in CLAUSES if clause.id in wanted]
    return Findings(bench.command, spoken, tuple(ordered))


def _judge_foundations(bench: Bench) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    broken: Verdict | None = None
    for clause in FOUNDATIONS:
        verdict = bench.judge(clause) if broken is None else _not_judged(clause, broken)
        verdicts[clause.id] = verdict
        if verdict.outcome is Outcome.FAILED:
            broken = verdict
    return verdicts


def _not_judged(clause: Clause, broken: Verdict) -> Verdict:
    return Verdict(clause, Outcome.NOT_JUDGED, f"stands on {broken.clause.id}, which is broken")
