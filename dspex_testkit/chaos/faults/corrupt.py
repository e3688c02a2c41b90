"""Bits of an answer turn over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import LineFault, bits_between, flipped

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["Corrupt"]


class Corrupt(LineFault, frozen=True, kw_only=True):
    """Bits of an answer turn over."""

    #: How many bits; the length of the frame stays as it is.
    bits: int = 1
    proof = "the bytes that came differ in so many bits from those that the worker wrote"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Turn bits over."""
        yield 0.0, flipped(frame, self.bits, numbers)

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        bits = bits_between(passage.frame, passage.data)
        return f"{bits} bits differ" if bits == self.bits else ""
