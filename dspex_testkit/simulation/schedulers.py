"""Who runs next: policies that hunt for races, and their decisions as plain data that can be repeated and cut down.

A choice is a round of trio's scheduler in which at least two tasks could run. A policy answers it with a ``Turn``,
or with ``None`` for the plain order: all of them, the oldest first. What a run did is the list of its turns; played
again they give the same run, and leaving some out gives a simpler one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from dspex_testkit.trio_seam import age_of

if TYPE_CHECKING:
    from dspex_testkit.trio_seam import Task

__all__ = ["POLICIES", "PORTFOLIO", "Schedule", "Steering", "Turn"]


class Turn(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One decision that is not the plain order. Positions count the tasks that could run, the oldest being 0."""

    #: Number of the choice in the run.
    choice: int
    #: Positions of those who run first, in order; the others follow, the oldest first.
    order: tuple[int, ...] = ()
    #: Positions of those who are held back, each with the rounds for which it is.
    held: tuple[tuple[int, int], ...] = ()
    #: Whether only those in ``order`` run in this round.
    alone: bool = False


class Schedule(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """How a run orders its tasks: by a policy and its seed, or by turns that were taken before."""

    #: A name of ``POLICIES``, or ``turns``.
    policy: str = "turns"
    seed: int = 0
    turns: tuple[Turn, ...] = ()


#: Answers a choice, of which it is told the number and the ages of the tasks.
Policy: TypeAlias = Callable[[int, Sequence[int]], Turn | None]


def fair(numbers: random.Random) -> Policy:
    """Shuffle."""

    def turn(choice: int, ages: Sequence[int]) -> Turn | None:
        return Turn(choice, _shuffled(numbers, len(ages)))

    return turn


def hold_back(numbers: random.Random, *, share: float, rounds: int) -> Policy:
    """Shuffle, and hold some tasks back for a number of rounds."""

    def turn(choice: int, ages: Sequence[int]) -> Turn | None:
        held = tuple(
            (position, numbers.randint(1, rounds))
            for position in range(len(ages))
            if numbers.random() < share
        )
        return Turn(choice, _shuffled(numbers, len(ages)), held)

    return turn


#: Rounds in a row after which PCT lets others run: a task may be waiting for them without sleeping.
_PATIENCE: Final = 100


def pct(numbers: random.Random, *, depth: int = 3, steps: int = 1_000) -> Policy:
    """Give each task a priority by chance, run the highest alone, and lower it at ``depth`` - 1 choices.

    Source:
        Burckhardt and others, "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010.
    """
    priorities: dict[int, float] = {}
    lowered = {numbers.randrange(steps): -rank for rank in range(1, depth)}
    last, runs = -1, 0

    def turn(choice: int, ages: Sequence[int]) -> Turn | None:
        nonlocal last, runs
        for age in ages:
            if age not in priorities:
                priorities[age] = numbers.random()
        first = max(ages, key=priorities.__getitem__)
        runs = runs + 1 if first == last else 0
        if choice in lowered:
            priorities[first] = float(lowered[choice])
        elif runs > _PATIENCE:
            priorities[first] = min(priorities.values()) - 1.0
        last = first
        return Turn(choice, (ages.index(first),), alone=True)

    return turn


def _shuffled(numbers: random.Random, count: int) -> tuple[int, ...]:
    positions = list(range(count))
    numbers.shuffle(positions)
    return tuple(positions)


#: The policies by name. The figures are those with which planted races were found best; none of them wins everywhere.
POLICIES: dict[str, Callable[[random.Random], Policy]] = {
    "fair": fair,
    "hold-back": lambda numbers: hold_back(numbers, share=0.3, rounds=8),
    "hold-long": lambda numbers: hold_back(numbers, share=0.1, rounds=60),
    "pct": pct,
}

#: What an exploration takes turns with. Half of its runs hold back for a short time.
PORTFOLIO: Final = ("hold-back", "fair", "hold-back", "pct", "hold-back", "hold-long")


class Steering:
    """An order of tasks that follows a schedule and remembers its turns; give it to ``tasks_ordered_by``.

    Args:
        schedule: What it follows.
        on_round: Called at the begin of every round.
        on_repeat: Called with each turn that the schedule names, and the tasks that can run.
    """

    def __init__(
        self,
        schedule: Schedule,
        on_round: Callable[[], object] | None = None,
        on_repeat: Callable[[Turn, list[Task]], object] | None = None,
    ) -> None:
        #: The turns taken so far that are not the plain order.
        self.turns: list[Turn] = []
        #: Choices so far.
        self.choices = 0
        #: Rounds so far.
        self.rounds = 0
        self._on_round = on_round
        self._on_repeat = on_repeat
        self._repeats = schedule.policy == "turns"
        self._held: dict[int, int] = {}
        self._planned = {turn.choice: turn for turn in schedule.turns}
        if schedule.policy == "turns":
            self._policy: Policy = lambda choice, ages: self._planned.get(choice)
        else:
            self._policy = POLICIES[schedule.policy](random.Random(schedule.seed))

    def __call__(self, ready: list[Task]) -> list[Task]:
        """Decide who of ``ready`` runs now."""
        self.rounds += 1
        if self._on_round is not None:
            self._on_round()
        free = self._free(ready) if self._held else ready
        if len(free) < 2:
            return free
        turn = self._policy(self.choices, [age_of(task) for task in free])
        self.choices += 1
        return free if turn is None else self._apply(turn, free)

    def _free(self, ready: list[Task]) -> list[Task]:
        """Return those who are not held back, or all: holding everybody back would change nothing."""
        free = []
        for task in ready:
            left = self._held.pop(age_of(task), 0)
            if left > 1:
                self._held[age_of(task)] = left - 1
            if left < 1:
                free.append(task)
        if not free:
            self._held.clear()
            return ready
        return free

    def _apply(self, turn: Turn, free: list[Task]) -> list[Task]:
        count = len(free)
        order = [position for position in turn.order if position < count]
        if not turn.alone:
            order += [position for position in range(count) if position not in turn.order]
        away = {position for position, _ in turn.held}
        chosen = [position for position in order if position not in away]
        if not chosen:
            chosen, turn = order or [0], msgspec.structs.replace(turn, held=())
        for position, rounds in turn.held:
            if position < count:
                self._held[age_of(free[position])] = rounds
        if chosen != list(range(count)):
            self.turns.append(turn)
            if self._on_repeat is not None and self._repeats:
                self._on_repeat(turn, free)
        return [free[position] for position in chosen]
