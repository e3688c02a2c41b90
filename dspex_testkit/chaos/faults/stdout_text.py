"""Text stands before an answer, as of a program that prints to stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["StdoutText"]


class StdoutText(LineFault, frozen=True, kw_only=True):
    """Text stands before an answer, as of a program that prints to stdout."""

    #: The text.
    text: str = "Loading model...\n"
    proof = "the text came before a frame"

    def __post_init__(self) -> None:
        LineFault.__post_init__(self)
        if not self.text:
            raise ValueError("StdoutText: text = '' is refused: nothing would be printed")

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Print before it."""
        yield 0.0, self.text.encode() + frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        return "text came before a frame" if passage.data == self.text.encode() + passage.frame else ""
