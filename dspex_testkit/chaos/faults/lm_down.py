"""The connection to the language model breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import LM, Fault, Witness
from dspex_testkit.lm.script import describe
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
        script = to.script
        step = Step(kind="drop", text="", pieces=0)
        to.do(script.put_first, step, self.times)
        to.afterwards(script.withdraw, step)
        before = len(script.played)
        return lambda: [describe(other) for other in script.played[before:] if other == step]
