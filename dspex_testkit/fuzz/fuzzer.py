"""A run of the fuzzer: processes play until the budget is used up, and one journal keeps what they find."""

from __future__ import annotations

import datetime
import math
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from dspex_testkit.fuzz.files import prepare_journal, read_journal, write_entry, write_run
from dspex_testkit.fuzz.journal import Entry, RunRecord, key_of
from dspex_testkit.fuzz.messages import Checked, Found, Order, Played
from dspex_testkit.fuzz.player import play

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dspex_testkit.fuzz.messages import Message
    from dspex_testkit.fuzz.player import Ended

__all__ = ["Asked", "Fuzzer", "NoTestsError", "PlayerError", "rate"]

#: Seconds that one process plays, at the most: what a process might have gathered goes with it.
ROUND: Final = 120.0
#: Seconds below which no new process is worth its start.
SHORTEST: Final = 3.0
#: Share of the budget, and seconds at the least, in which the canary has to be found.
CANARY_SHARE, CANARY_LEAST = 0.1, 60.0
#: Seconds after its time in which a process may still make a failure small.
PATIENCE: Final = 90.0


class NoTestsError(Exception):
    """There is nothing to play."""


class PlayerError(Exception):
    """A process that plays failed for another reason than a failing case.

    Args:
        ended: How it ended.
    """

    def __init__(self, ended: Ended) -> None:
        super().__init__(f"a process that played ended with status {ended.status}")
        self.ended = ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run is asked for."""

    #: As for pytest; none for the worlds of the test kit.
    tests: tuple[str, ...]
    #: Seconds.
    budget: float
    journal: Path
    seed: int
    #: Processes at a time.
    workers: int
    #: ``MODULE:FUNCTION``; empty for none.
    canary: str


@dataclass
class Fuzzer:
    """One run.

    Args:
        asked: What it is asked for.
        on_found: Called with an entry that has changed, and whether it was found for the first time in this run.
    """

    asked: Asked
    on_found: Callable[[Entry, bool], object] = lambda entry, is_new: None
    #: Unique name of the run.
    run: str = field(default_factory=lambda: f"{_now()[:10]}-{uuid.uuid4().hex[:12]}")
    #: Cases played, by test.
    played: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0
    #: Keys of what this run found, with the seeds that came to it.
    found: Counter[str] = field(default_factory=Counter)
    #: Cases until the canary was found; 0 while it was not.
    canary: int = 0
    #: What the canary looked like.
    canary_found: Found | None = None

    def __post_init__(self) -> None:
        self.journal = read_journal(self.asked.journal)
        self._began, self._began_at = time.monotonic(), _now()
        self._until = time.time() + self.asked.budget
        self._canary_played = 0
        self._next: list[Counter[str]] = [Counter() for _ in range(self.asked.workers)]

    @property
    def elapsed(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self._began

    @property
    def seeds(self) -> int:
        """Cases played, without those of the canary."""
        return sum(self.played.values())

    async def fuzz(self) -> None:
        """Play until the budget is used up.

        Raises:
            NoTestsError: There is nothing to play.
            PlayerError: A process failed for another reason than a failing case.
            OSError: The journal cannot be written; where that can be seen, before anything is played.

        Cancellation:
            All processes are ended. What was found is in the journal.
        """
        prepare_journal(self.asked.journal)
        try:
            async with trio.open_nursery() as nursery:
                for lane in range(self.asked.workers):
                    nursery.start_soon(self._lane, lane)
        finally:
            write_run(self.asked.journal, self.record())

    def record(self) -> RunRecord:
        """Return what the run has done so far."""
        return RunRecord(
            run=self.run,
            began=self._began_at,
            seed=self.asked.seed,
            seconds=round(self.elapsed, 1),
            cpu=round(self.cpu, 1),
            played=dict(self.played),
            found=tuple(sorted(self.found)),
            canary=self.canary if self.asked.canary else None,
        )

    # --- processes ---------------------------------------------------------------------------------------

    async def _lane(self, lane: int) -> None:
        if lane == 0 and self.asked.canary:
            await self._look_for_canary()
        is_first = lane == 0
        while self._until - time.time() > SHORTEST or not (self._next[lane] or self.played):
            order = self._order(lane, with_examples=is_first)
            is_first = False
            self._judge(
                await play(
                    self.asked.tests, order, lambda message: self._hear(message, lane), patience=PATIENCE
                )
            )
            if time.time() >= self._until:
                break

    async def _look_for_canary(self) -> None:
        seconds = max(CANARY_SHARE * self.asked.budget, CANARY_LEAST)
        order = Order(
            descriptor=0, seed=self.asked.seed, until=time.time() + seconds, canary=self.asked.canary
        )
        self._judge(await play(self.asked.tests, order, self._hear_of_canary, patience=PATIENCE))
        if self.canary_found is not None:
            self.canary = max(1, self._canary_played)

    def _order(self, lane: int, *, with_examples: bool) -> Order:
        entries = self.journal.entries.values()
        examples: dict[str, dict[str, str]] = {}
        for entry in entries if with_examples else ():
            examples.setdefault(entry.test, {})[entry.key] = entry.example.token
        return Order(
            descriptor=0,
            seed=self.asked.seed,
            lane=lane,
            lanes=self.asked.workers,
            first=dict(self._next[lane]),
            until=min(self._until, time.time() + ROUND),
            known={entry.key: entry.example.size for entry in entries},
            examples=examples,
        )

    @staticmethod
    def _judge(ended: Ended) -> None:
        if ended.has_no_tests:
            raise NoTestsError("there is no explored test: mark coroutine functions of a world with @explore")
        if not ended.is_well:
            raise PlayerError(ended)

    # --- what they tell ------------------------------------------------------------------------------------

    def _hear(self, message: Message, lane: int) -> None:
        if isinstance(message, Played):
            self.played[message.test] += message.count
            self.cpu += message.cpu
            self._next[lane][message.test] += message.count * self.asked.workers
        elif isinstance(message, Found):
            self._note(message)
        else:
            self._note_checked(message)

    def _hear_of_canary(self, message: Message) -> None:
        if isinstance(message, Played):
            self._canary_played += message.count
        elif isinstance(message, Found) and message.is_canary:
            self.canary_found = message
        elif isinstance(message, Found):
            self._note(message)

    def _note(self, found: Found) -> None:
        now = _now()
        key = key_of(found.test, found.failure)
        self.found[key] += 1
        known = self.journal.entries.get(key)
        example = found.example if found.example is not None else known and known.example
        if not example:
            return
        entry = Entry(
            failure=found.failure,
            test=found.test,
            example=example,
            first_seen=now,
            last_seen=now,
            seeds={self.run: self.found[key]},
            flaky={self.run: self._flaky(known) + 1} if found.is_flaky else {},
        )
        self._keep(entry, is_new=self.found[key] == 1)

    def _flaky(self, known: Entry | None) -> int:
        return known.flaky.get(self.run, 0) if known is not None else 0

    def _note_checked(self, checked: Checked) -> None:
        entry = self.journal.entries.get(checked.key)
        if entry is None:
            return
        if checked.failure == entry.failure:
            self.found[entry.key] += 1
            self._keep(msgspec.structs.replace(entry, last_seen=_now()), is_new=True)
        elif checked.failure is None:
            self._keep(msgspec.structs.replace(entry, passed_at=_now()), is_new=False)

    def _keep(self, entry: Entry, *, is_new: bool) -> None:
        entry = self.journal.note(entry)
        write_entry(self.asked.journal, entry)
        self.on_found(entry, is_new)


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="seconds").replace("+00:00", "Z")


def rate(count: int, seconds: float) -> int:
    """Return how many that is in an hour."""
    return math.floor(count * 3600 / seconds) if seconds > 0 else 0
