"""What the workers of ``own_handler.py`` serve: a search in an index that takes a while to build."""

import ctypes
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from dspex_pool.bridge.handler import Handler, HandlerContext, command

QUESTIONS = Path(__file__).with_name("questions.jsonl")


class Search(Handler):
    """Finds the sentences that share most words with a query. The index is built once in each worker."""

    def __init__(self, context: HandlerContext) -> None:
        super().__init__(context)
        rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
        texts = dict.fromkeys(row["context"] for row in rows)
        self.sentences = [sentence for text in texts for sentence in re.split(r"(?<=[.!?]) ", text)]
        self.places: dict[str, list[int]] = defaultdict(list)
        for place, sentence in enumerate(self.sentences):
            for word in set(re.findall(r"\w+", sentence.lower())):
                self.places[word].append(place)

    @command
    def search(self, args: dict[str, Any]) -> dict[str, Any]:
        """Take ``{query}`` and return ``{sentence, worker}``. Printing does no harm: it ends up in the log."""
        scores: dict[int, float] = defaultdict(float)
        for word in re.findall(r"\w+", args["query"].lower()):
            for place in self.places.get(word, ()):
                scores[place] += 1 / len(self.places[word])
        print(f"searched {len(self.sentences)} sentences for {args['query']!r}")
        best = max(scores, key=lambda place: scores[place], default=None)
        return {"sentence": None if best is None else self.sentences[best], "worker": self.context.worker_id}

    @command
    def crash(self, args: dict[str, Any]) -> None:
        """Read address 0, as a bug in a C extension would: the process ends by SIGSEGV."""
        ctypes.string_at(0)
