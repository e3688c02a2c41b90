"""Many faults at once, drawn from the run's seed: nobody gets somebody else's answer, and the pool gets over it."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import DspexPoolError
from dspex_testkit.chaos.chaos import Chaos
from dspex_testkit.chaos.line_fault import LineFault
from dspex_testkit.ports.run import WANTED, BodyRun
from tests.chaos.fault_cases import CASES

if TYPE_CHECKING:
    from dspex_testkit.chaos.fault import Fault
    from dspex_testkit.chaos.injection import Injection
    from dspex_testkit.ports.handle import PoolHandle

pytestmark = pytest.mark.chaos

#: Not among them: bits that turn over within a text are seen by nobody, as frames have no checksum; a clock that
#: jumps over the end of all waiting; and what is answered by nothing, as ordered.
LEFT_OUT = {"Corrupt", "CorruptRequest", "ClockJump", "StderrFlood", "Misspeak"}
MIXABLE = [
    case.fault for case in CASES if case.fault.where[0] == "sim" and type(case.fault).__name__ not in LEFT_OUT
]
CALLERS, CALLS, MIXTURES = 6, 6, 25


class Mixture:
    """One pool under faults and calls.

    Args:
        pool: The pool.
        chaos: Injects.
        numbers: Everything is drawn from here.
    """

    def __init__(self, pool: PoolHandle, chaos: Chaos, numbers: random.Random) -> None:
        #: What came to callers that is none of theirs.
        self.crossed: list[Any] = []
        #: Calls that were answered, and faults that happened.
        self.answered = self.happened = 0
        self.injected: list[Injection] = []
        self._pool = pool
        self._chaos = chaos
        self._numbers = numbers

    async def run(self) -> None:
        """Call, and inject meanwhile; in the end mend everything, and see that the pool is whole."""
        async with trio.open_nursery() as nursery:
            for caller in range(CALLERS):
                nursery.start_soon(self._call, caller)
            for _ in range(self._numbers.choice((1, 2, 4, 8))):
                await trio.sleep(self._numbers.choice((0.0, 0.1, 0.5)))
                self._inject(self._numbers.choice(MIXABLE))
        for injection in self.injected:
            injection.mend()
        self.happened = sum(bool(injection.evidence) for injection in self.injected)
        await self._pool.steady(within=300.0)

    def _inject(self, fault: Fault) -> None:
        # Where all workers have just died, there is nobody to do it to.
        if isinstance(fault, LineFault) or self._pool.workers.workers():
            self.injected.append(self._chaos(fault, pool=self._pool))

    async def _call(self, caller: int) -> None:
        for number in range(CALLS):
            args = {"caller": caller, "number": number}
            patience = self._numbers.choice((1.0, 3.0, 30.0))
            with contextlib.suppress(DspexPoolError), trio.move_on_after(self._numbers.choice((0.5, 100.0))):
                reply = await self._pool.call(
                    "sleep", {**args, "seconds": self._numbers.choice((0.0, 0.7))}, timeout=patience
                )
                self.answered += 1
                if {name: reply.result[name] for name in args} != args:
                    self.crossed.append((args, reply.result))
            await trio.sleep(self._numbers.choice((0.0, 0.5)))


def played(seed: int) -> Mixture:
    """Play the mixture of a seed, in a run of its own."""
    numbers = random.Random(seed)
    mixtures: list[Mixture] = []

    async def body(pool: PoolHandle, chaos: Chaos) -> None:
        mixtures.append(Mixture(pool, chaos, numbers))
        await mixtures[0].run()

    run = BodyRun("sim", settings={"pool_size": 3, "retries": numbers.choice((0, 2)), "spawn_timeout": 10.0})
    run.run(body, {"pool": WANTED["pool"], "chaos": Chaos(numbers)})
    return mixtures[0]


def test_no_mixture_of_faults_crosses_answers_or_costs_a_worker(dspex_random: random.Random) -> None:
    """Whatever happens together: an answer is one's own, and after the faults every worker serves."""
    answered = happened = 0
    for _ in range(MIXTURES):
        seed = dspex_random.randrange(10**9)
        mixture = played(seed)
        assert mixture.crossed == [], (seed, [injection.fault for injection in mixture.injected])
        answered += mixture.answered
        happened += mixture.happened
    assert answered > MIXTURES
    assert happened > MIXTURES
