"""Lines of bytes between a worker and the pool, with taps on them: what a tap changes, and what passed it.

A tap keeps what went in and what came out of it, each with its time. Faults on bytes prove themselves by the
difference, which is the same whether the worker is simulated, a server or a process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from dspex_pool.protocol.framing import HEADER_BYTES

__all__ = ["END", "Change", "Passage", "Piece", "Tap", "payload_of"]

#: Stands for the end of the stream.
END = None
#: Seconds to wait, and the bytes that arrive then, or ``END``.
Piece: TypeAlias = tuple[float, bytes | None]
#: What a fault makes of a frame that goes over a line; ``None`` asks for what it has kept back, at its end.
Change: TypeAlias = Callable[["bytes | None"], Iterable[Piece]]


def payload_of(frame: bytes) -> bytes:
    """Return what a frame carries."""
    return frame[HEADER_BYTES:]


@dataclass(slots=True)
class Passage:
    """One frame that came to a tap, and what came out for it."""

    frame: bytes
    #: When it came, in seconds of trio's clock.
    came_at: float
    #: What arrived at the other end, and when.
    left: list[tuple[float, bytes | None]] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """All bytes that arrived on account of the frame."""
        return b"".join(data for _, data in self.left if data is not None)

    @property
    def delay(self) -> float:
        """Seconds until the last of it had arrived; 0 if nothing did."""
        return self.left[-1][0] - self.came_at if self.left else 0.0


class Tap:
    """What happens to the frames on the lines of one worker, or of all.

    Args:
        worker_id: Name of the worker; ``None`` for all.
    """

    def __init__(self, worker_id: str | None) -> None:
        self.worker_id = worker_id
        #: What came to it from workers, in order.
        self.passages: list[Passage] = []
        #: The requests that came to it from the pool, in order.
        self.requests: list[Passage] = []
        self._make: Callable[[], Change] | None = None
        self._make_of_requests: Callable[[], Change] | None = None
        # Of each line, what is done to its frames: what was kept back of one must not come out of another.
        self._changes: dict[object, Change] = {}
        self._left = 0.0

    def set_change(self, make: Callable[[], Change], times: float) -> None:
        """Have the next frames of workers changed, so many, on each line by a change of its own."""
        self._make, self._left = make, times

    def set_change_of_requests(self, make: Callable[[], Change], times: float) -> None:
        """Have the next requests changed, so many."""
        self._make_of_requests, self._left = make, times

    def is_for(self, worker_id: str) -> bool:
        """Tell whether it sits on the line of a worker."""
        return self.worker_id in (None, worker_id)

    def pass_answer(self, frame: bytes, line: object) -> tuple[Passage, Sequence[Piece]]:
        """Take a frame of a worker; return what is to arrive at the pool."""
        passage = Passage(frame, trio.current_time())
        self.passages.append(passage)
        return passage, self._changed(self._make, frame, line)

    def pass_request(self, frame: bytes, line: object) -> tuple[Passage, Sequence[Piece]]:
        """Take a frame of the pool; return what is to arrive at the worker."""
        passage = Passage(frame, trio.current_time())
        self.requests.append(passage)
        return passage, self._changed(self._make_of_requests, frame, line)

    def rest(self, line: object) -> Sequence[Piece]:
        """Return what was kept back of a line, when the tap is taken off."""
        change = self._changes.pop(line, None)
        return () if change is None else tuple(change(None))

    def _changed(self, make: Callable[[], Change] | None, frame: bytes, line: object) -> Sequence[Piece]:
        if make is None or self._left <= 0:
            return ((0.0, frame),)
        self._left -= 1
        if line not in self._changes:
            self._changes[line] = make()
        return tuple(self._changes[line](frame))
