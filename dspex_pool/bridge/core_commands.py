"""The commands that every worker has: ``ping``, ``get_stats`` and ``shutdown``."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.versions import installed_version, is_installed
from dspex_pool.protocol.conversation import PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.bridge.handler import Command, HandlerContext

__all__ = ["CoreCommands"]

_CAPABILITIES = ("cancel", "log")
#: Where Linux tells a process how many pages of memory it has.
STATUS_FILE = "/proc/self/statm"


class CoreCommands:
    """What a worker tells of itself, with what its handler adds.

    Args:
        context: The worker.
    """

    def __init__(self, context: HandlerContext) -> None:
        self._context = context
        self._handler: Any = None
        self.commands: Mapping[str, Command] = {
            "ping": self._ping,
            "get_stats": self._get_stats,
            "shutdown": self._shutdown,
        }

    def serve(self, handler: Any) -> None:
        """Say which handler adds to the answers."""
        self._handler = handler

    def _ping(self, args: dict[str, Any]) -> dict[str, Any]:
        context = self._context
        facts: dict[str, Any] = {
            "status": "ok",
            "timestamp": time.time(),
            "uptime": time.monotonic() - context.started,
            "mode": context.mode,
            "dspy_available": is_installed("dspy"),
        }
        if context.mode == "pool-worker":
            facts["worker_id"] = context.worker_id
        facts |= self._added("ping_facts")
        return facts | self._version_2_facts() if context.protocol() >= 2 else facts

    def _version_2_facts(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL_VERSION,
            "pid": os.getpid(),
            "versions": {
                "python": ".".join(map(str, sys.version_info[:3])),
                "dspy": installed_version("dspy"),
                "bridge": installed_version("dspex_pool"),
            },
            "capabilities": [*_CAPABILITIES, *getattr(self._handler, "capabilities", ())],
        }

    def _get_stats(self, args: dict[str, Any]) -> dict[str, Any]:
        counters = self._context.counters
        return {
            "programs_count": 0,
            "command_count": counters.command_count,
            "error_count": counters.error_count,
            "uptime": time.monotonic() - self._context.started,
            "memory_usage": memory_usage(),
            "dspy_available": is_installed("dspy"),
        } | self._added("statistics")

    def _shutdown(self, args: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": "shutting_down",
            "worker_id": self._context.worker_id,
            "mode": self._context.mode,
            "sessions_cleaned": 0,
        } | self._added("close")

    def _added(self, hook: str) -> dict[str, Any]:
        ask = getattr(self._handler, hook, None)
        return dict((ask() if ask else None) or {})


def memory_usage() -> dict[str, float]:
    """Return this process's memory: ``rss`` and ``vms`` in bytes, and ``percent`` of the machine's memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        virtual, resident = (int(pages) * page for pages in Path(STATUS_FILE).read_text().split()[:2])
    except OSError:
        # Without /proc only the peak is known, which macOS counts in bytes.
        virtual = resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = os.sysconf("SC_PHYS_PAGES") * page
    return {"rss": resident, "vms": virtual, "percent": 100.0 * resident / total}
