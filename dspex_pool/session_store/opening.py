"""From the setting ``session_store`` to an open store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.session_store.memory import MemorySessionStore
from dspex_pool.session_store.sqlite import SqliteSessionStore

if TYPE_CHECKING:
    from dspex_pool.session_store.records import SessionStore

__all__ = ["open_session_store"]


async def open_session_store(setting: str) -> SessionStore:
    """Open the store that ``memory`` or ``sqlite:PATH`` stands for.

    Raises:
        InvalidConfigError: There is no such kind of store, or the file cannot be used.

    Cancellation: before a file is touched, nothing has happened; afterwards the store is returned.
    """
    kind, _, path = setting.partition(":")
    if kind == "sqlite":
        return await SqliteSessionStore.open(path)
    return MemorySessionStore()
