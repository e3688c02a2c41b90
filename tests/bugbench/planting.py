"""Plants bugs: replaces methods of the pool for as long as a block lasts, and refuses what does not fit."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["BUGS", "Bug", "Planting", "bug", "planted"]


class Planting:
    """Replaces parts of the pool, and puts them back."""

    def __init__(self) -> None:
        #: What was replaced: where, its name, and what stood there.
        self.places: list[tuple[Any, str, Any]] = []

    def replace(self, owner: Any, name: str, replacement: Any) -> Any:
        """Put ``replacement`` where ``owner`` has ``name``, and return what stood there.

        Raises:
            LookupError: ``owner`` itself has no such name: the pool has changed, and the bug is planted nowhere.
            TypeError: A replaced function takes other parameters.
        """
        if name not in vars(owner):
            raise LookupError(f"{owner!r} has no {name!r} of its own: the pool has changed, so must the bug")
        original = vars(owner)[name]
        _check_signature(original, replacement, f"{owner.__name__}.{name}")
        self.places.append((owner, name, original))
        setattr(owner, name, replacement)
        return original

    def undo(self) -> None:
        """Put everything back, the last first."""
        while self.places:
            owner, name, original = self.places.pop()
            setattr(owner, name, original)


def _check_signature(original: Any, replacement: Any, where: str) -> None:
    if not inspect.isfunction(original) or not inspect.isfunction(replacement):
        return
    ours, theirs = (inspect.signature(one).parameters for one in (replacement, original))
    kinds = {parameter.kind for parameter in ours.values()}
    takes_all = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
    if not takes_all and [*ours] != [*theirs]:
        raise TypeError(f"{where} takes {', '.join(theirs)}; the bug's takes {', '.join(ours)}")
    if inspect.iscoroutinefunction(original) != inspect.iscoroutinefunction(replacement):
        raise TypeError(f"of {where} and the bug's replacement, one is a coroutine function")


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
