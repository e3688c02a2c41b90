"""The one place that touches private names of trio: who runs next, and how ties are broken.

trio promises no order among tasks that are ready together, and chance decides it. Where a run must be had again, a
policy of ours decides: it is shown the tasks that are ready, oldest first, and returns those that run now, in
their order; a task that it leaves out is held back until it is asked again, which happens before the clock moves.

Two more things would differ from run to run, because trio looks at addresses in memory: which of two equal
deadlines is met first, and in which order the tasks of a cancelled nursery hear of it. Within a policy's block both
follow the order in which things began.

``require_seam`` tries all this out, once in a process, and names the version of trio and what is missing in it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import random
import threading
from collections.abc import Callable
from heapq import heappush
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import trio
from trio._core import _run
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Alarm",
    "FairOrder",
    "Order",
    "SeamBrokenError",
    "Task",
    "age_of",
    "order_of_tasks",
    "require_seam",
    "sleep_until",
    "tasks_ordered_by",
    "virtual_clock",
]

Task: TypeAlias = trio.lowlevel.Task
#: Takes the tasks that are ready, oldest first; returns those that run now, in their order. The rest is held back.
Order: TypeAlias = Callable[[list[Task]], list[Task]]

# The module as something whose names may be missing and may be replaced.
_seam: Any = _run

#: What is used of trio's scheduler, and what for.
_NAMES = {
    "_r": "asked for the order of ready tasks",
    "_ALLOW_DETERMINISTIC_SCHEDULING": "switches that question on",
    "GLOBAL_RUN_CONTEXT": "knows the run in which a task is held back",
    "CancelStatus": "remembers whom a cancellation reaches",
    "Deadlines": "breaks ties between equal deadlines",
    "Deadlines.add": "enters a deadline with its tie-breaker",
    "Deadlines.remove": "counts a deadline out",
    "Runner.deadlines": "holds the deadlines of the run",
    "Runner.runq": "takes back a task that is held back",
    "Task._counter": "tells which task is older",
}

#: Tie-breakers of deadlines. It never starts anew: a heap must not see one number twice.
_ties = itertools.count()


def age_of(task: Task) -> int:
    """Return a number that grows with each task that this process starts."""
    return task._counter


def virtual_clock() -> MockClock:
    """Return a mock clock that stands still while anything can run, and then jumps to the next deadline.

    trio's own asks the real clock each time it is read, for a rate of zero: a twentieth of a simulated run.
    """
    clock: Any = MockClock(autojump_threshold=0)
    clock.current_time = lambda: clock._virtual_base
    return cast("MockClock", clock)


class Alarm:
    """Calls a function at a moment of the trio run, without a scope that cancels a task to tell it the time.

    A scope takes a tenth of a simulated call. An alarm stands among the deadlines as a scope does, so ties between
    the two are broken alike.

    Args:
        ring: Called at the begin of the first round of the scheduler at that moment; must not raise.
    """

    __slots__ = ("_registered_deadline", "_ring")

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring
        self._registered_deadline = math.inf

    def set(self, moment: float) -> None:
        """Ring at ``moment`` of the run's clock and not when it was to ring before; never, if that is infinite."""
        before = self._registered_deadline
        if moment == before:
            return
        deadlines = _seam.GLOBAL_RUN_CONTEXT.runner.deadlines
        if before != math.inf:
            deadlines.remove(before, self)
        self._registered_deadline = moment
        if moment != math.inf:
            deadlines.add(moment, self)

    def _cancel(self, reason: object) -> None:
        """Ring: trio calls this of what has met its deadline."""
        self.set(math.inf)
        self._ring()


async def sleep_until(moment: float) -> None:
    """Sleep as ``trio.sleep_until`` does, without a scope that cancels the sleep.

    Cancellation: The sleep ends.
    """
    if moment <= trio.current_time():
        await trio.lowlevel.checkpoint()
        return
    alarm = Alarm(functools.partial(trio.lowlevel.reschedule, trio.lowlevel.current_task()))

    def abort(_: object) -> trio.lowlevel.Abort:
        alarm.set(math.inf)
        return trio.lowlevel.Abort.SUCCEEDED

    alarm.set(moment)
    await trio.lowlevel.wait_task_rescheduled(abort)


class SeamBrokenError(RuntimeError):
    """This version of trio does not let its order of tasks be decided as the test kit knows it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"trio {trio.__version__} does not let its order of tasks be decided as the test kit knows it: {what}. "
            "Look in trio._core._run for what has replaced it; dspex_testkit/trio_seam.py alone has to follow."
        )


class FairOrder:
    """Runs all ready tasks, shuffled.

    Args:
        seed: Decides the shuffling.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, ready: list[Task]) -> list[Task]:
        """Shuffle ``ready``."""
        if len(ready) > 1:
            self._random.shuffle(ready)
        return ready


@contextlib.contextmanager
def order_of_tasks(seed: int) -> Iterator[None]:
    """Have trio run tasks that are ready together in an order that ``seed`` decides."""
    with tasks_ordered_by(FairOrder(seed)):
        yield


@contextlib.contextmanager
def tasks_ordered_by(order: Order) -> Iterator[None]:
    """Have ``order`` decide who runs next, in trio runs of this thread, inside one or around it.

    Raises:
        SeamBrokenError: A private name of trio is missing.
    """
    _require_names()
    add, kept = _seam.Deadlines.add, {name: getattr(_seam, name) for name in ("_r", "CancelStatus", _SWITCH)}
    _seam._r = _Chooser(order, kept["_r"])
    _seam.CancelStatus = _ordered_status(kept["CancelStatus"])
    setattr(_seam, _SWITCH, True)
    _seam.Deadlines.add = _add_in_order
    try:
        yield
    finally:
        _seam.Deadlines.add = add
        for name, value in kept.items():
            setattr(_seam, name, value)


_SWITCH = "_ALLOW_DETERMINISTIC_SCHEDULING"


class _Chooser:
    """Stands where trio keeps its random numbers: ``shuffle`` asks the policy, all else is as it was."""

    def __init__(self, order: Order, numbers: random.Random) -> None:
        self._order = order
        self._numbers = numbers
        self._thread = threading.get_ident()

    def shuffle(self, batch: list[Task]) -> None:
        """Bring ``batch`` into the order of the policy, and put back what it leaves out."""
        if threading.get_ident() != self._thread:
            self._numbers.shuffle(batch)
            return
        chosen = self._order(batch.copy())
        if len(chosen) < len(batch):
            names = set(map(id, chosen))
            _seam.GLOBAL_RUN_CONTEXT.runner.runq.extend(task for task in batch if id(task) not in names)
        # trio takes from the end.
        batch[:] = reversed(chosen)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numbers, name)


class _InsertionOrder(dict[Any, None]):
    """As much of a set as trio needs, in the order in which things were put in."""

    add = dict.setdefault
    remove = dict.__delitem__


@functools.cache
def _ordered_status(base: Any) -> Any:
    """Return a ``CancelStatus`` that remembers in order whom it reaches."""

    class OrderedCancelStatus(base):  # type: ignore[misc]  # trio's class is known at run time only
        def __attrs_post_init__(self) -> None:
            self._children = _InsertionOrder()
            self._tasks = _InsertionOrder()
            super().__attrs_post_init__()

    return OrderedCancelStatus


def _add_in_order(self: Any, deadline: float, cancel_scope: object) -> None:
    heappush(self._heap, (deadline, next(_ties), cancel_scope))
    self._active += 1


# --- the self-test ----------------------------------------------------------------------------------------


def require_seam() -> None:
    """Check that this version of trio can be steered as the test kit does it; call it outside of a trio run.

    Raises:
        SeamBrokenError: With the version of trio and what is wrong.
    """
    _require_names()
    _try_out()


def _require_names() -> None:
    for name, purpose in _NAMES.items():
        found: Any = _seam
        for part in name.split("."):
            if not hasattr(found, part):
                raise SeamBrokenError(f"{name} is missing, which {purpose}")
            found = getattr(found, part)


@functools.cache
def _try_out() -> None:
    """Run a few tasks, and see whether they do as they are told."""
    trial = _Trial()
    try:
        with tasks_ordered_by(trial.order):
            trio.run(trial.run, clock=virtual_clock())
    except Exception as error:
        raise SeamBrokenError(f"a trial run ended with {error!r}") from error
    trial.check()


class _Trial:
    """Tasks that note who came when."""

    #: So many that they do not stand in line by chance.
    TASKS = 12
    #: How often the oldest of them is held back.
    HOLDS = 3
    #: Virtual seconds.
    NAP = 3_600.0

    def __init__(self) -> None:
        self.slept = 0.0
        self.steps: list[int] = []
        self.deadlines: list[int] = []
        self.cancelled: list[int] = []
        self._held = 0

    def order(self, ready: list[Task]) -> list[Task]:
        """Run the youngest first; hold back the oldest of all a few times."""
        if len(ready) <= self.TASKS and self._held < self.HOLDS and any(task.name == "0" for task in ready):
            self._held += 1
            ready = [task for task in ready if task.name != "0"]
        return ready[::-1]

    async def run(self) -> None:
        """Do everything that is to be tried."""
        async with trio.open_nursery() as nursery:
            for number in range(self.TASKS):
                nursery.start_soon(self._step, number, name=str(number))
        before = trio.current_time()
        await sleep_until(before + self.NAP)
        self.slept = trio.current_time() - before
        past = trio.current_time() - 1
        async with trio.open_nursery() as nursery:
            for number in range(self.TASKS):
                nursery.start_soon(self._abort, number, self.deadlines, past)
        async with trio.open_nursery() as nursery:
            for number in range(self.TASKS):
                nursery.start_soon(self._abort, number, self.cancelled)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def _step(self, number: int) -> None:
        self.steps.append(number)

    async def _abort(self, number: int, seen: list[int], deadline: float = float("inf")) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            seen.append(number)
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.CancelScope(deadline=deadline):
            await trio.lowlevel.wait_task_rescheduled(abort)

    def check(self) -> None:
        """Complain of what was not done as it was told."""
        numbers = list(range(self.TASKS))
        if self.steps != [*numbers[:0:-1], 0] or self._held != self.HOLDS:
            raise SeamBrokenError(f"tasks ran in the order {self.steps}, held back {self._held} times")
        if self.slept != self.NAP:
            raise SeamBrokenError(f"an alarm set to {self.NAP} virtual seconds rang after {self.slept}")
        # The youngest was told to run first, so it began first.
        if self.deadlines != numbers[::-1]:
            raise SeamBrokenError(f"equal deadlines were met in the order {self.deadlines}")
        if self.cancelled != numbers:
            raise SeamBrokenError(f"a cancelled nursery told its tasks in the order {self.cancelled}")
