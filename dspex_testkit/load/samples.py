"""What this process holds while load runs: memory, descriptors, processes; looked at now and then."""

from __future__ import annotations

import gc
import math
import os
import sys
from array import array
from typing import TYPE_CHECKING, Final

import psutil

from dspex_testkit.load.slope import slope_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_testkit.load.slope import Slope

__all__ = ["FIGURES", "Samples"]

#: What is looked at, with its unit. Resident memory is what users pay for, and moves in pages: a leak first fills
#: what was freed before. Blocks are what Python's objects live in: each object that is kept is one more.
FIGURES: Final = {
    "memory": "bytes",
    "blocks": "blocks",
    "descriptors": "descriptors",
    "processes": "processes",
}

_TASKS: Final = "/proc/self/task"


class Samples:
    """What was seen, in memory that was taken before the first look: else the series itself would be growth.

    Args:
        most: Looks that there is room for; later ones are dropped.
        collect: Whether the garbage collector runs before each look, so that what it has not come to is not
            counted. It stops the process for some milliseconds.
    """

    def __init__(self, most: int, *, collect: bool = False) -> None:
        self._process = psutil.Process()
        self._collect = collect
        self._columns = {name: array("d", bytes(8 * most)) for name in ("at", *FIGURES)}
        self._most = most
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def look(self, at: float) -> None:
        """Look at the process.

        Args:
            at: Seconds since the load began.
        """
        if self._collect:
            gc.collect()
        process = self._process
        memory, descriptors = process.memory_info().rss, process.num_fds()
        self.put(at, memory, sys.getallocatedblocks(), descriptors, self._children())

    def put(self, at: float, *seen: float) -> None:
        """Keep what was seen at a moment: a value for each of ``FIGURES``."""
        if self._count == self._most:
            return
        for column, value in zip(self._columns.values(), (at, *seen), strict=True):
            column[self._count] = value
        self._count += 1

    def of(self, name: str) -> list[tuple[float, float]]:
        """Return a figure over time: moments and values."""
        values = self._columns[name]
        return list(zip(self._columns["at"][: self._count], values[: self._count], strict=True))

    def slope(self, name: str, *, skip: float = 0.0) -> Slope:
        """Return the slope of a figure.

        Args:
            name: One of ``FIGURES``.
            skip: Share of the time that is left out at the begin.

        Raises:
            ValueError: There is no such figure, or there are too few looks to tell.
        """
        if name not in FIGURES:
            raise ValueError(f"there is no figure {name!r}, only {', '.join(FIGURES)}")
        points = self.of(name)[math.floor(skip * self._count) :]
        return slope_of([at for at, _ in points], [value for _, value in points])

    def _children(self) -> int:
        if sys.platform != "linux":
            return len(self._process.children())
        return sum(len(text.split()) for text in _listed_children())


def _listed_children() -> Iterator[str]:
    # By thread; psutil would read the status of every process of the machine, while the pool stands still. And
    # without pathlib, which interns each part of a path: the looks themselves would be growth.
    for name in os.listdir(_TASKS):  # noqa: PTH208 - as above
        try:
            with open(f"{_TASKS}/{name}/children", encoding="ascii") as file:  # noqa: PTH123 - as above
                yield file.read()
        except OSError:  # the thread has ended
            continue
