"""A worker writes more to stderr than a pipe holds, and then answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import Fault, Witness
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["StderrFlood"]


class StderrFlood(Fault, frozen=True, kw_only=True):
    """A worker writes more to stderr than a pipe holds, and then answers."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: How much.
    size: int = 200_000
    proof = "the last line of it was read from stderr"

    def inject(self, to: Injection) -> Witness:
        """Have it write when it is next asked for something."""
        victim = to.victim(self.worker)
        end = f"end of flood {to.numbers.randrange(10**9)}"
        line = "e" * 79 + "\n"
        text = line * (self.size // len(line) + 1) + end + "\n"
        to.order(Plan().stderr(text).reply(None), worker=self.worker)
        return lambda: [end] if end in victim.stderr_tail else []
