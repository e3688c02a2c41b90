"""The picture of a simulated run: its calls as callers, its faults, and the decisions of its scheduler."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from dspex_testkit.hangs.tasks import redacted
from dspex_testkit.report.recorder import BEGAN, ENDED, FAULT, LENT, TURN
from dspex_testkit.report.timeline import Timeline, Verdict
from dspex_testkit.report.weaving import Weaver, caller_key
from dspex_testkit.simulation.telling import in_short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dspex_testkit.report.recorder import Entry
    from dspex_testkit.simulation.run import Run
    from dspex_testkit.simulation.schedulers import Turn

__all__ = ["timeline_of"]


def timeline_of(run: Run, title: str, *, replay: str, notes: Sequence[str]) -> Timeline:
    """Draw up the timeline of a run that failed.

    Args:
        run: The run.
        title: Name of the test.
        replay: The line that repeats the run.
        notes: Lines about it.
    """
    weaver = Weaver()
    weaver.feed(_worded(run))
    return weaver.timeline(
        title,
        _verdict(run, weaver),
        replay=replay,
        notes=tuple(notes),
        seed=str(run.case.seed),
        is_simulated=True,
        is_cut=run.recorder.is_cut,
    )


def _worded(run: Run) -> Iterable[Entry]:
    """Say in words what was recorded as records and numbers."""
    asked = {outcome.call.number: in_short(outcome.call) for outcome in run.outcomes}
    for entry in run.recorder.entries:
        at, kind, pool, *rest = entry
        if kind == FAULT and isinstance(rest[1], msgspec.Struct):
            yield at, kind, pool, rest[0], type(rest[1]).__name__, in_short(rest[1])
        elif kind in (BEGAN, LENT):
            yield at, kind, pool, f"call {rest[0]}", rest[1]
        elif kind == ENDED:
            yield at, kind, pool, f"call {rest[0]}", rest[1] or "no outcome", asked.get(rest[0], "")
        elif kind == TURN:
            yield at, kind, pool, _turn_in_words(rest[0], [task.name for task in rest[1]]), in_short(rest[0])
        else:
            yield entry


def _verdict(run: Run, weaver: Weaver) -> Verdict:
    error = run.error
    assert error is not None
    at = getattr(error, "at", None)
    if at is None or not math.isfinite(at):
        at = weaver.now if weaver.failed_at is None else weaver.failed_at
    lanes = tuple(caller_key(f"call {number}") for number in getattr(error, "calls", ()))
    return Verdict(type(error).__name__, redacted(str(error)), at, lanes)


def _turn_in_words(turn: Turn, names: Sequence[str]) -> str:
    """Say who ran first and who was held back."""
    short = [name.rpartition(".")[2] for name in names]
    said = [
        f"{short[position]} held back for {rounds} rounds"
        for position, rounds in turn.held
        if position < len(short)
    ]
    first = [short[position] for position in turn.order[:1] if position < len(short)]
    said += [f"{name} {'alone' if turn.alone else 'first'}" for name in first]
    return ", ".join(said) or "plain order"
