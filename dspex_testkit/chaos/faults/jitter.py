"""Each answer arrives later by a time that is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Jitter"]


class Jitter(LineFault, frozen=True, kw_only=True):
    """Each answer arrives later by a time that is drawn."""

    #: Seconds that it takes longer at most; a tenth of that at least.
    seconds: float
    times: int | None = None
    proof = "the bytes arrived later than the worker wrote them, within the bounds"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Delay it by chance."""
        yield self.seconds * numbers.uniform(0.1, 1.0), frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        late = passage.delay
        return f"a frame took {late:.3g} s" if late >= self.seconds / 10 else ""
