"""A simulated run in words: what is in it, and the line that repeats it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from dspex_testkit.simulation.workload import Case

__all__ = ["describe", "in_short", "quoted", "replay_line"]

#: Calls, faults or turns beyond which a run is only counted.
MANY = 12


#: What a shell would do something about within double quotes.
_HEARD_BY_SHELLS = frozenset('"$`\\!')


def quoted(test: str) -> str:
    """Return the name of a test as it is typed into a shell: ids of parameters may hold anything."""
    return f'"{test}"' if _HEARD_BY_SHELLS.isdisjoint(test) else shlex.quote(test)


def replay_line(test: str, token: str) -> str:
    """Return the one line that repeats a run, to be typed into a shell."""
    return f"replay: pytest {quoted(test)} --dspex-replay={token}"


def describe(case: Case) -> list[str]:
    """Return what is in ``case``: a line that counts, and if there is not much of it, a line for each thing."""
    turns = case.schedule.turns
    lines = [f"{case.calls} calls, {case.faults} faults, {len(turns)} decisions of the scheduler"]
    if case.calls + case.faults > MANY or len(turns) > MANY:
        return lines
    for number, workload in enumerate(case.workloads):
        prefix = f"run {number}: " if len(case.workloads) > 1 else ""
        lines += [f"  {prefix}{in_short(thing)}" for thing in (*workload.calls, *workload.faults)]
    return lines + [f"  {in_short(turn)}" for turn in turns]


def in_short(thing: msgspec.Struct) -> str:
    """Name ``thing`` and what is not at its default."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(thing) if not field.required}
    values: dict[str, Any] = {name: getattr(thing, name) for name in thing.__struct_fields__}
    told = [f"{name}={value}" for name, value in values.items() if defaults.get(name, ...) != value]
    return f"{type(thing).__name__}({', '.join(told)})"
