"""The language model answers what no program understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import LM, Fault, Witness
from dspex_testkit.lm.steps import Step

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["LmNonsense"]


class LmNonsense(Fault, frozen=True, kw_only=True):
    """The language model answers what no program understands."""

    #: What it answers.
    text: str = "Colourless green ideas sleep furiously."
    #: How often; DSPy asks twice.
    times: int = 2
    where = LM
    proof = "the model carried the step out, with a request that it was asked"

    def inject(self, to: Injection) -> Witness:
        """Have it talk."""
        step = Step(kind="reply", text=self.text)
        return to.play(step, self.times)
