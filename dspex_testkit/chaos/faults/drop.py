"""An answer gets lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Drop"]


class Drop(LineFault, frozen=True, kw_only=True):
    """An answer gets lost."""

    proof = "a frame of the worker was taken from its pipe, and time passed, and nothing of it came"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Lose it."""
        return ()

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        is_lost = not passage.left and trio.current_time() > passage.came_at
        return f"{len(passage.frame)} bytes got lost" if is_lost else ""
