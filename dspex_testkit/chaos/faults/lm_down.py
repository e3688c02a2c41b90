"""The connection to the language model breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import LM, Fault, Witness
from dspex_testkit.lm.steps import Step

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["LmDown"]


class LmDown(Fault, frozen=True, kw_only=True):
    """The connection to the language model breaks."""

    #: How often; DSPy tries four times.
    times: int = 4
    where = LM
    proof = "the model carried the step out, with a request that it was asked"

    def inject(self, to: Injection) -> Witness:
        """Have it break."""
        step = Step(kind="drop", text="", pieces=0)
        return to.play(step, self.times)
