"""Facades on mock workers, for tests of what the facades do themselves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from dspex_pool.facades import AsyncioPool, SyncPool
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_testkit.mock_port import MockPort

__all__ = ["SIGNATURE", "Stuck", "asyncio_pool", "mock_ports", "sync_pool"]

SIGNATURE = "question -> answer"


def mock_ports(**answers: Any) -> MockPortFactory:
    """Return mock workers that serve canned programs, and ``answers`` by command."""

    def script(port: MockPort) -> None:
        port.answer_rest(CannedBridge(canned={SIGNATURE: lambda inputs: {"answer": inputs["question"]}}).plan)
        for command, answer in answers.items():
            port.answer(command, answer)

    return MockPortFactory(script)


def sync_pool(ports: MockPortFactory | None = None, **settings: Any) -> SyncPool:
    """Return a small pool of mock workers, not open yet."""
    return SyncPool(ports=ports if ports is not None else mock_ports(), **{"pool_size": 2, **settings})


def asyncio_pool(ports: MockPortFactory | None = None, **settings: Any) -> AsyncioPool:
    """Return the same for asyncio."""
    return AsyncioPool(ports=ports if ports is not None else mock_ports(), **{"pool_size": 2, **settings})


class Stuck:
    """An answer that never comes, and news of who waits for it."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.arrivals = 0
        self.on_arrival: Callable[[], object] = lambda: None

    def __call__(self, args: dict[str, Any]) -> Plan:
        self.arrived.set()
        self.arrivals += 1
        self.on_arrival()
        return Plan().stall()
