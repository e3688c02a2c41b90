"""What looks for bugs, in order of price: each finder plays its tries until one of them fails."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dspex_testkit.fuzz.limit import limited
from tests.bugbench import core, real, simulated, swept, wire

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAST", "FINDERS", "Finder", "Finding", "look_for"]


@dataclass(frozen=True)
class Finder:
    """One way to look for bugs."""

    #: Its name in the table.
    name: str
    #: Plays one try; what it raises is what was found.
    play: Callable[[int], int]
    #: Tries of one search, at most.
    tries: int
    #: CPU seconds of one search, at most.
    budget: float


@dataclass(frozen=True)
class Finding:
    """What came of a search."""

    #: The finder that found something; empty if none did.
    finder: str
    #: Its tries until then: examples, sweeps, seeds or runs.
    tries: int
    #: CPU seconds of all finders until then.
    cpu: float
    #: What it found.
    what: str = ""


#: CPU seconds after which one try counts as endless; the longest that ends takes half of it on slow machines.
ENDLESS: Final = 0.9

FINDERS: Final = (
    Finder("wire", wire.play, tries=wire.TRIES, budget=0.3),
    Finder("core", core.play, tries=10_000, budget=0.8),
    Finder("sweep", swept.play, tries=swept.TRIES, budget=0.6),
    Finder("explore", simulated.play, tries=2_000, budget=3.0),
    Finder("processes", real.play, tries=real.TRIES, budget=30.0),
)

#: Those that start no process.
FAST: Final = ("wire", "core", "sweep", "explore")


def look_for(finders: tuple[Finder, ...] = FINDERS, *, scale: float = 1.0) -> Finding:
    """Play the finders, one after the other, until one finds something.

    Args:
        scale: Multiplies what each may spend.

    Raises:
        KeyboardInterrupt: As ever.
    """
    began = time.process_time()
    tries = 0
    for finder in finders:
        tries, error = _search(finder, finder.budget * scale)
        if error is not None:
            what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            return Finding(finder.name, tries, time.process_time() - began, what)
    return Finding("", tries, time.process_time() - began)


def _search(finder: Finder, budget: float) -> tuple[int, BaseException | None]:
    """Play one finder's tries; return how many there were, and what the last one raised."""
    began = time.process_time()
    count = 0
    for number in range(finder.tries):
        try:
            with limited(ENDLESS):
                count += finder.play(number)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return count + getattr(error, "tries", 1), only_error(error)
        if time.process_time() - began > budget:
            break
    return count, None


def only_error(error: BaseException) -> BaseException:
    """Return the first error in a group; an interrupt in it goes on as such."""
    while isinstance(error, BaseExceptionGroup):
        interrupts = error.subgroup(KeyboardInterrupt)
        if interrupts is not None:
            raise KeyboardInterrupt
        error = error.exceptions[0]
    return error
