"""Random bytes stand before an answer."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Garbage"]


class Garbage(LineFault, frozen=True, kw_only=True):
    """Random bytes stand before an answer."""

    #: How many.
    size: int = 16
    least = MappingProxyType({"size": 1})
    proof = "so many bytes that the worker did not write came before its frame"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Put something before it."""
        yield 0.0, numbers.randbytes(self.size) + frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        more = len(passage.data) - len(passage.frame)
        is_hit = more == self.size and passage.data.endswith(passage.frame)
        return f"{more} bytes came before a frame" if is_hit else ""
