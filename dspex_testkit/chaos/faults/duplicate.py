"""An answer arrives twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Duplicate"]


class Duplicate(LineFault, frozen=True, kw_only=True):
    """An answer arrives twice."""

    proof = "the same bytes came twice for one frame"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Repeat it."""
        yield 0.0, frame
        yield 0.0, frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        return "a frame came twice" if passage.data == 2 * passage.frame else ""
