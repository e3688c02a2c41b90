"""An answer carries the id of a request that nobody made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

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
        message = _message_of(frame)
        # Another fault may have been at it.
        yield 0.0, frame if message is None else encode_frame(json.dumps({**message, "id": self.id}).encode())

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        was, came = _message_of(passage.frame), _message_of(passage.data)
        if was is None or came is None or was["id"] == came["id"]:
            return ""
        return f"id {was['id']} came as {came['id']}"


def _message_of(frame: bytes) -> Any:
    try:
        message = json.loads(payload_of(frame))
    except ValueError:
        return None
    return message if isinstance(message, dict) and "id" in message else None
