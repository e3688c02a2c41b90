"""The language model breaks off in the middle of a streamed answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import LM, Fault, Witness
from dspex_testkit.lm.steps import Step

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["LmCutStream"]


class LmCutStream(Fault, frozen=True, kw_only=True):
    """The language model breaks off in the middle of a streamed answer."""

    #: Pieces that come before.
    pieces: int = 1
    #: How often.
    times: int = 1
    where = LM
    proof = "the model carried the step out, with a request that it was asked"

    def inject(self, to: Injection) -> Witness:
        """Have it break off."""
        step = Step(kind="drop", text="It was a dark and stormy night", pieces=self.pieces)
        return to.play(step, self.times)
