"""The journal: of each class of failures the smallest example, and when and how often it was seen; what runs did.

What is counted is kept apart for each run, and what can change is kept with its time. So journals of several machines
can be merged in any order, and as often as one likes.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import msgspec

from dspex_testkit.fuzz.failure import Failure  # noqa: TC001 - the codec reads the annotations at run time

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Entry", "Example", "Journal", "RunRecord", "key_of"]

#: Form of the files.
FORM = 1


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One run that fails."""

    #: Calls, faults, decisions of the scheduler, and the sum of what is in them: the smaller the better.
    size: tuple[int, ...]
    #: The whole run in one word.
    token: str
    #: What was typed to have it again.
    replay: str
    #: What the error said.
    text: str
    #: What is in the run, a line for each thing.
    story: tuple[str, ...] = ()
    #: Its lanes, for a terminal.
    picture: str = ""
    #: Versions with which it was seen, by name.
    versions: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One class of failures of one test."""

    form: int = FORM
    failure: Failure
    #: Name of the test, as pytest is given it.
    test: str
    example: Example
    #: When it was seen first and last, as ISO 8601 in UTC.
    first_seen: str
    last_seen: str
    #: Seeds that came to it, by the run in which they did.
    seeds: dict[str, int] = {}
    #: Of these, how many ended in another way when they were played again.
    flaky: dict[str, int] = {}
    #: When its example was last played and passed, as ISO 8601 in UTC; empty for never.
    passed_at: str = ""

    @property
    def key(self) -> str:
        """Return a name for files that no other entry has."""
        return key_of(self.test, self.failure)

    @property
    def is_flaky(self) -> bool:
        """Whether the same seed came to different ends: an error of the test, or of the harness."""
        return any(self.flaky.values())

    @property
    def is_open(self) -> bool:
        """Whether its example has not passed since it was last seen."""
        return self.passed_at <= self.last_seen

    def merged(self, other: Entry) -> Entry:
        """Put what two journals know of one class of failures together."""
        return Entry(
            failure=self.failure,
            test=self.test,
            example=min(
                self.example, other.example, key=lambda one: (one.size, one.token, one.replay, one.text)
            ),
            first_seen=min(self.first_seen, other.first_seen),
            last_seen=max(self.last_seen, other.last_seen),
            seeds=_most(self.seeds, other.seeds),
            flaky=_most(self.flaky, other.flaky),
            passed_at=max(self.passed_at, other.passed_at),
        )


def key_of(test: str, failure: Failure) -> str:
    """Return a name for files that belongs to one class of failures of one test."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", test.rpartition("::")[2])[:40]
    return f"{name}-{zlib.crc32(test.encode()):08x}-{failure.key}"


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of the fuzzer did."""

    form: int = FORM
    #: Unique.
    run: str
    #: When it began, as ISO 8601 in UTC.
    began: str
    #: What all its cases are drawn from.
    seed: int
    seconds: float
    #: CPU seconds of the processes that played.
    cpu: float
    #: Cases played, by test.
    played: dict[str, int]
    #: Failures found, by the key of their class.
    found: tuple[str, ...] = ()
    #: Cases until the canary was found; 0 if it was not, ``None`` if there was none.
    canary: int | None = None

    @property
    def seeds(self) -> int:
        """Cases played."""
        return sum(self.played.values())


class Journal:
    """Entries by key, and runs by name."""

    def __init__(self, entries: Iterable[Entry] = (), runs: Iterable[RunRecord] = ()) -> None:
        self.entries: dict[str, Entry] = {}
        self.runs: dict[str, RunRecord] = {}
        for entry in entries:
            self.note(entry)
        for run in runs:
            self.add_run(run)

    def note(self, entry: Entry) -> Entry:
        """Add what is known of a class of failures; return what is known of it by now."""
        known = self.entries.get(entry.key)
        self.entries[entry.key] = merged = entry if known is None else known.merged(entry)
        return merged

    def add_run(self, run: RunRecord) -> None:
        """Add a run; of two records of one run the longer one stays."""
        known = self.runs.get(run.run)
        if known is None or (run.seconds, run.seeds) > (known.seconds, known.seeds):
            self.runs[run.run] = run

    def merge(self, other: Journal) -> None:
        """Add everything of ``other``."""
        for entry in other.entries.values():
            self.note(entry)
        for run in other.runs.values():
            self.add_run(run)

    def ranked(self) -> list[Entry]:
        """Return the entries, the most urgent first: flaky ones, then open ones, then those of many seeds."""
        return sorted(
            self.entries.values(),
            key=lambda entry: (not entry.is_flaky, not entry.is_open, -sum(entry.seeds.values()), entry.key),
        )


def _most(ours: dict[str, int], theirs: dict[str, int]) -> dict[str, int]:
    return {run: max(ours.get(run, 0), theirs.get(run, 0)) for run in sorted({*ours, *theirs})}
