"""A pool of mock workers that echo, and callers who use it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import DspexPoolError
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["attempt", "echo", "echo_pool", "hold", "until"]


def echo(port: MockPort) -> None:
    """Have a worker answer ``echo`` with its arguments, fail on ``fail`` and be slow on ``slow``."""
    port.answer("echo", lambda args: args).answer("fail", Plan().fail("as asked"))
    port.answer("slow", Plan().after(5.0).reply("slow")).answer("ping", "pong")


def echo_pool(pool_size: int = 1, *, ports: MockPortFactory | None = None, **settings: Any) -> WorkerPool:
    """Return a pool of workers that echo."""
    settings = {"health_check_interval": None} | settings
    return WorkerPool(ports or MockPortFactory(echo), pool_size=pool_size, **settings)


async def hold(pool: WorkerPool, seconds: float = 1.0, **asked: Any) -> None:
    """Use a worker for a time."""
    async with pool.checkout(**asked) as lease:
        await lease.request("echo")
        await trio.sleep(seconds)


async def attempt(pool: WorkerPool, seconds: float = 1.0, **asked: Any) -> None:
    """Use a worker for a time, if the pool has one to lend that lives so long."""
    with contextlib.suppress(DspexPoolError):
        await hold(pool, seconds, **asked)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces, in virtual time."""
    with trio.fail_after(1000):
        while not condition():
            await trio.sleep(0.1)
