"""Reading a process's stderr for as long as it lives, so that it never waits for anybody to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.logs import PoolLog
from dspex_pool.transport.pipes import PipeReader
from dspex_pool.transport.stderr_tail import LineCutter, StderrTail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LAST_STDERR_WAIT", "ForgivingHandler", "StderrDrain"]

_LOG = PoolLog("dspex_pool.transport")

#: Seconds after a process's end in which its stderr is still read, if somebody else holds it open. What the process
#: wrote is there already. Less than who asked it waits for the news of its end (``worker.EXIT_NEWS_TIMEOUT``).
LAST_STDERR_WAIT = 0.25


class ForgivingHandler:
    """A handler of stderr lines whose errors reach the log, the first of them only, and nobody else."""

    def __init__(self, handler: Callable[[str, str], None]) -> None:
        self._handler = handler
        self._has_failed = False

    def __call__(self, worker_id: str, line: str) -> None:
        try:
            self._handler(worker_id, line)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                _LOG.exception("%r failed on stderr of worker %s; told once", self._handler, worker_id)


class StderrDrain:
    """Reads one process's stderr.

    Args:
        descriptor: Where to read it. It is the drain's own from here on.
        name: Who writes there.
        on_line: Called with ``name`` and each line; must not raise.
        tail_bytes: Most bytes to keep.
    """

    def __init__(
        self, descriptor: int, name: str, on_line: Callable[[str, str], None] | None, *, tail_bytes: int
    ) -> None:
        self._reader = PipeReader(descriptor)
        self._name = name
        self._on_line = on_line
        self._tail = StderrTail(tail_bytes)
        self._lines = LineCutter()

    @property
    def tail(self) -> str:
        """The last lines, as far as they have been read."""
        return self._tail.text

    async def drain(self) -> None:
        """Read until the stream ends.

        Cancellation:
            What was read is kept; drain again.
        """
        data: bytes | None = None
        while data != b"":
            await self._reader.wait()
            data = self._reader.read_now()
            self._take(data or b"")

    def _take(self, data: bytes) -> None:
        self._tail.feed(data)
        self._tell(self._lines.feed(data))

    def _tell(self, lines: list[str]) -> None:
        if self._on_line is not None:
            for line in lines:
                self._on_line(self._name, line)

    def close(self) -> None:
        """Close the descriptor, and tell the last line if nothing ended it."""
        self._reader.close()
        self._tell(self._lines.finish())
