"""The language model refuses because it was asked too often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import LM, Fault, Witness
from dspex_testkit.lm.steps import Step

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["LmRateLimited"]


class LmRateLimited(Fault, frozen=True, kw_only=True):
    """The language model refuses because it was asked too often."""

    #: Seconds after which it may be asked again, as it says.
    retry_after: float = 0.0
    #: How often; DSPy tries four times.
    times: int = 4
    where = LM
    proof = "the model carried the step out, with a request that it was asked"

    def inject(self, to: Injection) -> Witness:
        """Have it refuse."""
        step = Step(
            kind="fail",
            status=429,
            message="Rate limit",
            code="rate_limit_exceeded",
            retry_after=self.retry_after,
        )
        return to.play(step, self.times)
