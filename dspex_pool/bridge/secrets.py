"""Values that must not appear in anything the worker says."""

from __future__ import annotations

__all__ = ["Secrets"]

_MASK = "[secret]"
# Shorter ones are words of ordinary text; masking them would garble messages and protect nothing.
_MIN_CHARS = 8


class Secrets:
    """The secret values this worker was told."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def add(self, value: str) -> None:
        """Remember one value."""
        if len(value) >= _MIN_CHARS and value not in self._values:
            self._values.append(value)
            # A key may begin with another key.
            self._values.sort(key=len, reverse=True)

    def mask(self, text: str) -> str:
        """Return ``text`` with every secret value replaced."""
        for value in self._values:
            text = text.replace(value, _MASK)
        return text
