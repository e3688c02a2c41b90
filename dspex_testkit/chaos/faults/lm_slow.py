"""The language model is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import LM, Fault, Witness
from dspex_testkit.lm.steps import Step

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["LmSlow"]


class LmSlow(Fault, frozen=True, kw_only=True):
    """The language model is slow."""

    #: Seconds before it answers.
    seconds: float
    #: What it then answers.
    text: str = "late"
    #: How often.
    times: int = 1
    where = LM
    proof = "the model carried the step out, with a request that it was asked"

    def inject(self, to: Injection) -> Witness:
        """Have it wait."""
        step = Step(kind="reply", text=self.text, delay=self.seconds)
        return to.play(step, self.times)
