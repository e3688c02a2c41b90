"""What the chaos tests share: pools that are watched, outcomes that are kept, kills that are proven."""

from __future__ import annotations

import math
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.config import PoolConfig
from dspex_pool.errors import DspexPoolError
from dspex_pool.telemetry import PREFIX, Telemetry
from dspex_pool.telemetry.gauges import GaugeLedger
from dspex_pool.transport.run_tag import own_run_tag
from dspex_testkit.chaos.system import no_processes_of
from dspex_testkit.invariants import check_books
from tests.bounded_waits import until

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dspex_pool.protocol import Event
    from dspex_pool.worker import PoolWorker

__all__ = ["Killer", "Outcomes", "check_whole", "light", "until", "watched_pool"]

#: The variable that chooses how workers are started, where a test does not.
START_METHOD = "DSPEX_POOL_START_METHOD"

#: The handler that starts in a tenth of a second, and does whatever it is told.
ROGUE = "dspex_testkit.children.rogue:RogueHandler"

#: Seconds within which any of these tests is over, on any machine; nothing takes that long when all is well.
BOUND = 60.0


def light(**settings: Any) -> PoolConfig:
    """Return settings for workers without DSPy; failed starts are tried again soon.

    ``DSPEX_POOL_START_METHOD=template`` plays everything on forked workers.
    """
    start = {} if "command" in settings else {"start_method": os.environ.get(START_METHOD, "spawn")}
    return PoolConfig(**{"handler": ROGUE, "backoff_min": 0.05, "backoff_max": 0.2, **start, **settings})


@asynccontextmanager
async def watched_pool(config: PoolConfig) -> AsyncIterator[tuple[PythonPool, GaugeLedger]]:
    """Open a pool whose events are added up. Afterwards events and books must agree, and nothing may be left.

    Raises:
        trio.TooSlowError: It took longer than ``BOUND``.
    """
    telemetry, ledger = Telemetry(), GaugeLedger()
    telemetry.attach(PREFIX, ledger)
    with trio.fail_after(BOUND):
        async with PythonPool.open(config, telemetry=telemetry) as pool:
            yield pool, ledger
    numbers = pool.statistics()
    check_books(pool.sessions.workers._state)
    assert ledger.contradictions == []
    assert ledger.processes == numbers.processes == 0
    assert ledger.counters["reaped"] == numbers.counters.reaped == numbers.counters.starts
    assert ledger.attempts == numbers.counters.attempts
    assert no_processes_of(own_run_tag()), "a process of the pool is left"


class Outcomes:
    """How calls ended, each under a name of its own."""

    def __init__(self) -> None:
        #: Result or error by name.
        self.of: dict[str, Any] = {}

    async def keep(self, name: str, call: Callable[[], Awaitable[Any]]) -> None:
        """Make one call and keep its outcome."""
        try:
            outcome = await call()
        except DspexPoolError as error:
            outcome = error
        assert name not in self.of, f"{name} ended twice"
        self.of[name] = outcome

    @property
    def good(self) -> dict[str, Any]:
        """The results."""
        return {name: outcome for name, outcome in self.of.items() if not isinstance(outcome, DspexPoolError)}

    @property
    def bad(self) -> dict[str, DspexPoolError]:
        """The errors."""
        return {name: outcome for name, outcome in self.of.items() if isinstance(outcome, DspexPoolError)}


class Killer:
    """Sends SIGKILL to random workers of a pool.

    Args:
        pool: Their pool.
        random: Chooses them.
    """

    def __init__(self, pool: PythonPool, random: random.Random) -> None:
        #: Those that were hit.
        self.victims: list[PoolWorker] = []
        self._pool = pool
        self._random = random

    @property
    def pids(self) -> set[int | None]:
        """Process ids of those that were hit."""
        return {worker.port.pid for worker in self.victims}

    def targets(self) -> list[PoolWorker]:
        """Return the workers that live, are not being ended, and were not hit yet."""
        return [
            worker
            for worker in self._pool.sessions.workers.workers()
            if worker.port.exit_status is None
            and worker.retired_because is None
            and worker not in self.victims
        ]

    def strike(self, count: int = 1) -> None:
        """Kill up to ``count`` workers."""
        targets = self.targets()
        for worker in self._random.sample(targets, min(count, len(targets))):
            assert worker.port.pid is not None
            # It is not reaped, and reaping happens in this thread: the number is no stranger's.
            os.kill(worker.port.pid, signal.SIGKILL)
            self.victims.append(worker)

    async def rage(
        self, *, count: int = 1, pause: tuple[float, float], spare: int = 0, most: float = math.inf
    ) -> None:
        """Strike again and again, after pauses drawn from a range of seconds, until cancelled.

        Args:
            count: Workers to kill at a time.
            pause: Shortest and longest pause.
            spare: Workers in service that are left in peace, so that work goes on however slow starts are.
            most: Workers to kill in all, for the same reason.
        """
        while len(self.victims) < most:
            await trio.sleep(self._random.uniform(*pause))
            if not spare or self._pool.statistics().ready >= count + spare:
                self.strike(count)

    async def wait_reaped(self) -> None:
        """Wait until the pool knows of every death; before that it seems as whole as ever."""
        await until(lambda: all(worker.exited.is_set() for worker in self.victims), "the dead are reaped")

    def check_proof(self) -> None:
        """See that there were victims, and that each died of it. Call it when the pool is closed."""
        assert self.victims, "nobody was killed"
        signals = {worker.port.exit_status.signal for worker in self.victims if worker.port.exit_status}
        assert signals == {signal.SIGKILL}


async def check_whole(pool: PythonPool, size: int, *, seconds: float = 20.0) -> None:
    """See that the pool heals to ``size`` workers, and that all of them serve at the same time, and no more.

    Needs a handler with the command ``announce_and_sleep``, which is cancelled in the end.
    """
    await until(lambda: _is_at_rest(pool, size), f"{size} workers are idle", seconds=seconds)
    busy: set[str] = set()
    everybody = trio.Event()

    def note(number: str, _event: Event) -> None:
        busy.add(number)
        if len(busy) == size:
            everybody.set()

    async def occupy(number: str) -> None:
        await pool.call(
            f"whole-{number}",
            "announce_and_sleep",
            {"seconds": 60},
            on_event=lambda event: note(number, event),
        )

    with trio.fail_after(seconds):
        async with trio.open_nursery() as nursery:
            for number in range(size):
                nursery.start_soon(occupy, str(number))
            await everybody.wait()
            assert pool.statistics().leased == pool.statistics().processes == size
            nursery.cancel_scope.cancel()
    await until(lambda: _is_at_rest(pool, size), "the pool is at rest again", seconds=seconds)


def _is_at_rest(pool: PythonPool, size: int) -> bool:
    numbers = pool.statistics()
    return numbers.idle == numbers.processes == size and numbers.waiting == 0
