"""The stream of answers ends after an answer, though the worker still reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line import END
from dspex_testkit.chaos.line_fault import LineFault, has_end

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["HalfClose"]


class HalfClose(LineFault, frozen=True, kw_only=True):
    """The stream of answers ends after an answer, though the worker still reads."""

    proof = "the end of the stream came right after a whole frame"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """End the stream after it."""
        yield 0.0, frame
        yield 0.0, END

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        return "the end came after a frame" if has_end(passage) and passage.data == passage.frame else ""
