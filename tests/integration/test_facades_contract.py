"""The adapter contract, kept by both facades: each call goes through a thread or an event loop of its own."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from dspex_pool.facades import AsyncioPool, SyncPool
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.contracts.adapter import AdapterContract
from dspex_testkit.mock_port import MockPortFactory

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from dspex_pool.adapters import Adapter


def canned_ports() -> MockPortFactory:
    """Return mock workers that serve canned programs."""
    return MockPortFactory(lambda port: port.answer_rest(CannedBridge().plan))


class Threaded:
    """A facade's adapter with trio's coroutines again: each call runs ``call`` in a thread.

    Args:
        facade: The adapter of the facade.
        call: Does what the facade's method says, in that thread.
    """

    def __init__(self, facade: Any, call: Callable[..., Any]) -> None:
        self._facade = facade
        self._call = call
        self.session_id = facade.session_id

    def session_adapter(self, session_id: str) -> Threaded:
        """Return the same for another session."""
        return Threaded(self._facade.session_adapter(session_id), self._call)

    def __getattr__(self, name: str) -> Any:
        async def ask(*args: Any, **options: Any) -> Any:
            work = functools.partial(self._call, getattr(self._facade, name), *args, **options)
            return await trio.to_thread.run_sync(work)

        return ask


def block(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a blocking method."""
    return method(*args, **options)


def run_loop(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a coroutine method in an event loop of its own."""
    return asyncio.run(method(*args, **options))


class Contract(AdapterContract):
    """Every promise, on an adapter that is open already."""

    def open_adapter(self) -> AbstractAsyncContextManager[Adapter]:
        """Not needed: ``keep_all`` is given its adapter."""
        raise AssertionError("the contract runs on one adapter")


@pytest.mark.trio
async def test_sync_pool_keeps_the_contract_of_all_adapters() -> None:
    """The blocking facade makes and breaks no promise of its own."""
    with SyncPool(ports=canned_ports(), pool_size=2) as pool:
        await Contract().keep_all(cast("Adapter", Threaded(pool, block)))


@pytest.mark.trio
async def test_asyncio_pool_keeps_the_contract_of_all_adapters() -> None:
    """Nor does the one for asyncio, with an event loop for each call."""
    pool = AsyncioPool(ports=canned_ports(), pool_size=2)
    asyncio.run(pool.open())
    try:
        await Contract().keep_all(cast("Adapter", Threaded(pool, run_loop)))
    finally:
        asyncio.run(pool.aclose())
