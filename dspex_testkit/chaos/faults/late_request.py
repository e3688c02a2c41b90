"""Requests reach the worker later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import RequestFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["LateRequest"]


class LateRequest(RequestFault, frozen=True, kw_only=True):
    """Requests reach the worker later."""

    #: Seconds that each takes longer.
    seconds: float
    proof = "the request was written so much later than the pool sent it"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Delay it."""
        yield self.seconds, frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        late = passage.delay
        return f"a request took {late:.3g} s" if late >= 0.999 * self.seconds else ""
