"""A nursery for tasks that serve a block without being part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

__all__ = ["Background"]


class Background:
    """``async with Background() as nursery``: its tasks are cancelled when the block ends.

    Unlike with a nursery of the block's own, an error of the block leaves as it is, not wrapped in a group. An
    error of a task cancels the block and leaves in a group.

    Cancellation: The tasks have ended before the cancellation leaves.
    """

    def __init__(self) -> None:
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        # Not before: a pool may be made where trio does not run yet.
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._manager is not None
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)
