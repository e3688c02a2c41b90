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
        """Remember one value, and how it looks in quotes and without the white space around it."""
        for bare in (value, value.strip()):
            for form in (bare, repr(bare)[1:-1]):
                if len(form) >= _MIN_CHARS and form not in self._values:
                    self._values.append(form)
        # A key may begin with another key.
        self._values.sort(key=len, reverse=True)

    def mask(self, text: str) -> str:
        """Return ``text`` with every secret value replaced."""
        for value in self._values:
            text = text.replace(value, _MASK)
        return text
