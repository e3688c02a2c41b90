"""Two frames arrive in one read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Change, Passage, Piece

__all__ = ["Coalesce"]


class Coalesce(LineFault, frozen=True, kw_only=True):
    """Two frames arrive in one read: one is kept back until the next comes."""

    times: int | None = 2
    proof = "one read brought two frames of the worker"

    def change(self, numbers: random.Random) -> Change:
        """Keep every other frame back."""
        kept = bytearray()

        def change(frame: bytes | None) -> Iterable[Piece]:
            is_first = not kept
            kept.extend(frame or b"")
            if (frame is not None and is_first) or not kept:
                return ()
            both = bytes(kept)
            kept.clear()
            return ((0.0, both),)

        return change

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        is_double = passage.data != passage.frame and passage.data.endswith(passage.frame)
        return f"{len(passage.data)} bytes came at once" if is_double and len(passage.left) == 1 else ""
