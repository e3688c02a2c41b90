"""A worker cannot let files grow any more."""

from __future__ import annotations

import errno
import os
import resource
from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import PROCESS, Fault, Witness
from dspex_testkit.chaos.system import lift_limit, set_limit

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["FileTooLarge"]


class FileTooLarge(Fault, frozen=True, kw_only=True):
    """A worker cannot let files grow any more."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: Bytes that a file may have.
    size: int = 0
    where = PROCESS
    proof = "an answer with the text of EFBIG was read"

    def inject(self, to: Injection) -> Witness:
        """Limit the size of its files."""
        victim = to.victim(self.worker)
        tap = to.tap(self.worker)
        to.do(set_limit, victim.pid, resource.RLIMIT_FSIZE, self.size)
        to.afterwards(lift_limit, victim.pid, resource.RLIMIT_FSIZE)
        return lambda: ["EFBIG" for each in tap.passages if os.strerror(errno.EFBIG).encode() in each.frame]
