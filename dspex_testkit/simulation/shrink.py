"""From a run that fails to a small one that fails in the same way: fewer calls, faults and turns, simpler ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dspex_testkit.simulation.schedulers import PORTFOLIO, Schedule
from dspex_testkit.simulation.workload import LONG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dspex_testkit.simulation.run import Run
    from dspex_testkit.simulation.workload import Case, Workload

__all__ = ["Shrinker", "size_of"]

#: Schedules that are tried anew when a failure needs one: cutting calls away moves all later turns.
NEW_SCHEDULES: Final = tuple(Schedule(PORTFOLIO[seed % len(PORTFOLIO)], seed) for seed in range(4))

#: Calls of which it is seldom worth the time to look for fewer.
FEW: Final = 2


class Shrinker:
    """Looks for the smallest run that fails like a given one.

    Args:
        play: Plays a case.
        failing: The run.
        seconds: CPU seconds to spend, at most.
        tell_apart: What tells one failure from another; ``None`` for the error's class and the line that raised it.
    """

    def __init__(
        self,
        play: Callable[[Case], Run],
        failing: Run,
        *,
        seconds: float,
        tell_apart: Callable[[Run], object] | None = None,
    ) -> None:
        #: The smallest run so far.
        self.best = failing
        #: Runs so far.
        self.runs = 0
        self._play = play
        self._tell_apart = tell_apart if tell_apart is not None else _failure_of
        self._failure = self._tell_apart(failing)
        self._end = time.process_time() + seconds
        self._needs_schedule = True

    def shrink(self) -> Run:
        """Cut and simplify until nothing more can be left out, or the time is over; return the smallest run."""
        self._needs_schedule = not self._try(_with_turns(self.best.case, ()))
        before = None
        while before != size_of(self.best.case) and not self._is_over:
            before = size_of(self.best.case)
            for number in range(len(self.best.case.workloads)):
                self._cut(_CallsOf(number))
                self._cut(_FaultsOf(number))
                self._simplify(_CallsOf(number))
                self._simplify(_FaultsOf(number))
                self._cut(_FaultsOf(number))
            self._cut(_Turns())
            if before == size_of(self.best.case):
                self._detour()
        return self.best

    def _detour(self) -> None:
        """Let one caller keep its worker for long, which may stand for many that came and went, and cut again."""
        small = self.best
        for number, workload in enumerate(small.case.workloads):
            for index, call in enumerate(workload.calls if len(workload.calls) > FEW else ()):
                if self._is_over:
                    return
                longer = msgspec.structs.replace(call, keep=LONG)
                calls = (*workload.calls[:index], longer, *workload.calls[index + 1 :])
                run = self._play(_CallsOf(number).put(small.case, calls))
                if self._tell_apart(run) == self._failure:
                    self.best = run
                    self._cut(_CallsOf(number))
                    if size_of(self.best.case) < size_of(small.case):
                        return
                    self.best = small

    @property
    def _is_over(self) -> bool:
        return time.process_time() > self._end

    def _try(self, case: Case) -> bool:
        """Play ``case``; keep it if it fails as it should and is smaller than the best."""
        if self._is_over:
            return False
        self.runs += 1
        run = self._play(case)
        if self._tell_apart(run) != self._failure or size_of(run.case) >= size_of(self.best.case):
            return False
        self.best = run
        return True

    def _try_schedules(self, case: Case) -> bool:
        """Play ``case`` as it is, in the plain order, and by new schedules if the failure needs one."""
        tries = [case, _with_turns(case, ())] if self._needs_schedule else [case]
        if self._needs_schedule:
            tries += [msgspec.structs.replace(case, schedule=schedule) for schedule in NEW_SCHEDULES]
        return any(self._try(one) for one in tries)

    def _cut(self, parts: _Parts) -> None:
        """Leave out as many parts as possible: large pieces first, single ones in the end."""
        piece = len(parts.of(self.best.case))
        while piece >= 1 and not self._is_over:
            begin = 0
            while begin < len(kept := parts.of(self.best.case)):
                case = parts.put(self.best.case, kept[:begin] + kept[begin + piece :])
                cut = self._try_schedules(case) if parts.moves_turns else self._try(case)
                begin += 0 if cut else piece
            piece //= 2

    def _simplify(self, parts: _Parts) -> None:
        """Bring single fields of each part to something simpler."""
        index = 0
        while index < len(kept := parts.of(self.best.case)):
            for simpler in _simpler(kept[index]):
                kept = parts.of(self.best.case)
                if index >= len(kept):
                    return  # the smaller case fails before this part is played, and is without it
                self._try(parts.put(self.best.case, (*kept[:index], simpler, *kept[index + 1 :])))
            index += 1


def _failure_of(run: Run) -> object:
    return run.failure


def size_of(case: Case) -> tuple[int, ...]:
    """Return what is to become small, the most important first."""
    things = [thing for workload in case.workloads for thing in (*workload.calls, *workload.faults)]
    return (case.calls, case.faults, len(case.schedule.turns), sum(map(_effort, things)))


def _numbers(thing: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    """Yield the fields of ``thing`` that say how much or when, not which."""
    for name in thing.__struct_fields__:
        if name not in ("number", "call"):
            yield name, getattr(thing, name)


def _effort(thing: msgspec.Struct) -> int:
    return sum(2 * bool(value) + abs(int(value)) for _, value in _numbers(thing))


def _simpler(thing: msgspec.Struct) -> Iterator[msgspec.Struct]:
    """Yield variants of ``thing`` with one field at its simplest, or at half of what it is."""
    for name, value in _numbers(thing):
        for simple in dict.fromkeys((0, 1, 2, int(value) // 2, int(value) - 1)):
            if 0 <= simple < abs(int(value)):
                yield msgspec.structs.replace(thing, **{name: type(value)(simple)})


def _with_turns(case: Case, turns: Any) -> Case:
    return msgspec.structs.replace(case, schedule=Schedule(turns=tuple(turns)))


class _Parts:
    """Something of a case of which parts can be left out."""

    #: Whether leaving out parts moves all later choices of the scheduler.
    moves_turns = True

    def of(self, case: Case) -> tuple[Any, ...]:
        """Return the parts."""
        return ()

    def put(self, case: Case, parts: tuple[Any, ...]) -> Case:
        """Return the case with other parts."""
        return case


class _Turns(_Parts):
    moves_turns = False

    def of(self, case: Case) -> tuple[Any, ...]:
        return case.schedule.turns

    def put(self, case: Case, parts: tuple[Any, ...]) -> Case:
        return _with_turns(case, parts)


class _CallsOf(_Parts):
    """Calls of one workload; none where the case fails before that is played."""

    def __init__(self, number: int) -> None:
        self._number = number

    def of(self, case: Case) -> tuple[Any, ...]:
        return tuple(call for load in self._loads(case) for call in load.calls)

    def _loads(self, case: Case) -> tuple[Workload, ...]:
        return case.workloads[self._number : self._number + 1]

    def put(self, case: Case, parts: tuple[Any, ...]) -> Case:
        left = {call.number for call in parts}
        faults = tuple(
            fault
            for fault in case.workloads[self._number].faults
            if getattr(fault, "call", None) in {None, *left}
        )
        return self._replaced(case, calls=parts, faults=faults)

    def _replaced(self, case: Case, **changes: Any) -> Case:
        workloads: list[Workload] = list(case.workloads)
        workloads[self._number] = msgspec.structs.replace(workloads[self._number], **changes)
        return msgspec.structs.replace(case, workloads=tuple(workloads))


class _FaultsOf(_CallsOf):
    def of(self, case: Case) -> tuple[Any, ...]:
        return tuple(fault for load in self._loads(case) for fault in load.faults)

    def put(self, case: Case, parts: tuple[Any, ...]) -> Case:
        return self._replaced(case, faults=parts)
