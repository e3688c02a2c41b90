"""One simulated run of a test's body: from a case to what has happened."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import trio

from dspex_testkit.simulation.schedulers import Schedule, Steering
from dspex_testkit.simulation.world import World
from dspex_testkit.trio_seam import require_seam, tasks_ordered_by, virtual_clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_testkit.simulation.faults import Fault
    from dspex_testkit.simulation.workload import Case

__all__ = ["Body", "Run", "Setup", "only_error"]

#: What happens in a pool of which nobody wants anything.
OF_ITSELF = frozenset({"ping_start", "ping_stop", "ready", "worker_started", "worker_starting"})

#: The body of a test: a coroutine function of a world.
Body: TypeAlias = Callable[[World], Awaitable[object]]


def only_error(error: BaseException) -> BaseException:
    """Return the first error in a group, and in the groups in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@dataclass(frozen=True)
class Setup:
    """What all runs of one test share."""

    body: Body
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Kinds of faults that are drawn.
    faults: tuple[type[Fault], ...] = ()
    #: Which cancellations are drawn: none, ``ticks`` or ``everywhere``.
    cancel: str = ""
    #: What the pool lives in: ``World``, or ``SessionWorld``.
    world: type[World] = World

    def play(self, case: Case) -> Run:
        """Run the body once, in a trio run and a clock of its own.

        Raises:
            SeamBrokenError: This version of trio does not let its order of tasks be decided.
            KeyboardInterrupt: As ever.
        """
        require_seam()
        world = self.world(case, settings=self.settings, faults=self.faults, cancel=self.cancel)
        steering = Steering(case.schedule, world.check_round, world.recorder.turn)
        error: BaseException | None = None
        is_used = True  # unless the body came to its end without it
        try:
            with tasks_ordered_by(steering):
                is_used = trio.run(self._main, world, clock=virtual_clock())
        except BaseException as caught:
            error = only_error(caught)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise error from None
        return Run(case, world, steering, world.fault or error, is_used=is_used)

    async def _main(self, world: World) -> bool:
        """Run the body; tell whether the pool did anything on account of it."""
        async with world.opened():
            before = len(world.log)
            await self.body(world)
            happened = world.log[before:]
        return any(what not in OF_ITSELF for _, what, *_ in happened)


class Run:
    """What has happened in one run.

    Args:
        case: What it was told.
        world: Where it happened.
        steering: Who decided the order of tasks.
        error: What it ended with, or ``None``.
        is_used: Whether the body had the pool do anything.
    """

    def __init__(
        self, case: Case, world: World, steering: Steering, error: BaseException | None, *, is_used: bool
    ) -> None:
        self.error = error
        #: The same run as plain data, nothing of it left to be drawn.
        self.case = msgspec.structs.replace(
            case, schedule=Schedule(turns=tuple(steering.turns)), workloads=tuple(world.workloads)
        )
        #: What the scheduler was given.
        self.schedule = case.schedule
        self.rounds, self.choices = steering.rounds, steering.choices
        self.log = world.log
        self.recorder = world.recorder
        #: Whether the body had the pool do anything.
        self.is_used = is_used
        self.outcomes = world.outcomes
        #: Faults that have happened, by kind.
        self.met = world.workers.met_by_kind()
        #: Faults that were drawn, by kind.
        self.drawn = Counter(type(fault).__name__ for load in world.workloads for fault in load.faults)

    @property
    def is_vacuous(self) -> bool:
        """Whether faults were drawn and none of them happened."""
        return bool(self.drawn) and not self.met

    @property
    def failure(self) -> tuple[str, str] | None:
        """What tells one failure from another: the error's class and where it was raised; ``None`` without one."""
        if self.error is None:
            return None
        frames = traceback.extract_tb(self.error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return type(self.error).__name__, where

    @property
    def trace(self) -> list[tuple[Any, ...]]:
        """Everything by which two runs can be compared."""
        return [*self.log, ("rounds", self.rounds), ("choices", self.choices), ("failure", self.failure)]

    def difference(self, other: Run) -> str:
        """Say where this run and ``other`` part ways; empty if they do not."""
        for number, (ours, theirs) in enumerate(zip(self.trace, other.trace, strict=False)):
            if ours != theirs:
                return f"at event {number} one has {ours} and the other {theirs}"
        if len(self.trace) != len(other.trace):
            return f"one has {len(self.trace)} events and the other {len(other.trace)}"
        return ""


@contextlib.contextmanager
def noted(error: BaseException, line: str) -> Any:
    """Put ``line`` on ``error``, once."""
    if line not in getattr(error, "__notes__", []):
        error.add_note(line)
    yield error
