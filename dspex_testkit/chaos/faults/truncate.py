"""An answer breaks off, and the stream ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line import END
from dspex_testkit.chaos.line_fault import LineFault, has_end

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Truncate"]


class Truncate(LineFault, frozen=True, kw_only=True):
    """An answer breaks off, and the stream ends."""

    #: Bytes of it that arrive.
    size: int = 10
    proof = "only the first bytes of a frame came before the end"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Keep its beginning."""
        yield 0.0, frame[: min(self.size, len(frame) - 1)]
        yield 0.0, END

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        got = passage.data
        is_cut = has_end(passage) and len(got) < len(passage.frame) and passage.frame.startswith(got)
        return f"{len(got)} of {len(passage.frame)} bytes came" if is_cut else ""
