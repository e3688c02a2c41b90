"""Faults on the bytes between a worker and the pool: what becomes of a frame, and what proves it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dspex_pool.protocol.framing import HEADER_BYTES
from dspex_testkit.chaos.fault import Fault, Witness
from dspex_testkit.chaos.line import END, Change, Passage, Piece

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from dspex_testkit.chaos.injection import Injection

__all__ = ["LineFault", "RequestFault"]


class LineFault(Fault, frozen=True):
    """A fault of frames on their way from a worker to the pool."""

    #: The worker; ``None`` for all.
    worker: int | None = None
    #: How many frames it hits; ``None`` for all that come.
    times: int | None = 1

    def inject(self, to: Injection) -> Witness:
        """Change the next frames; the witness compares what went into the line with what came out."""
        tap = to.tap(self.worker)
        to.do(tap.set_change, lambda: self.change(to.numbers), self._times)
        return lambda: self.seen(tap.passages)

    @property
    def _times(self) -> float:
        return math.inf if self.times is None else self.times

    def change(self, numbers: random.Random) -> Change:
        """Return what is done to frames, with memory of its own if it needs any."""

        def change(frame: bytes | None) -> Iterable[Piece]:
            return () if frame is None else self.pieces(frame, numbers)

        return change

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Return what arrives instead of one frame: by default the frame."""
        return ((0.0, frame),)

    def seen(self, passages: Sequence[Passage]) -> list[str]:
        """Return evidence by what passed the tap."""
        return [line for passage in passages if (line := self.evidence(passage))]

    def evidence(self, passage: Passage) -> str:
        """Say what proves that a frame was hit; an empty text if nothing does, as by default."""
        return ""


class RequestFault(LineFault, frozen=True):
    """A fault of frames on their way from the pool to a worker."""

    def inject(self, to: Injection) -> Witness:
        """Change the next requests; the witness compares what went into the line with what came out."""
        tap = to.tap(self.worker)
        to.do(tap.set_change_of_requests, lambda: self.change(to.numbers), self._times)
        return lambda: self.seen(tap.requests)


def has_end(passage: Passage) -> bool:
    """Tell whether the stream ended on account of a frame."""
    return any(data is END for _, data in passage.left)


def flipped(frame: bytes, bits: int, numbers: random.Random) -> bytes:
    """Return a frame with that many bits of its payload turned over."""
    changed = bytearray(frame)
    places = range(8 * HEADER_BYTES, 8 * len(frame))
    # A piece that another fault has left of a frame may have fewer.
    for place in numbers.sample(places, min(bits, len(places))):
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def bits_between(left: bytes, right: bytes) -> int:
    """Count the bits in which two texts of the same length differ."""
    return (
        sum((a ^ b).bit_count() for a, b in zip(left, right, strict=True)) if len(left) == len(right) else 0
    )
