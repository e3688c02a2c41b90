"""A pipe that takes part of a write and then wants to be asked again, wherever the part ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

__all__ = ["take_at_first"]


def take_at_first(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Have the next ``os.writev`` take ``count`` bytes, and block if that is none; the others take what they can."""
    real_writev: Callable[[int, tuple[bytes, bytes]], int] = os.writev

    def writev(descriptor: int, parts: tuple[bytes, bytes]) -> int:
        monkeypatch.setattr(os, "writev", real_writev)
        if not count:
            raise BlockingIOError
        return os.write(descriptor, b"".join(parts)[:count])

    monkeypatch.setattr(os, "writev", writev)
