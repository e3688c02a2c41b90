"""Waiting, within a bound, for what nobody announces: the end of a process, a number that must change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

from dspex_testkit.ports import waiting

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["has_ended", "until", "wait_until"]

#: Seconds between two looks.
_PAUSE = 0.005
#: Seconds within which it must have happened. Busy machines take long; who waits in vain fails anyway.
_BOUND = 20.0


async def until(condition: Callable[[], object], what: str, *, seconds: float = _BOUND) -> None:
    """Wait until ``condition`` holds.

    Raises:
        AssertionError: It does not within ``seconds``; says ``what`` did not happen.

    Cancellation: Nothing was begun.
    """
    await waiting.until(condition, what, within=seconds)


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = _BOUND) -> None:
    """Wait, without trio, until ``condition`` holds.

    Raises:
        AssertionError: It does not within ``seconds``; says ``what`` did not happen.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        time.sleep(_PAUSE)


def has_ended(pid: int) -> bool:
    """Tell whether a process does nothing any more; a zombie waits for its parent, who may be somebody else."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
