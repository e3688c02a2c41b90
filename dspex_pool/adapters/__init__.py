"""The session-aware public API: on a pool, and on one process."""

from dspex_pool.adapters.base import ANONYMOUS, Adapter, Signature
from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.adapters.python_port import PythonPort

__all__ = ["ANONYMOUS", "Adapter", "PythonPool", "PythonPort", "Signature"]
