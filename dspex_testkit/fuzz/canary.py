"""The bug that every fuzzing run has to find: a run that misses it proves nothing, whatever else it found or not."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from dspex_pool.core.books import Books
from dspex_pool.lifecycle import WorkerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.core.records import WorkerRecord
    from dspex_testkit.planting import Planting

__all__ = ["DEFAULT", "canary_of", "ping_ends_unseen"]

#: The canary if none is named.
DEFAULT = "dspex_testkit.fuzz.canary:ping_ends_unseen"


def ping_ends_unseen(planting: Planting) -> None:
    """Put a worker that was pinged among the idle without looking at the line."""

    def back(
        self: Books, record: WorkerRecord, now: float, event: str, measurements: Any, metadata: Any
    ) -> None:
        if event == "ping_stop":
            self._moved(record, WorkerState.IDLE, now, event, measurements, metadata)
            self._idle.add(record)
        else:
            original(self, record, now, event, measurements, metadata)

    original = planting.replace(Books, "_back_to_idle", back)


def canary_of(name: str) -> Callable[[Planting], object]:
    """Return the function ``MODULE:FUNCTION`` that plants a bug.

    Raises:
        ValueError: There is none of that name, or it does not take one planting.
    """
    module, _, function = name.partition(":")
    try:
        plant = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name!r} names no function MODULE:FUNCTION that plants a bug: {error}") from None
    if not callable(plant):
        raise ValueError(f"{name!r} is not a function")
    if not _takes_planting(plant):
        raise ValueError(f"{name!r} plants no bug: it must take one argument, the Planting")
    found: Callable[[Planting], object] = plant
    return found


def _takes_planting(plant: Callable[..., object]) -> bool:
    try:
        inspect.signature(plant).bind(None)
    except TypeError:
        return False
    except ValueError:  # some functions written in C do not tell
        return True
    return True
