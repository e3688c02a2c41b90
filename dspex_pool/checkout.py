"""What ``async with pool.checkout()`` enters and leaves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from dspex_pool.errors import UseAfterReturnError

if TYPE_CHECKING:
    from dspex_pool.lease import Lease
    from dspex_pool.worker_pool import WorkerPool

__all__ = ["NO_PATIENCE", "Checkout", "Holder"]

#: A timeout that means: do not wait in line at all.
NO_PATIENCE = -math.inf


class Checkout:
    """What ``async with pool.checkout()`` enters and leaves, once. A class, because a generator costs more."""

    __slots__ = ("_affinity", "_is_entered", "_lease", "_pool", "_session", "_timeout")

    def __init__(
        self,
        pool: WorkerPool,
        timeout: float | None,
        session: str | None,
        affinity: str,
        lease: Lease | None = None,
    ) -> None:
        self._pool = pool
        self._timeout = timeout
        self._session = session
        self._affinity = affinity
        self._lease = lease
        self._is_entered = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Lease:
        if self._is_entered:
            raise UseAfterReturnError("a checkout is good for one block. Call 'checkout()' for each.")
        self._is_entered = True
        if self._lease is None:
            self._lease = await self._pool._acquire(self._timeout, self._session, self._affinity)
        return self._lease

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        assert self._lease is not None
        self._pool._release(self._lease)


class Holder:
    """Names a task when somebody asks."""

    __slots__ = ("_task",)

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self._task = task

    def __str__(self) -> str:
        return f"task {self._task.name!r}"
