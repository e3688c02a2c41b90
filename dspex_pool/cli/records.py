"""What is known of a row once it has run: the line of the output, and the line of the journal around it."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - the codec reads the annotations at run time
from typing import Any

import msgspec

__all__ = ["Answer", "Entry", "Fingerprint", "Header", "RowError", "is_match"]


class RowError(msgspec.Struct, frozen=True):
    """Why a row has no answer."""

    #: Class of the error; of a program's own error, the class in the worker.
    type: str
    #: One line for people.
    message: str


class Answer(msgspec.Struct, frozen=True):
    """One line of the output."""

    #: The row's id as the input has it, or its line number.
    id: str | int
    #: The program's outputs; ``None`` if the row failed.
    outputs: Mapping[str, Any] | None
    #: Why it failed; ``None`` if it did not.
    error: RowError | None
    #: How often the row was tried on a worker, also in vain; 0 if it never came to one.
    attempts: int
    #: The worker that answered, or the last that failed; ``None`` if no worker took part.
    worker_id: str | None
    #: Seconds that the call took; of a failed row, from its start until it was given up.
    duration_s: float


class Entry(msgspec.Struct, frozen=True):
    """One line of the journal."""

    #: Line of the input where the row begins.
    line: int
    #: Whether the answer matches what was expected; ``None`` if nothing was.
    match: bool | None
    #: What goes into the output, unchanged.
    row: Answer


class Fingerprint(msgspec.Struct, frozen=True):
    """What a journal belongs to. Each value changes when the thing does."""

    #: The bytes of the input and how they are read.
    input: str
    #: The program's definition and state.
    program: str
    #: The language model and its settings.
    lm: str


class Header(msgspec.Struct, frozen=True):
    """The first line of the journal."""

    #: Version of the journal's format.
    dspex_pool_journal: int
    #: What it belongs to.
    fingerprint: Fingerprint
    #: When the run began, ISO 8601.
    created_at: str


def is_match(expected: Any, outputs: Mapping[str, Any]) -> bool:
    """Tell whether any output contains what is expected, in any case and spacing.

    Args:
        expected: A value, or a list of which one is enough.
        outputs: The program's outputs; lists and objects are searched as text.
    """
    wanted = [_plain(item) for item in (expected if isinstance(expected, list) else [expected])]
    found = [_plain(value) for value in outputs.values()]
    return any(item in text for item in wanted if item for text in found)


def _plain(value: Any) -> str:
    return " ".join(str(value).casefold().split())
