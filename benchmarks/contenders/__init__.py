"""Who takes part: the raw limit, each layer of ours, and other pools."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.contender import Contender

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["CONTENDERS", "OURS", "PEERS", "POOLS", "RAW", "Contender", "Entry", "open_contender", "versions"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender."""

    #: The function of ``benchmarks.contenders`` that opens it, as ``module:function``.
    opens: str
    #: The distribution that it comes from; empty for the standard library.
    distribution: str = ""
    #: Whether it is big enough to be asked for.
    is_heavy: bool = False


#: The reference of all ratios.
RAW = "raw limit"

_PARTS = {"ours: port": "open_port", "ours: worker": "open_worker"}
_POOLS = {
    "ours: WorkerPool": "open_worker_pool",
    "ours: SessionPool": "open_session_pool",
    "ours: SessionPool, telemetry": "open_watched_session_pool",
    "ours: PythonPool": "open_python_pool",
    "ours: PythonPool, telemetry": "open_watched_python_pool",
}

_VARIANTS = {
    "ours: idempotent calls": "open_idempotent",
    "ours: template": "open_template",
    "ours: template, no grace": "open_strict_template",
}

CONTENDERS: dict[str, Entry] = {
    RAW: Entry("raw:open_raw"),
    **{name: Entry(f"ours:{opens}", "dspex-pool") for name, opens in (_PARTS | _POOLS | _VARIANTS).items()},
    "ProcessPoolExecutor": Entry("futures:open_executor"),
    "ProcessPoolExecutor, forkserver": Entry("futures:open_forkserver_executor"),
    "multiprocessing.Pool": Entry("futures:open_multiprocessing_pool"),
    "loky": Entry("futures:open_loky", "loky"),
    "Pebble": Entry("futures:open_pebble", "Pebble"),
    "trio-parallel": Entry("trio_peers:open_trio_parallel", "trio-parallel"),
    "anyio to_process": Entry("trio_peers:open_anyio", "anyio"),
    "Ray actors": Entry("heavy:open_ray", "ray", is_heavy=True),
    "Dask": Entry("heavy:open_dask", "distributed", is_heavy=True),
}

#: The layers of our path that are no pools yet, and those that are.
OURS = tuple(_PARTS | _POOLS)
PEERS = tuple(
    name
    for name in CONTENDERS
    if name != RAW and not name.startswith("ours: ") and not name.endswith("forkserver")
)
#: All that can serve many callers at once.
POOLS = (RAW, *_POOLS, *PEERS)


def open_contender(name: str, workers: int) -> AbstractAsyncContextManager[Contender]:
    """Open a contender with so many workers, all started.

    Raises:
        ImportError: It is not installed.
    """
    entry = CONTENDERS[name]
    module, _, function = entry.opens.partition(":")
    if entry.distribution:
        try:
            importlib.metadata.version(entry.distribution)
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(f"{entry.distribution} is not installed") from None
    opened: Any = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)(workers)
    return opened  # type: ignore[no-any-return] # the table of contenders holds openers only


def versions() -> dict[str, str]:
    """Return the versions of the distributions that take part and are installed."""
    found = {}
    for name in sorted({entry.distribution for entry in CONTENDERS.values()} - {""}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
