"""A worker that keeps a book of words: stateful Python that other programs want behind a process."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dspex_pool.bridge.handler import Handler, command


class Wordbook(Handler):
    """Counts words for as long as its process lives."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._seen: Counter[str] = Counter()

    @command
    def read(self, args: dict[str, Any]) -> dict[str, Any]:
        """Read ``text``; return how many words it has and how many of them are new."""
        words = args["text"].split()
        new = len(set(words) - self._seen.keys())
        self._seen.update(words)
        return {"words": len(words), "new": new}

    @command
    def often(self, args: dict[str, Any]) -> int:
        """Return how often ``word`` was read."""
        return self._seen[args["word"]]
