"""Pools of other projects whose callers are trio tasks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.contenders.contender import TrioContender
from benchmarks.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["open_anyio", "open_trio_parallel"]


class _OfTrioParallel(TrioContender):
    def __init__(self, context: Any, workers: int) -> None:
        self._context = context
        self._limiter = trio.CapacityLimiter(workers)

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        with trio.fail_after(timeout) if timeout is not None else contextlib.nullcontext():
            return await self._context.run_sync(
                TASKS[task], argument, kill_on_cancel=True, limiter=self._limiter
            )


class _OfAnyio(TrioContender):
    def __init__(self, workers: int) -> None:
        import anyio

        self._limiter = anyio.CapacityLimiter(workers)

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        from anyio import to_process

        with trio.fail_after(timeout) if timeout is not None else contextlib.nullcontext():
            return await to_process.run_sync(TASKS[task], argument, cancellable=True, limiter=self._limiter)


@contextlib.asynccontextmanager
async def open_trio_parallel(workers: int) -> AsyncIterator[TrioContender]:
    """Open a context of trio-parallel."""
    import trio_parallel

    async with trio_parallel.open_worker_context() as context:
        yield _OfTrioParallel(context, workers)


@contextlib.asynccontextmanager
async def open_anyio(workers: int) -> AsyncIterator[TrioContender]:
    """Use anyio's processes, which end with the loop."""
    yield _OfAnyio(workers)
