"""Importing: where modules are found, and much at once without a search for garbage that is not there."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING

from dspex_pool.protocol.environment import PATH_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["importing", "look_where_the_pool_looks"]


def look_where_the_pool_looks() -> None:
    """Find what the program that has the pool finds, too: a handler beside its file, say. Own places come first."""
    places = os.environ.pop(PATH_VARIABLE, "").split(os.pathsep)
    sys.path += [place for place in places if place and place not in sys.path]


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Keep the collector out of an import, and what was imported out of all its later rounds.

    Modules stay, so nothing is found among them; looking makes an import of DSPy a twelfth longer, and each full
    round later would look again. Where the collector is off, as in a template, nothing changes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()
