"""K: what the parent holds for each worker, session and waiter."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import statistics
import time
import tracemalloc
from typing import TYPE_CHECKING, ClassVar

import trio
import trio.testing

from benchmarks.contenders.ours import our_config, our_ports
from benchmarks.figures import Metric
from benchmarks.workloads.workload import Settings, Workload
from dspex_pool import PythonPool, WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from benchmarks.workloads.workload import Round

__all__ = ["Holdings"]

_SIGNATURE = "context, question -> answer"
_CALLS = 200


class _Meter:
    """What this process holds, as the difference between two looks."""

    def __init__(self) -> None:
        self._before = self._look()

    @staticmethod
    def _look() -> tuple[int, int]:
        gc.collect()
        return tracemalloc.get_traced_memory()[0], len(os.listdir("/dev/fd"))  # noqa: PTH208 - counts only

    def each(self, count: int) -> dict[str, float]:
        """Return what one of so many things took that were added since."""
        memory, descriptors = self._look()
        return {
            "memory each": (memory - self._before[0]) / count,
            "descriptors each": (descriptors - self._before[1]) / count,
        }


async def _workers(entries: int) -> dict[str, float]:
    """Add four workers to one, and use each."""
    async with WorkerPool(our_ports(), pool_size=1) as pool:
        await _use_all(pool, 1)
        meter = _Meter()
        pool.resize(5)
        await pool.wait_ready(5)
        await _use_all(pool, 5)
        return meter.each(4)


async def _use_all(pool: WorkerPool, count: int) -> None:
    async with contextlib.AsyncExitStack() as leases:
        for _ in range(count):
            lease = await leases.enter_async_context(pool.checkout())
            await lease.request("echo", {"value": 1})


async def _sessions(entries: int) -> dict[str, float]:
    """Begin sessions with a program each, then call in one or the other of them."""
    async with PythonPool.open(our_config(1, max_sessions=entries + 10)) as pool:
        await _begin_sessions(pool, "first", 10)
        meter = _Meter()
        await _begin_sessions(pool, "session", entries)
        held = meter.each(entries)
        tracemalloc.stop()
        return {**held, "a call among them": await _call_among(pool, entries)}


async def _begin_sessions(pool: PythonPool, name: str, count: int) -> None:
    for number in range(count):
        await pool.session_adapter(f"{name}-{number}").create_program("qa", _SIGNATURE)


async def _call_among(pool: PythonPool, entries: int) -> float:
    chance, taken = random.Random(0), []
    for _ in range(_CALLS):
        session = f"session-{chance.randrange(entries)}"
        began = time.perf_counter()
        await pool.call(session, "echo", {"value": "x" * 200})
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def _waiters(entries: int) -> dict[str, float]:
    """Have tasks wait in line for the only worker."""
    async with WorkerPool(our_ports(), pool_size=1, checkout_timeout=1000.0) as pool, pool.checkout():

        async def wait() -> None:
            async with pool.checkout():
                raise AssertionError("nobody returned the worker")

        return await _among_tasks(wait, entries)


async def _tasks(entries: int) -> dict[str, float]:
    """Have tasks sleep, to tell what of a waiter is trio's."""
    return await _among_tasks(trio.sleep_forever, entries)


async def _among_tasks(wait: Callable[[], Awaitable[object]], entries: int) -> dict[str, float]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        meter = _Meter()
        for _ in range(entries):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        held = meter.each(entries)
        nursery.cancel_scope.cancel()
    return held


_HELD: Mapping[str, Callable[[int], Awaitable[dict[str, float]]]] = {
    "a worker": _workers,
    "a session with a program": _sessions,
    "a waiter, with its task": _waiters,
    "a trio task that sleeps": _tasks,
}


class Holdings(Workload):
    """Python's own allocations, as tracemalloc counts them, and descriptors. Workers are always four.

    One round is enough: the same things take the same memory again.
    """

    letter = "K"
    title = "what the parent holds"
    metrics = (
        Metric("memory each", "bytes", has_ratio=False),
        Metric("descriptors each", "", has_ratio=False),
        Metric("a call among them", has_ratio=False, absent=""),
    )
    cases: ClassVar[Mapping[str, Settings]] = {"10,000 of them": {"entries": 10_000}}
    quick: ClassVar[Settings] = {"entries": 50}
    subjects = tuple(_HELD)
    reference = None
    rounds = 1
    patience = 300.0

    @contextlib.asynccontextmanager
    async def prepare(self, subject: str, settings: Settings) -> AsyncIterator[Round]:
        """Open nothing: every round begins with nothing held."""

        async def measure() -> dict[str, float]:
            tracemalloc.start()
            try:
                return await _HELD[subject](settings["entries"])
            finally:
                tracemalloc.stop()

        yield measure
