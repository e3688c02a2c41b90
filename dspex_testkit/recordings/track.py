"""One worker of a recording as it is played again: what is due, and what must come first.

The recording is no script of a theatre. What our side does is compared in order, frame by frame. What the worker did
then happens as soon as that is done which it answered to: an answer after the request with its id, and after the
signals between the two; the end and the exit after all that went before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dspex_testkit.recordings.entries import OURS, SIGNALS, Entry
from dspex_testkit.recordings.health_checks import is_health_check

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Track"]


class Track:
    """The entries of one worker.

    Args:
        entries: All of them, in order.
        pace: What the recorded waits are multiplied with; 0 for none.
    """

    def __init__(self, entries: Sequence[Entry], *, pace: float) -> None:
        self._entries = _without_repeats([one for one in entries if one.what != "opened"])
        self._pace = pace
        #: When each of our own acts was done, by its place.
        self._done: dict[int, float] = {}
        self._sends = [place for place, one in enumerate(self._entries) if one.what in ("sent", "torn")]
        self._output = [
            place for place, one in enumerate(self._entries) if one.what in ("received", "ended", "broken")
        ]
        self._exit = next((place for place, one in enumerate(self._entries) if one.what == "exited"), None)

    # --- what we do --------------------------------------------------------------------------------------

    @property
    def next_request(self) -> Entry | None:
        """The frame that is to be sent next."""
        return self._entries[self._sends[0]] if self._sends else None

    def expects_health_check(self) -> bool:
        """Tell whether a health check is to be sent next: one that failed when it was recorded."""
        return self.next_request is not None and is_health_check(self.next_request.payload)

    def note_sent(self, now: float) -> None:
        """Note that it was sent."""
        self._done[self._sends.pop(0)] = now

    def note_signal(self, name: str, now: float) -> bool:
        """Note a signal, and tell whether it has its place here: everything that was sent before it was sent."""
        for place, entry in enumerate(self._entries):
            if entry.what == "sent" and place not in self._done:
                return False
            if entry.what == name and place not in self._done:
                self._done[place] = now
                return True
        return False

    @property
    def missing(self) -> list[Entry]:
        """The frames that were never sent. Whether one is torn depends on the moment: it need not come."""
        return [entry for place in self._sends if (entry := self._entries[place]).what == "sent"]

    # --- what happens to us ------------------------------------------------------------------------------

    def due(self, now: float) -> Entry | None:
        """Return what the worker says next, if the time has come."""
        if self._output and self._when(self._output[0]) <= now:
            return self._entries[self._output[0]]
        return None

    def pop(self) -> None:
        """Take that out."""
        self._output.pop(0)

    def exit(self, now: float) -> Entry | None:
        """Return how the worker ended, if it has."""
        if self._exit is not None and self._when(self._exit) <= now:
            return self._entries[self._exit]
        return None

    def next_time(self, now: float) -> float:
        """Return when something will happen by itself, or infinity."""
        places = self._output[:1] + ([] if self._exit is None else [self._exit])
        return min((when for place in places if (when := self._when(place)) > now), default=math.inf)

    def _when(self, place: int) -> float:
        """Return when something happens, or infinity while something is lacking."""
        causes = self._causes(place)
        if any(cause not in self._done for cause in causes):
            return math.inf
        at = self._entries[place].at
        moments = [self._done[cause] + self._pace * (at - self._entries[cause].at) for cause in causes]
        return max(moments, default=-math.inf)

    def _causes(self, place: int) -> list[int]:
        entry = self._entries[place]
        before = [cause for cause in range(place) if self._entries[cause].what in OURS]
        if entry.what != "received" or entry.request_id is None:
            return before
        asked = [
            cause
            for cause in before
            if self._entries[cause].what == "sent" and self._entries[cause].request_id == entry.request_id
        ]
        if not asked:
            return before
        signals = [cause for cause in before if cause > asked[-1] and self._entries[cause].what in SIGNALS]
        return [asked[-1], *signals]


def _without_repeats(entries: list[Entry]) -> list[Entry]:
    """Leave out signals that repeat the one before: how often one knocks is no part of a conversation."""
    return [
        entry
        for place, entry in enumerate(entries)
        if entry.what not in SIGNALS or place == 0 or entries[place - 1].what != entry.what
    ]
