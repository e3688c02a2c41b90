"""An answer carries the id of a request that nobody made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dspex_pool.protocol.framing import encode_frame
from dspex_testkit.chaos.line import payload_of
from dspex_testkit.chaos.line_fault import LineFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["WrongId"]


class WrongId(LineFault, frozen=True, kw_only=True):
    """An answer carries the id of a request that nobody made."""

    #: The id.
    id: int = 2**40
    proof = "the id that came is another than the worker wrote"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Give it another id."""
        message = json.loads(payload_of(frame))
        yield 0.0, encode_frame(json.dumps({**message, "id": self.id}).encode())

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        if len(passage.left) != 1 or passage.data == passage.frame:
            return ""
        was, came = (json.loads(payload_of(frame))["id"] for frame in (passage.frame, passage.data))
        return f"id {was} came as {came}" if was != came else ""
