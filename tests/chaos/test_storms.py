"""Storms without a single kill: cancelled callers, closing, resizing and draining while everybody works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import PoolClosedError, WorkerDiedError
from dspex_pool.telemetry import PREFIX
from tests.bounded_waits import until
from tests.chaos.fire import Outcomes, check_whole, light, watched_pool

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from dspex_pool.adapters.python_pool import PythonPool

pytestmark = pytest.mark.chaos

CALLERS, TURNS = 16, 15


class LastReturns:
    """How each worker came back last, and why it left; attach it to the pool's events."""

    def __init__(self) -> None:
        #: What the last lease of each worker proved, by incarnation.
        self.outcome_of: dict[int, str] = {}
        #: Reason and last outcome of each worker that was taken out of service.
        self.retired: list[tuple[str, str | None]] = []

    def __call__(
        self, event: tuple[str, ...], _measured: Mapping[str, float], about: Mapping[str, Any]
    ) -> None:
        if event[-1] == "checkin":
            self.outcome_of[about["incarnation"]] = about["outcome"]
        elif event[-1] == "worker_retiring":
            self.retired.append((about["reason"], self.outcome_of.get(about["incarnation"])))


async def cancelled_callers(pool: PythonPool, random: random.Random, *, count: int, hanging: int) -> int:
    """Let ``count`` callers leave their calls, the last of which cannot be stopped; return how many left."""
    left = 0

    async def callers(numbers: range) -> None:
        nonlocal left
        for number in numbers:
            command = "sleep" if number < count - hanging else "hang_in_c"
            with trio.move_on_after(random.uniform(0, 0.04)) as scope:
                await pool.call(f"tenant-{number % 50}", command, {"seconds": 60})
            left += scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        for first in range(2 * CALLERS):
            nursery.start_soon(callers, range(first, count, 2 * CALLERS))
    return left


async def leave_a_call_that_hangs(pool: PythonPool) -> None:
    """Leave a call that has reached its worker and will not stop; return when the pool has dealt with it."""
    workers = pool.sessions.workers

    def bytes_sent() -> int:
        return sum(worker.port.bytes_sent for worker in workers.workers())

    async with trio.open_nursery() as nursery:
        before = bytes_sent()
        nursery.start_soon(pool.call, "last", "hang_in_c")
        await until(lambda: workers.statistics().leased and bytes_sent() > before, "the call is sent")
        nursery.cancel_scope.cancel()
    await until(lambda: not workers.statistics().draining, "nobody is waited for")


@pytest.mark.trio
async def test_cancelled_callers_cost_no_worker_that_can_stop(dspex_random: random.Random) -> None:
    """Of 1,000 cancelled callers only those whose command will not stop cost a worker, and each worker one start."""
    outcomes, returns, is_over = Outcomes(), LastReturns(), trio.Event()

    async def honest(number: int) -> None:
        turn = 0
        while not is_over.is_set():
            name = f"{number}-{turn}"
            await outcomes.keep(name, lambda: pool.call(f"honest-{number}", "echo", {"nonce": name}))  # noqa: B023 - awaited
            turn += 1

    async with watched_pool(light(pool_size=4, cancel_grace=1.0)) as (pool, ledger):
        with pool.telemetry.attach(PREFIX, returns):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(honest, number)
                assert await cancelled_callers(pool, dspex_random, count=1000, hanging=40) == 1000
                is_over.set()
            # On a slow machine all of them may have left before they had a worker.
            while not returns.retired:
                await leave_a_call_that_hangs(pool)
            await check_whole(pool, 4)
        numbers = pool.statistics()
    assert outcomes.good
    assert not outcomes.bad
    assert all(reply.result["nonce"] == name for name, reply in outcomes.good.items())
    assert returns.retired, "no command was left that could not be stopped"
    assert set(returns.retired) == {("cancel_grace", "care")}
    assert numbers.counters.starts == 4 + len(returns.retired)
    assert numbers.counters.start_failures == 0
    assert ledger.counters["cancelled"] > 0, "nobody was cancelled in line"


@pytest.mark.trio
async def test_closing_under_load_tells_every_caller(dspex_random: random.Random) -> None:
    """Whoever waits hears at once that the pool is closed, whoever works after the grace. [property 76, 79]"""
    outcomes: dict[int, Exception] = {}

    async def caller(pool: PythonPool, number: int) -> None:
        command = "echo" if number % 2 else "sleep"
        try:
            while True:
                await pool.call(f"tenant-{number}", command, {"seconds": 60})
        except (PoolClosedError, WorkerDiedError) as error:
            outcomes[number] = error

    async with trio.open_nursery() as nursery:
        # One worker more than the calls that never end, so that the others are served until the end.
        async with watched_pool(light(pool_size=9, terminate_grace=0.3)) as (pool, _):
            for number in range(CALLERS):
                nursery.start_soon(caller, pool, number)
            await pool.wait_ready(9)
            await trio.sleep(dspex_random.uniform(0.1, 0.3))
            assert pool.statistics().leased == 9
            began = trio.current_time()
        assert trio.current_time() - began < 5.0
    assert outcomes.keys() == set(range(CALLERS))
    died = {number for number, error in outcomes.items() if isinstance(error, WorkerDiedError)}
    assert died <= set(range(0, CALLERS, 2))
    assert died, "nobody was at work"


@pytest.mark.trio
async def test_resizing_and_draining_under_load_fail_no_call(dspex_random: random.Random) -> None:
    """The pool grows, shrinks, is replaced and suspended under sixteen callers, and not one call fails."""
    outcomes = Outcomes()

    async def caller(number: int) -> None:
        for turn in range(TURNS):
            name = f"{number}-{turn}"
            args = {"nonce": name, "seconds": dspex_random.uniform(0, 0.02)}
            await outcomes.keep(name, lambda: pool.call(f"tenant-{number}", "sleep", args))  # noqa: B023 - awaited

    async def administrator() -> None:
        while True:
            await trio.sleep(dspex_random.uniform(0.05, 0.15))
            act = dspex_random.choice([pool.sessions.workers.drain, pause, resize, resize])
            await act() if act is pause else act()

    def resize() -> None:
        pool.sessions.workers.resize(dspex_random.randint(1, 6))

    async def pause() -> None:
        pool.sessions.workers.suspend()
        await trio.sleep(0.02)
        pool.sessions.workers.resume()

    async with watched_pool(light(pool_size=4)) as (pool, ledger):
        async with trio.open_nursery() as work:
            work.start_soon(administrator)
            async with trio.open_nursery() as nursery:
                for number in range(CALLERS):
                    nursery.start_soon(caller, number)
            work.cancel_scope.cancel()
        pool.sessions.workers.resume()
        pool.sessions.workers.resize(4)
        await check_whole(pool, 4)
    assert len(outcomes.good) == CALLERS * TURNS
    assert all(reply.result["nonce"] == name for name, reply in outcomes.good.items())
    assert ledger.events["resized"] + ledger.events["drained"] >= 2, "nothing was changed"
