"""The end of an answer gets lost, and the stream goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault, has_end

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["LostTail"]


class LostTail(LineFault, frozen=True, kw_only=True):
    """The end of an answer gets lost, and the stream goes on."""

    #: Bytes that get lost.
    size: int = 3
    proof = "a frame came without its last bytes, and no end came"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Lose its end."""
        yield 0.0, frame[: -self.size]

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        lost = len(passage.frame) - len(passage.data)
        is_lost = passage.left and not has_end(passage) and passage.frame.startswith(passage.data)
        return f"{lost} bytes got lost" if is_lost and lost == self.size else ""
