"""Callers of a pool, as bodies for all kinds of port need them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import DspexPoolError
from dspex_testkit.plan_json import plan_to_json

if TYPE_CHECKING:
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.plan import Plan

__all__ = ["BRISK", "attempt", "hold", "planned", "serving", "use"]

#: Settings of a pool that does not give the unwilling long.
BRISK: dict[str, Any] = {"cancel_grace": 0.2, "terminate_grace": 0.2}


async def use(pool: WorkerPool, **asked: Any) -> None:
    """Borrow a worker for one request."""
    await hold(pool, 0.0, **asked)


async def hold(pool: WorkerPool, seconds: float, **asked: Any) -> None:
    """Use a worker for a time."""
    async with pool.checkout(**asked) as lease:
        await lease.request("echo")
        await trio.sleep(seconds)


async def attempt(pool: WorkerPool, seconds: float = 0.0, **asked: Any) -> None:
    """Use a worker for a time, if the pool has one to lend that lives so long."""
    with contextlib.suppress(DspexPoolError):
        await hold(pool, seconds, **asked)


async def serving(pool: WorkerPool) -> int:
    """Return the incarnation that serves the next caller, after making sure that it does."""
    async with pool.checkout(timeout=30.0) as lease:
        assert await lease.request("echo", {"a": 1}) == {"a": 1}
        return lease.worker.incarnation


def planned(plan: Plan) -> tuple[str, dict[str, Any]]:
    """Return the command, with its args, by which a worker follows a plan."""
    return "do", {"steps": plan_to_json(plan)}
