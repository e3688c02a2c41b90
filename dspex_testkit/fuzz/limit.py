"""A limit for one played case: what uses up its CPU time goes round and round."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NeverEndsError", "limited"]


class NeverEndsError(BaseException):
    """A case used up its CPU time."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise ``NeverEndsError`` in the block once it has used ``seconds`` of CPU time; for the main thread."""

    def strike(*_: object) -> None:
        raise NeverEndsError(f"no end after {seconds:g} CPU s")

    before = signal.signal(signal.SIGPROF, strike)
    # Again and again: the first may strike where errors are kept to themselves, as in a finalizer.
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
