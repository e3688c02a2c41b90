"""One fault while it is injected: what it may do, who tells whether it happened, and what is mended afterwards."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

import trio

from dspex_testkit.chaos.fault import FaultDidNotHappenError
from dspex_testkit.chaos.system import soon
from dspex_testkit.chaos.victim import Victim
from dspex_testkit.lm.script import describe
from dspex_testkit.ports.waiting import SOON, until
from dspex_testkit.report.recorder import note_fault

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from dspex_testkit.chaos.fault import Fault, Witness
    from dspex_testkit.chaos.line import Tap
    from dspex_testkit.chaos.ports import LinedPorts
    from dspex_testkit.lm.script import LMScript
    from dspex_testkit.lm.steps import Step
    from dspex_testkit.plan import Plan
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.ports.orders import Order

__all__ = ["Injection"]


class Injection:
    """A fault that was injected; a context manager that mends what can be mended and demands the proof.

    Args:
        fault: What is injected.
        pool: Where, unless it is into a language model.
        script: The language model's script, if one is meant.
        numbers: What is drawn comes from here.
        is_armed: Whether anything is done at all; the witnesses look on in any case.
    """

    def __init__(
        self,
        fault: Fault,
        *,
        pool: PoolHandle | None,
        script: LMScript | None,
        numbers: random.Random,
        is_armed: bool,
    ) -> None:
        self.fault = fault
        self.numbers = numbers
        #: Whether its proof was asked for.
        self.is_asked = False
        self._pool = pool
        self._script = script
        self._is_armed = is_armed
        self._mending = contextlib.ExitStack()
        self._witness: Witness = list

    # --- for tests ---------------------------------------------------------------------------------------

    @property
    def evidence(self) -> list[str]:
        """What proves that it happened, a line for each time."""
        self.is_asked = True
        return list(self._witness())

    def happened(self, times: int | None = None) -> None:
        """Check that the fault happened, ``times`` times if given; the system has a moment to do what it does.

        Raises:
            FaultDidNotHappenError: It did not, or not as often.
        """
        __tracebackhide__ = True
        if self._may_still_come:
            soon(lambda: len(self.evidence) >= (times or 1))
        seen = self.evidence
        if not seen or times not in (None, len(seen)):
            wanted = "it was to happen" if times is None else f"it was to happen {times} times"
            lines = [
                f"{self.fault}: {wanted}, and happened {len(seen)} times; proof: {self.fault.proof}",
                *seen,
            ]
            raise FaultDidNotHappenError("\n  ".join(lines))

    async def until_happened(self, times: int = 1, *, within: float = SOON) -> None:
        """Wait until the fault has happened so many times.

        Raises:
            AssertionError: It has not within so many seconds.

        Cancellation: Changes nothing.
        """
        await until(lambda: len(self.evidence) >= times, f"{self.fault} happened", within=within)

    def mend(self) -> None:
        """End the fault where it lasts: what was stopped goes on, limits are lifted, the line is clear again."""
        self._mending.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        __tracebackhide__ = True
        self.mend()
        self.is_asked = True
        if kind is None:
            self.happened()

    # --- for faults --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Inject."""
        self._tell_the_report()
        try:
            self._witness = self.fault.inject(self)
        except BaseException:
            self.mend()
            raise

    @property
    def _may_still_come(self) -> bool:
        """Whether the system may be doing it just now; no simulation goes on meanwhile."""
        return self._is_armed and self._pool is not None and self._pool.port != "sim"

    def _tell_the_report(self) -> None:
        if self._is_armed and self._pool is not None:
            index = getattr(self.fault, "worker", None)
            incarnation = None if index is None else self._pool.worker(index).incarnation
            name = type(self.fault).__name__
            note_fault(name, incarnation, self.fault.proof, pool=self._pool.ports.pool_number)

    @property
    def pool(self) -> PoolHandle:
        """The pool."""
        assert self._pool is not None, f"{self.fault} needs a pool"
        return self._pool

    @property
    def script(self) -> LMScript:
        """The language model's script."""
        assert self._script is not None, f"{self.fault} needs the script of a language model"
        return self._script

    @property
    def starts(self) -> LinedPorts:
        """What starts the workers."""
        from dspex_testkit.chaos.ports import lined_ports_of

        return lined_ports_of(self.pool)

    def victim(self, index: int) -> Victim:
        """Return a living worker; the oldest is number 0."""
        return Victim(self.pool, self.pool.worker(index))

    def tap(self, worker: int | None) -> Tap:
        """Return a tap on the line of a worker, or on all lines; it only looks on at first."""
        name = None if worker is None else self.pool.worker(worker).worker_id
        tap = self.starts.tap(name)
        self._mending.callback(self.starts.untap, tap)
        return tap

    def do(self, act: Callable[..., object], *arguments: Any) -> Any:
        """Do something, unless the injector is disarmed."""
        return act(*arguments) if self._is_armed else None

    def afterwards(self, act: Callable[..., object], *arguments: Any) -> None:
        """Do something at the end, or when the test is cut short, unless the injector is disarmed."""
        if self._is_armed:
            self._mending.callback(act, *arguments)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something after ``seconds``, or at the end if that comes first."""
        if self._is_armed:
            scope = trio.CancelScope()
            self._mending.callback(scope.cancel)
            trio.lowlevel.spawn_system_task(_wait_and_do, scope, seconds, act)

    def play(self, step: Step, times: int) -> Witness:
        """Have the language model carry a step out before its script, so often; return who tells when it did."""
        script = self.script
        ordered = self.do(script.put_first, step, times)
        self.afterwards(script.withdraw, ordered)
        return lambda: [describe(played) for played in script.played if played == ordered]

    def order(
        self, plan: Plan, *, worker: int | None, times: int | None = 1, command: str = "*"
    ) -> Sequence[Order]:
        """Have a worker follow a plan when it is next asked for something; empty if the injector is disarmed."""
        name = None if worker is None else self.pool.worker(worker).worker_id
        if not self._is_armed:
            return ()
        order = self.pool.order(command, plan, worker=name, times=times)
        self._mending.callback(order.withdraw)
        return (order,)


async def _wait_and_do(scope: trio.CancelScope, seconds: float, act: Callable[[], object]) -> None:
    with scope:
        await trio.sleep(seconds)
        act()
