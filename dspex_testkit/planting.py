"""Plants bugs: replaces parts of a pool, refuses what does not fit, and puts everything back."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Planting"]


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

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Put everything back for the block."""
        bugs = [(owner, name, vars(owner)[name]) for owner, name, _ in self.places]
        for owner, name, original in reversed(self.places):
            setattr(owner, name, original)
        try:
            yield
        finally:
            for owner, name, replacement in bugs:
                setattr(owner, name, replacement)

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
    if _is_awaited(original) != _is_awaited(replacement):
        raise TypeError(f"of {where} and the bug's replacement, one is a coroutine function")


def _is_awaited(function: Any) -> bool:
    """Tell whether a function gives something to await: a coroutine, or what says that it is one."""
    given = str(inspect.signature(function).return_annotation)
    return inspect.iscoroutinefunction(function) or given.startswith("Coroutine[")
