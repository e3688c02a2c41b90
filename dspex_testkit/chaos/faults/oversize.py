"""An answer announces more bytes than a frame may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.protocol.framing import HEADER_BYTES
from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Oversize"]


class Oversize(LineFault, frozen=True, kw_only=True):
    """An answer announces more bytes than a frame may have."""

    #: Bytes that it announces.
    size: int = 2**30
    proof = "the length that came is so many bytes, the worker wrote another"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Announce too much."""
        yield 0.0, self.size.to_bytes(HEADER_BYTES, "big") + frame[HEADER_BYTES:]

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        size = int.from_bytes(passage.data[:HEADER_BYTES], "big")
        return f"{size} bytes were announced" if passage.left and size == self.size else ""
