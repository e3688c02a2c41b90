"""Importing much at once, without a search for garbage that is not there."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["importing"]


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
