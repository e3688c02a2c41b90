"""A front door as its tests want it: with few workers, nothing that happens by itself, and a store that tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dspex_pool.config import PoolConfig
from dspex_pool.session_store import MemorySessionStore
from dspex_pool.supervisor import PoolSupervisor
from tests.session_workers import CALM

if TYPE_CHECKING:
    from collections.abc import Sized

    from dspex_pool.transport.port import PortFactory

__all__ = ["TalkativeStore", "supervise"]


class Living(Protocol):
    """Knows the workers that live."""

    @property
    def live(self) -> Sized:
        """Those."""


class TalkativeStore(MemorySessionStore):
    """Notes when it is closed, beside what workers are alive; refuses what it is told to."""

    def __init__(self, workers: Living) -> None:
        super().__init__()
        #: Workers that lived when it was closed, one entry for each closing.
        self.closings: list[int] = []
        #: What it raises instead of keeping anything.
        self.failure: Exception | None = None
        self.workers = workers

    async def _begin(self) -> None:
        await super()._begin()
        if self.failure is not None:
            raise self.failure

    async def aclose(self) -> None:
        self.closings.append(len(self.workers.live))
        await super().aclose()


def supervise(ports: PortFactory, **options: Any) -> PoolSupervisor:
    """Make a supervisor on these workers."""
    parts = {name: options.pop(name) for name in ("store", "telemetry") if name in options}
    config = PoolConfig(**(CALM | {"pool_size": 2} | options))
    return PoolSupervisor(config, ports=ports, **parts)
