"""A request reaches the worker twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.line_fault import RequestFault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from dspex_testkit.chaos.line import Passage, Piece

__all__ = ["DuplicateRequest"]


class DuplicateRequest(RequestFault, frozen=True, kw_only=True):
    """A request reaches the worker twice."""

    proof = "the worker was sent the same bytes twice for one request"

    def pieces(self, frame: bytes, numbers: random.Random) -> Iterable[Piece]:
        """Send it twice."""
        yield 0.0, frame
        yield 0.0, frame

    def evidence(self, passage: Passage) -> str:
        """Compare."""
        return "a request was sent twice" if passage.data == 2 * passage.frame else ""
