"""What ``async with pool.checkout()`` enters and leaves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from dspex_pool.errors import UseAfterReturnError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from dspex_pool.lease import Lease
    from dspex_pool.worker_pool import WorkerPool

__all__ = ["NO_PATIENCE", "Checkout", "Holder"]

#: A timeout that means: do not wait in line at all.
NO_PATIENCE = -math.inf


class _Nothing:
    """What is left to await when all is done."""

    def __await__(self) -> Iterator[None]:
        return iter(())


_NOTHING: Any = _Nothing()


class Checkout(msgspec.Struct, eq=False):
    """What ``async with pool.checkout()`` enters and leaves, once. A struct, because every call makes one."""

    _pool: WorkerPool
    _timeout: float | None
    _session: str | None
    _affinity: str
    _lease: Lease | None = None
    _is_entered: bool = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Lease:
        if self._is_entered:
            raise UseAfterReturnError("a checkout is good for one block. Call 'checkout()' for each.")
        self._is_entered = True
        if self._lease is None:
            self._lease = await self._pool._acquire(self._timeout, self._session, self._affinity)
        return self._lease

    # Not one in truth: a Ctrl-C that struck between its making and its first step would keep the worker for ever.
    @trio.lowlevel.enable_ki_protection
    def __aexit__(self, *_: object) -> Coroutine[Any, Any, None]:
        assert self._lease is not None
        self._pool._release(self._lease)
        nothing: Coroutine[Any, Any, None] = _NOTHING
        return nothing


class Holder(msgspec.Struct, eq=False):
    """Names a task when somebody asks."""

    _task: trio.lowlevel.Task

    def __str__(self) -> str:
        return f"task {self._task.name!r}"
