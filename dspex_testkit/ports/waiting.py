"""Waiting, within a bound, for what nobody announces, in the time of the trio run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SOON", "until"]

#: Seconds for whatever must happen soon and is not announced.
SOON: Final = 20.0

# Seconds between two looks: short against what a process takes, long against what looking costs. Where time is
# simulated, looking costs a jump of the clock, and nothing is lost by a longer one.
_PAUSE, _PAUSE_SIMULATED = 0.002, 0.1


async def until(
    condition: Callable[[], object], what: str = "it comes true", *, within: float = SOON, also: Any = None
) -> None:
    """Wait until ``condition()`` holds.

    Args:
        condition: Looked at again and again.
        what: What is waited for, for the error.
        within: Seconds.
        also: Called for what the error says besides.

    Raises:
        AssertionError: It does not hold in time.

    Cancellation: Changes nothing.
    """
    is_simulated = isinstance(trio.lowlevel.current_clock(), MockClock)
    with trio.move_on_after(within):
        while not condition():
            await trio.sleep(_PAUSE_SIMULATED if is_simulated else _PAUSE)
        return
    more = f"; {also()}" if also is not None else ""
    raise AssertionError(f"waited {within:g} s in vain until {what}{more}")
