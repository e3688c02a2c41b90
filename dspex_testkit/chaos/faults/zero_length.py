"""An empty frame arrives before an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.protocol.framing import HEADER_BYTES
from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["ZeroLength"]


class ZeroLength(LineFault, frozen=True, kw_only=True):
    """An empty frame arrives before an answer."""

    proof = "a length of zero came, and then the frame as it was"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Put an empty frame before it."""
        yield 0.0, bytes(HEADER_BYTES) + frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        return "an empty frame came" if passage.data == bytes(HEADER_BYTES) + passage.frame else ""
