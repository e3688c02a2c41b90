"""Errors of the system that say which file they are about."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["naming"]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name ``path`` in an error of the block that names no file: a full disk says no more than that it is full.

    Raises:
        OSError: Whatever the system raises in the block; ``filename`` is set.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
