"""Where modules are found: in the worker's own places, then in those of the program that has the pool."""

from __future__ import annotations

import os
import sys

from dspex_pool.protocol.environment import PATH_VARIABLE

__all__ = ["look_where_the_pool_looks"]


def look_where_the_pool_looks() -> None:
    """Find what the program that has the pool finds, too: a handler beside its file, say."""
    places = os.environ.pop(PATH_VARIABLE, "").split(os.pathsep)
    sys.path += [place for place in places if place and place not in sys.path]
