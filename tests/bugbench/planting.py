"""Bugs as the bench knows them: a catalogue, and a block in which one of them is planted."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dspex_testkit.planting import Planting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["BUGS", "Bug", "Planting", "bug", "planted"]


@dataclass(frozen=True)
class Bug:
    """One bug of a real pool."""

    #: Its name, of which the table is sorted.
    name: str
    #: What the pool does wrong.
    sentence: str
    #: Where it was seen: numbers of the project's rules and pains, and trackers.
    seen: str
    #: Plants it.
    plant: Callable[[Planting], None]


#: All bugs by name, in the order of the catalogue.
BUGS: dict[str, Bug] = {}


def bug(seen: str) -> Callable[[Callable[[Planting], None]], Callable[[Planting], None]]:
    """Enter a function that plants a bug into the catalogue: its name, and the first line of its docstring.

    Args:
        seen: Where such a bug was seen.

    Raises:
        ValueError: There is a bug of that name.
    """

    def enter(plant: Callable[[Planting], None]) -> Callable[[Planting], None]:
        name = plant.__name__
        if name in BUGS:
            raise ValueError(f"there are two bugs {name!r}")
        BUGS[name] = Bug(name, (inspect.getdoc(plant) or "").splitlines()[0], seen, plant)
        return plant

    return enter


@contextlib.contextmanager
def planted(which: Bug | None) -> Iterator[None]:
    """Plant a bug for the block; ``None`` leaves the pool as it is."""
    planting = Planting()
    try:
        if which is not None:
            which.plant(planting)
            assert planting.places, f"{which.name} plants nothing"
        yield
    finally:
        planting.undo()
