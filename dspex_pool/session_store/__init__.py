"""Sessions that outlive workers: what is kept of them, and where."""

from dspex_pool.session_store.memory import MemorySessionStore
from dspex_pool.session_store.opening import open_session_store
from dspex_pool.session_store.records import ExecutionTotal, ProgramRecord, SessionRecord, SessionStore
from dspex_pool.session_store.sqlite import SqliteSessionStore

__all__ = [
    "ExecutionTotal",
    "MemorySessionStore",
    "ProgramRecord",
    "SessionRecord",
    "SessionStore",
    "SqliteSessionStore",
    "open_session_store",
]
