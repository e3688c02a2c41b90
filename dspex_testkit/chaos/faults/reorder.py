"""Two frames arrive in the wrong order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Change, Passage, Piece

__all__ = ["Reorder"]


class Reorder(LineFault, frozen=True, kw_only=True):
    """Two frames arrive in the wrong order: one is kept back until the next has gone by."""

    times: int | None = 2
    proof = "the earlier of two frames of the worker came after the later"

    def change(self, numbers: random.Random) -> Change:
        """Let every other frame overtake."""
        kept: list[bytes] = []

        def change(frame: bytes | None) -> Iterable[Piece]:
            if frame is not None and not kept:
                kept.append(frame)
                return ()
            pieces = tuple((0.0, data) for data in (frame, *kept) if data is not None)
            kept.clear()
            return pieces

        return change

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        is_early = len(passage.left) == 2 and passage.left[0][1] == passage.frame
        return "a frame came before an earlier one" if is_early else ""
