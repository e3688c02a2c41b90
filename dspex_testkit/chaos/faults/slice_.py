"""Answers arrive in small pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Slice"]


class Slice(LineFault, frozen=True, kw_only=True):
    """Answers arrive in small pieces."""

    #: Bytes of a piece; 0 to have each drawn.
    size: int = 0
    times: int | None = None
    proof = "one frame came in several reads"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Cut it."""
        while frame:
            size = self.size or numbers.randint(1, 8)
            yield 0.0, frame[:size]
            frame = frame[size:]

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        reads = len(passage.left)
        return f"{reads} reads for one frame" if reads > 1 and passage.data == passage.frame else ""
