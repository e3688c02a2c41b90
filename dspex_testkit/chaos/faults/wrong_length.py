"""An answer announces some bytes more or less than it has."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from dspex_pool.protocol.framing import HEADER_BYTES, LARGEST_FRAME_BYTES
from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["WrongLength"]


class WrongLength(LineFault, frozen=True, kw_only=True):
    """An answer announces some bytes more or less than it has."""

    #: Bytes that it announces too many; below zero too few.
    size: int = -1
    least = MappingProxyType({"size": -math.inf})
    proof = "the length that came differs by so many bytes from that of the worker"

    def __post_init__(self) -> None:
        LineFault.__post_init__(self)
        if self.size == 0:
            raise ValueError("WrongLength: size = 0 is refused: the length would be right")

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Announce another length."""
        size = min(max(0, int.from_bytes(frame[:HEADER_BYTES], "big") + self.size), LARGEST_FRAME_BYTES)
        yield 0.0, size.to_bytes(HEADER_BYTES, "big") + frame[HEADER_BYTES:]

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        was, came = (int.from_bytes(data[:HEADER_BYTES], "big") for data in (passage.frame, passage.data))
        return f"{was} bytes were announced as {came}" if passage.left and came - was == self.size else ""
