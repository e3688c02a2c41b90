"""An answer announces a length that would be below zero if it had a sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.protocol.framing import HEADER_BYTES
from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["NegativeLength"]


class NegativeLength(LineFault, frozen=True, kw_only=True):
    """An answer announces a length that would be below zero if it had a sign."""

    proof = "the length that came has its highest bit set"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Set all bits."""
        yield 0.0, b"\xff" * HEADER_BYTES + frame[HEADER_BYTES:]

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        return "the length came with its highest bit" if passage.data[:1] >= b"\x80" else ""
