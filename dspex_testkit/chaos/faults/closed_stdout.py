"""The stream of answers ends instead of an answer, though the worker lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line import END
from dspex_testkit.chaos.line_fault import LineFault, has_end

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["ClosedStdout"]


class ClosedStdout(LineFault, frozen=True, kw_only=True):
    """The stream of answers ends instead of an answer, though the worker lives."""

    proof = "the end of the stream came instead of a frame that the worker had written"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """End the stream."""
        yield 0.0, END

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        return "the end came instead of a frame" if has_end(passage) and not passage.data else ""
