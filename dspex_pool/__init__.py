"""Pools of warm, isolated Python worker processes for DSPy programs.

The public names are looked up when they are asked for, so that the worker process, which imports this package too,
loads neither trio nor the pool.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex_pool.adapters import Adapter, PythonPool, PythonPort
    from dspex_pool.config import PoolConfig, PoolOptions
    from dspex_pool.facades import AsyncioPool, SyncPool
    from dspex_pool.session_call import ANONYMOUS, Reply
    from dspex_pool.session_pool import SessionPool
    from dspex_pool.session_store import MemorySessionStore, SqliteSessionStore
    from dspex_pool.supervisor import PoolSupervisor
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPortFactory
    from dspex_pool.transport.template import TemplatePortFactory
    from dspex_pool.worker_pool import WorkerPool

__all__ = [
    "ANONYMOUS",
    "Adapter",
    "AsyncioPool",
    "MemorySessionStore",
    "PoolConfig",
    "PoolOptions",
    "PoolSupervisor",
    "PythonPool",
    "PythonPort",
    "Reply",
    "SessionPool",
    "SqliteSessionStore",
    "SubprocessOptions",
    "SubprocessPortFactory",
    "SyncPool",
    "Telemetry",
    "TemplatePortFactory",
    "WorkerPool",
    "__version__",
]

__version__ = "0.1.0"

_HOMES = {
    "ANONYMOUS": "session_call",
    "Adapter": "adapters",
    "AsyncioPool": "facades",
    "MemorySessionStore": "session_store",
    "PoolConfig": "config",
    "PoolOptions": "config",
    "PoolSupervisor": "supervisor",
    "PythonPool": "adapters",
    "PythonPort": "adapters",
    "Reply": "session_call",
    "SessionPool": "session_pool",
    "SqliteSessionStore": "session_store",
    "SubprocessOptions": "transport.subprocess",
    "SubprocessPortFactory": "transport.subprocess",
    "SyncPool": "facades",
    "Telemetry": "telemetry",
    "TemplatePortFactory": "transport.template",
    "WorkerPool": "worker_pool",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
