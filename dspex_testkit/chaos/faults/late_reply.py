"""One answer is so late that its caller may have left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["LateReply"]


class LateReply(LineFault, frozen=True, kw_only=True):
    """One answer is so late that its caller may have left."""

    #: Seconds that it takes longer.
    seconds: float
    proof = "the worker had written the answer, and nothing of it came for so long"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Delay it."""
        yield self.seconds, frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        late = passage.delay if passage.left else trio.current_time() - passage.came_at
        return f"nothing came for {late:.3g} s" if late >= 0.999 * self.seconds else ""
