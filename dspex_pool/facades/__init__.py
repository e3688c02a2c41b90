"""The pool for programs without trio: blocking calls from any thread, and coroutines for asyncio."""

from dspex_pool.facades.asyncio import AsyncioAdapter, AsyncioPool
from dspex_pool.facades.sync import SyncAdapter, SyncPool

__all__ = ["AsyncioAdapter", "AsyncioPool", "SyncAdapter", "SyncPool"]
