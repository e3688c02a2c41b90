"""Answers trickle over a thin line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Bandwidth"]


class Bandwidth(LineFault, frozen=True, kw_only=True):
    """Answers trickle over a thin line."""

    #: Bytes that the line carries in a second.
    bytes_per_second: float
    times: int | None = None
    proof = "the bytes came in several pieces and no faster than the line is"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Let it trickle, a sixteenth at a time."""
        step = max(1, len(frame) // 16)
        for begin in range(0, len(frame), step):
            piece = frame[begin : begin + step]
            yield (begin + len(piece)) / self.bytes_per_second, piece

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        slowest = len(passage.frame) / self.bytes_per_second
        is_slow = len(passage.left) > 1 and passage.delay >= slowest * 0.999
        return f"{len(passage.frame)} bytes took {passage.delay:.3g} s" if is_slow else ""
