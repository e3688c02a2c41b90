"""A worker gets no more descriptors."""

from __future__ import annotations

import errno
import os
import resource
from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import PROCESS, Fault, Witness
from dspex_testkit.chaos.system import lift_limit, lowest_free_descriptor, set_limit

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["DescriptorExhaustion"]


class DescriptorExhaustion(Fault, frozen=True, kw_only=True):
    """A worker gets no more descriptors."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    where = PROCESS
    proof = "an answer with the text of EMFILE was read"

    def inject(self, to: Injection) -> Witness:
        """Limit its descriptors to those that it has."""
        victim = to.victim(self.worker)
        tap = to.tap(self.worker)
        to.do(set_limit, victim.pid, resource.RLIMIT_NOFILE, lowest_free_descriptor(victim.pid))
        to.afterwards(lift_limit, victim.pid, resource.RLIMIT_NOFILE)
        return lambda: ["EMFILE" for each in tap.passages if os.strerror(errno.EMFILE).encode() in each.frame]
