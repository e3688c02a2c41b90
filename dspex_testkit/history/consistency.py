"""Whether there is an order of a session's operations that explains every answer.

A session is a map from the ids of programs to their signatures. Operations change it or tell of it; one whose outcome
is unknown may have changed it at any time after its call, or never. The search looks for an order in which each
answer is right: it takes an operation that may come next, sees whether its answer goes with the map as it is by
then, and goes on from there, back again where nothing goes on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from dspex_testkit.history.call_checkers import programs_shown_by, whose
from dspex_testkit.history.record import Outcome
from dspex_testkit.history.verdict import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dspex_testkit.history.record import History, Operation
    from dspex_testkit.history.verdict import Checker

__all__ = ["MOST_STEPS", "Programs", "after", "consistent"]

#: Steps of the search for one session's order, after which it is given up.
MOST_STEPS = 100_000

#: The programs of a session: pairs of id and signature.
Programs: TypeAlias = "frozenset[tuple[str, str]]"

_WRITES = frozenset({"create_program", "load_program", "delete_program", "cleanup_session"})
_READS = frozenset({"list_programs", "get_program_info", "dump_program", "execute_program"})
#: Refusals that tell whether the session has the program.
_TELLING = {"ProgramExistsError": True, "ProgramNotFoundError": False}


def consistent(
    *, real_time: bool = True, most_steps: int = MOST_STEPS, start: Mapping[str, Programs] | None = None
) -> Checker:
    """Return a checker that some order of each session's operations explains all answers.

    Args:
        real_time: Whether what had ended before another was called comes before it. Otherwise only what the same
            client called before does, which is called sequential consistency.
        most_steps: Steps after which the search for one session's order is given up, which is a violation too.
        start: What sessions had before the history began; by default nothing.
    """

    def check(history: History) -> list[Violation]:
        sessions: dict[str, list[Operation]] = defaultdict(list)
        for operation in history.operations:
            if operation.command in _WRITES | _READS:
                sessions[whose(operation)].append(operation)
        found = []
        for session, operations in sessions.items():
            programs = (start or {}).get(session, frozenset())
            violation = _Search(operations, real_time=True).run(programs, most_steps)
            if violation is not None and not real_time:
                violation = _Search(operations, real_time=False).run(programs, most_steps)
            if violation is not None:
                text = f"session {session!r}: {violation.text}"
                found.append(Violation(text, violation.operations))
        return found

    return check


# --- what an operation does --------------------------------------------------------------------------------------


def after(operation: Operation, programs: Programs) -> Programs | None:
    """Return what a session has after an operation with its answer; ``None`` if that answer cannot be given now."""
    now = dict(programs)
    if operation.error in _TELLING:
        return programs if (_program_of(operation) in now) is _TELLING[operation.error] else None
    if operation.outcome is Outcome.OK and not _is_true(operation, now):
        return None
    return _changed(operation, now) if operation.command in _WRITES else programs


def _program_of(operation: Operation) -> str:
    return str(operation.args.get("id" if operation.command == "create_program" else "program_id"))


def _changed(operation: Operation, now: dict[str, str]) -> Programs:
    program_id = _program_of(operation)
    if operation.command == "cleanup_session":
        now.clear()
    elif operation.command == "delete_program":
        now.pop(program_id, None)
    elif operation.command == "create_program":
        # Unanswered, it may come when there is such a program, and then does nothing.
        now.setdefault(program_id, repr(operation.args.get("signature")))
    else:
        now[program_id] = repr(operation.args.get("definition", {}).get("signature"))
    return frozenset(now.items())


def _is_true(operation: Operation, now: Mapping[str, str]) -> bool:
    """Tell whether an answer is right in a session that has these programs."""
    told, command = operation.value, operation.command
    if not isinstance(told, Mapping):
        return True
    if command == "list_programs":
        return set(programs_shown_by(operation)) == set(now)
    if command == "cleanup_session":
        return len(now) == int(told.get("programs_removed", len(now)))
    if command == "load_program":
        return True
    program_id = _program_of(operation)
    if (program_id in now) is (command == "create_program"):
        return False
    return command not in _READS or _shows(told, command, now[program_id])


def _shows(told: Mapping[str, Any], command: str, signature: str) -> bool:
    if command == "execute_program":
        outputs = signature.strip("'\"").partition("->")[2]
        names = [part.partition(":")[0].strip() for part in outputs.split(",")]
        shown = told.get("outputs", names)
        return {name for name in names if name} <= set(shown)
    definition = told.get("definition", {}) if command == "dump_program" else told
    return signature == repr(definition.get("signature"))


# --- the search --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Point:
    """How far an order has come."""

    #: Of each lane: the first operation that is not in the order, and which later ones are, as bits.
    lanes: tuple[tuple[int, int], ...]
    #: The unanswered writes that are in the order, as bits.
    writes: int
    programs: Programs

    @property
    def length(self) -> int:
        """How many answers the order explains."""
        return sum(low + bits.bit_count() for low, bits in self.lanes)


class _Search:
    """Looks for the order of one session.

    A lane holds operations of which one that has ended keeps those back that were called later: all of a session in
    real time, or those of one client.
    """

    def __init__(self, operations: Sequence[Operation], *, real_time: bool) -> None:
        self._lanes: list[list[Operation]] = []
        #: Unanswered writes, each with its lane.
        self._writes: list[tuple[int, Operation]] = []
        numbers: dict[str, int] = {}
        for operation in sorted(operations, key=lambda one: one.since):
            number = numbers.setdefault("" if real_time else operation.client, len(numbers))
            if number == len(self._lanes):
                self._lanes.append([])
            if operation.outcome is Outcome.OK or operation.error in _TELLING:
                self._lanes[number].append(operation)
            elif operation.outcome is not Outcome.FAILED and operation.command in _WRITES:
                self._writes.append((number, operation))

    def run(self, programs: Programs, most_steps: int) -> Violation | None:
        """Return ``None`` if there is an order, else what stands against it."""
        first = _Point(tuple((0, 0) for _ in self._lanes), 0, programs)
        stack, furthest = [self._next(first)], first
        seen = {(first.lanes, programs): [0]}
        for _ in range(most_steps):
            if furthest.length == sum(map(len, self._lanes)):
                return None
            if not stack:
                text = f"no order explains these answers to a session with {_told(furthest.programs)}"
                return Violation(text, tuple(self._candidates(furthest)))
            point = next(stack[-1], None)
            if point is None:
                stack.pop()
                continue
            before = seen.setdefault((point.lanes, point.programs), [])
            # From a point that needed fewer unanswered writes one can go on in every way that is open here.
            if any(writes & point.writes == writes for writes in before):
                continue
            before.append(point.writes)
            stack.append(self._next(point))
            furthest = max(furthest, point, key=lambda one: one.length)
        return Violation(f"undecided after {most_steps} steps", tuple(self._candidates(furthest)))

    def _next(self, point: _Point) -> Iterator[_Point]:
        """Give the points that can follow; first those that need no unanswered write."""
        ready = [
            (self._lanes[number][index], number, index)
            for number, (low, bits) in enumerate(point.lanes)
            for index in self._open(number, low, bits)
        ]
        # What ended first most likely came first.
        for operation, number, index in sorted(ready, key=lambda one: one[0].until):
            programs = after(operation, point.programs)
            if programs is not None:
                lanes = list(point.lanes)
                lanes[number] = _with(*lanes[number], index)
                yield _Point(tuple(lanes), point.writes, programs)
        if self._writes:
            yield from self._with_a_write(point)

    def _with_a_write(self, point: _Point) -> Iterator[_Point]:
        """Give the points that follow by an unanswered write, the latest first.

        Such a write may come at any time, so it is enough to take one when an answer is wrong without it, and less
        wrong with it. Three kinds are taken without that: deletions, after which another write can create; the end
        of a session, which takes programs away that nobody asks for at the time; and what is over by the next call.
        """
        candidates = list(self._candidates(point))
        wrong = [one for one in candidates if after(one, point.programs) is None]
        latest = max((one.since for one in candidates), default=-1)
        for bit in reversed(range(len(self._writes))):
            number, operation = self._writes[bit]
            if point.writes >> bit & 1 or not self._may_come(operation, number, point):
                continue
            programs = after(operation, point.programs)
            if programs is None or programs == point.programs:
                continue
            is_free = operation.command == "cleanup_session" or operation.over < latest
            if is_free or any(_helps(operation, one, point.programs, programs) for one in wrong):
                yield _Point(point.lanes, point.writes | 1 << bit, programs)

    def _may_come(self, write: Operation, number: int, point: _Point) -> bool:
        """Tell whether an unanswered write may come next: it was called, and can still be done."""
        if write.since > self._limit(number, *point.lanes[number]):
            return False
        if write.over == math.inf:
            return True
        # In its own lane, as all else: what another client called later may come before it.
        low, bits = point.lanes[number]
        latest = low + bits.bit_length() - 1
        later = [
            one for bit, (lane, one) in enumerate(self._writes) if lane == number and point.writes >> bit & 1
        ]
        later += self._lanes[number][max(0, latest) : latest + 1]
        return all(one.since < write.over for one in later)

    def _open(self, number: int, low: int, bits: int) -> Iterator[int]:
        """Give the places in a lane of what may come next: nothing that is missing had ended before its call."""
        lane, limit = self._lanes[number], math.inf
        for index in range(low, len(lane)):
            if bits >> (index - low) & 1:
                continue
            if lane[index].since > limit:
                return
            limit = min(limit, lane[index].until)
            yield index

    def _limit(self, number: int, low: int, bits: int) -> float:
        """Return the place at which the first operation ended that is not in the order."""
        lane = self._lanes[number]
        return min((lane[index].until for index in self._open(number, low, bits)), default=math.inf)

    def _candidates(self, point: _Point) -> Iterator[Operation]:
        for number, (low, bits) in enumerate(point.lanes):
            yield from (self._lanes[number][index] for index in self._open(number, low, bits))


def _helps(write: Operation, answer: Operation, before: Programs, programs: Programs) -> bool:
    """Tell whether an answer that is wrong before an unanswered write is right after it, or nearer to it."""
    if after(answer, programs) is not None:
        return True
    if answer.command == "list_programs":
        shown = set(programs_shown_by(answer))
        return len(shown ^ {name for name, _ in programs}) < len(shown ^ {name for name, _ in before})
    if answer.command == "cleanup_session":
        return True
    return write.command == "delete_program" and _program_of(write) == _program_of(answer)


def _with(low: int, bits: int, index: int) -> tuple[int, int]:
    """Add an operation to a lane's place, and go on over those that are in the order."""
    bits |= 1 << (index - low)
    while bits & 1:
        low, bits = low + 1, bits >> 1
    return low, bits


def _told(programs: Programs) -> str:
    return ", ".join(f"{name} = {signature}" for name, signature in sorted(programs)) or "no programs"
