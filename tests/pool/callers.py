"""Callers of a pool, as bodies for all kinds of port need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from dspex_pool.worker_pool import WorkerPool

__all__ = ["hold", "use"]


async def use(pool: WorkerPool, **asked: Any) -> None:
    """Borrow a worker for one request."""
    await hold(pool, 0.0, **asked)


async def hold(pool: WorkerPool, seconds: float, **asked: Any) -> None:
    """Use a worker for a time."""
    async with pool.checkout(**asked) as lease:
        await lease.request("echo")
        await trio.sleep(seconds)
