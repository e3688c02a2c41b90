"""Answers arrive later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Latency"]


class Latency(LineFault, frozen=True, kw_only=True):
    """Answers arrive later."""

    #: Seconds that each takes longer.
    seconds: float
    times: int | None = None
    proof = "the bytes arrived so much later than the worker wrote them"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Delay it."""
        yield self.seconds, frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        late = passage.delay
        return (
            f"a frame took {late:.3g} s"
            if passage.data == passage.frame and late >= 0.999 * self.seconds
            else ""
        )
