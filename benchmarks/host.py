"""The process of one subject: ``python -m benchmarks.host LETTER SUBJECT SETTINGS``.

A line on stdin asks for a round, the end of stdin for the end. Each round is answered with one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import trio

from benchmarks.workloads import WORKLOADS

__all__ = ["main"]


class _Answers:
    """Lines to the parent, on a descriptor that nothing else writes to: what a worker prints goes to stderr."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)

    def say(self, answer: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(answer).encode() + b"\n")


async def _serve(answers: _Answers, letter: str, subject: str, settings: dict[str, Any]) -> None:
    async with WORKLOADS[letter].prepare(subject, settings) as measure:
        answers.say({"ready": True})
        while await trio.to_thread.run_sync(sys.stdin.readline):
            answers.say({"values": await measure()})


def main(words: list[str]) -> int:
    """Serve one subject; a failure is told, and ends it."""
    answers = _Answers()
    letter, subject, settings = words
    try:
        trio.run(_serve, answers, letter, subject, json.loads(settings))
    except ImportError as error:
        answers.say({"missing": str(error)})
    except Exception as error:
        answers.say({"failure": _explain(error)})
        raise
    return 0


def _explain(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
