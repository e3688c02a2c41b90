"""The language model fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import LM, Fault, Witness
from dspex_testkit.lm.steps import Step

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["LmFailing"]


class LmFailing(Fault, frozen=True, kw_only=True):
    """The language model fails."""

    #: Its status of HTTP.
    status: int = 500
    #: How often; DSPy tries four times.
    times: int = 4
    where = LM
    proof = "the model carried the step out, with a request that it was asked"

    def inject(self, to: Injection) -> Witness:
        """Have it fail."""
        step = Step(kind="fail", status=self.status, message="failing, as ordered", retry_after=0.0)
        return to.play(step, self.times)
