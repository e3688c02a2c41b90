"""From what was recorded to a timeline: the entries of a recorder in order, and what each adds to which lane."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dspex_testkit.hangs.tasks import redacted
from dspex_testkit.report.recorder import BEGAN, ENDED, EVENT, FAILED, FAULT, FROM, LENT, TO, TURN
from dspex_testkit.report.timeline import (
    ANSWERED,
    CALLERS,
    WORKERS,
    Call,
    Lane,
    Mark,
    Span,
    Timeline,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dspex_testkit.report.recorder import Entry

__all__ = ["INSTANT", "Weaver", "caller_key", "worker_key"]

#: Seconds between two things that happen at the same moment of virtual time: too few to be seen.
INSTANT: Final = 1e-7

#: Seconds within which two faults of one worker are told as one.
_ONE_ACT: Final = 1e-3
#: Characters kept of one frame.
_SHOWN = 160
#: Events of calls and of waiting, which fill the callers' lanes.
_REFUSED = ("timeout", "cancelled", "rejected")
_OUTCOMES = {"timeout": "CheckoutTimeoutError", "cancelled": "cancelled"}
#: Events that are told in the picture as moments of their own.
_TOLD = frozenset({
    "worker_start_failed", "checkout_declined", "leak_suspected", "lease_expired", "call_retry", "session_lost",
    "session_moved", "breaker_opened", "breaker_closed", "resized", "drained", "suspended", "resumed", "closing",
    "closed", "monitor_restarted", "service_restarted", "unready",
})  # fmt: skip


def worker_key(incarnation: int, pool: int = 0) -> str:
    """Return the key of the lane of a worker."""
    return f"w{incarnation}" if not pool else f"w{pool}.{incarnation}"


def caller_key(caller: str) -> str:
    """Return the key of the lane of a caller that the recorder was told of."""
    return f"c {caller}"


class Weaver:
    """Takes entries in order and makes a timeline of them.

    Args:
        zero: When the recording began; all times are told from there.
    """

    def __init__(self, zero: float = 0.0) -> None:
        self.zero = zero
        self.lanes: dict[str, Lane] = {}
        self.spans: list[Span] = []
        self.marks: list[Mark] = []
        self.calls: list[Call] = []
        self.restarts: Counter[str] = Counter()
        #: What a lane is doing now: since when, what, and with whom.
        self._open: dict[str, tuple[float, str, str]] = {}
        self._at_failure: list[Span] = []
        self._callers: dict[object, str] = {}
        #: Callers in line of whom only the pool's events tell, by their lanes: since when.
        self._waiting: dict[str, float] = {}
        #: Lanes of the callers that have a worker, by its lane, where only the pool's events tell.
        self._holders: dict[str, str] = {}
        #: When callers came for what they do now, by their lanes.
        self._arrived: dict[str, float] = {}
        #: The last moment that was seen.
        self.now = -INSTANT
        #: When the run failed, if that was recorded.
        self.failed_at: float | None = None

    # --- lanes --------------------------------------------------------------------------------------------

    def lane(self, key: str, title: str, group: str) -> str:
        """Make sure that there is a lane; return its key."""
        if key not in self.lanes:
            self.lanes[key] = Lane(key, title, group)
        return key

    def begin(self, lane: str, at: float, kind: str, label: str = "") -> None:
        """Say what a lane does from now on; what it did ends here."""
        self.finish(lane, at)
        self._open[lane] = (at, kind, label)

    def finish(self, lane: str, at: float) -> None:
        """End what a lane does, if it does anything."""
        if (opened := self._open.pop(lane, None)) is not None:
            began, kind, label = opened
            self.spans.append(Span(lane, began, at, kind, label))

    def mark(self, at: float, lane: str, kind: str, label: str, detail: str = "") -> None:
        """Add a moment."""
        self.marks.append(Mark(at, lane, kind, label, detail))

    # --- entries ------------------------------------------------------------------------------------------

    def feed(self, entries: Iterable[Entry]) -> None:
        """Take entries, in order."""
        takers: dict[str, Callable[..., None]] = {
            EVENT: self._event,
            FAULT: self._fault,
            BEGAN: self._began,
            LENT: self._lent,
            ENDED: self._ended,
            FAILED: self._failed,
            TURN: lambda pool, label, detail: self.mark(self.now, "", "turn", label, detail),
        }
        for at, kind, pool, *rest in entries:
            # At one moment of virtual time much happens, one after the other: what came first stays first.
            self.now = max(at - self.zero, self.now + INSTANT)
            if kind in (TO, FROM):
                self._frame(kind, pool, *rest)
            else:
                takers[kind](pool, *rest)

    def timeline(self, title: str, verdict: Verdict, **more: Any) -> Timeline:
        """End what is still going on, and return all of it; ``more`` are further fields of ``Timeline``."""
        end = max([verdict.at, self.now, *(span.end for span in self.spans)])
        for lane in list(self._open):
            self.finish(lane, end)
        return Timeline(
            title,
            verdict,
            lanes=tuple(self.lanes.values()),
            spans=tuple(sorted(self.spans, key=lambda span: span.begin)),
            marks=tuple(sorted(self.marks, key=lambda mark: mark.at)),
            calls=tuple(self.calls),
            restarts=dict(self.restarts),
            at_failure=tuple(self._at_failure),
            **more,
        )

    def _failed(self, pool: int) -> None:
        self.failed_at = self.now
        self._at_failure = [
            Span(lane, since, self.now, kind, label) for lane, (since, kind, label) in self._open.items()
        ]

    def _fault(self, pool: int, incarnation: int | None, name: str, proof: str) -> None:
        lane = "" if incarnation is None else worker_key(incarnation, pool)
        # Told by the order of entries: at one moment a worker may be given back, lent again, and struck.
        _, state, label = self._open.get(lane, (0.0, "", ""))
        holder = label if state == "leased" else ""
        mark = Mark(self.now, lane, "fault", name, proof, state, holder)
        last = self.marks[-1] if self.marks else mark
        # Who injects a fault names it, and who carries it out says what was done: that is one.
        if last.kind == "fault" and last.lane == lane and last is not mark and mark.at - last.at < _ONE_ACT:
            self.marks[-1] = replace(
                last, label=f"{last.label}, {name}", detail="; ".join(filter(None, (last.detail, proof)))
            )
        else:
            self.marks.append(mark)

    def _frame(self, kind: str, pool: int, incarnation: int, payload: bytes) -> None:
        label, text = _told(payload)
        self.mark(self.now, worker_key(incarnation, pool), kind, label, text)

    def _began(self, pool: int, caller: str, doing: str) -> None:
        lane = self.lane(caller_key(caller), caller, CALLERS)
        self._arrived[lane] = self.now
        self.begin(lane, self.now, doing)

    def _lent(self, pool: int, caller: str, incarnation: int) -> None:
        worker = worker_key(incarnation, pool)
        self._name_holder(worker, caller)
        title = self.lanes[worker].title if worker in self.lanes else ""
        self.begin(self.lane(caller_key(caller), caller, CALLERS), self.now, "holding", title)

    def _ended(self, pool: int, caller: str, outcome: str, detail: str) -> None:
        lane = self.lane(caller_key(caller), caller, CALLERS)
        self.finish(lane, self.now)
        self.mark(self.now, lane, "end", outcome, detail)
        self.calls.append(Call(caller, self._arrived.pop(lane, self.now), self.now, outcome))

    def _name_holder(self, worker: str, caller: str) -> None:
        if (opened := self._open.get(worker)) is not None:
            self._open[worker] = (*opened[:2], caller)

    # --- events -------------------------------------------------------------------------------------------

    def _event(
        self,
        pool: int,
        name: str,
        measurements: Mapping[str, float],
        about: Mapping[str, Any],
        caller: object,
    ) -> None:
        if "to" in about:
            self._moved(worker_key(about["incarnation"], pool), pool, name, about)
        if name == "worker_restarted":
            self.restarts[str(about.get("reason", ""))] += 1
        if caller is not None or name in _REFUSED:
            self._of_caller(pool, name, measurements, about, caller)
        if name in _TOLD:
            said = ", ".join(f"{key} {value}" for key, value in {**about, **measurements}.items())
            self.mark(self.now, "", "told", name.replace("_", " "), said)

    def _moved(self, lane: str, pool: int, name: str, about: Mapping[str, Any]) -> None:
        of_pool = f"pool {pool + 1}: " if pool else ""
        self.lane(lane, f"{of_pool}{about['worker_id']} #{about['incarnation']}", WORKERS)
        if about.get("from") == "leased":
            self._given_back(lane)
        if about["to"] == "dead":
            self.finish(lane, self.now)
            self.mark(self.now, lane, "died", str(about.get("reason", "")), str(about.get("exit", "")))
        else:
            self.begin(lane, self.now, about["to"], str(about.get("reason", "")))

    def _given_back(self, worker: str) -> None:
        caller = self._holders.pop(worker, "")
        if self._open.get(caller, (0.0, "", ""))[1:] == ("holding", self.lanes[worker].title):
            self.finish(caller, self.now)

    def _of_caller(
        self,
        pool: int,
        name: str,
        measurements: Mapping[str, float],
        about: Mapping[str, Any],
        caller: object,
    ) -> None:
        if name == "waiting":
            lane = self._lane_of(caller)
            self._waiting[lane] = self._arrived[lane] = self.now
            self.begin(lane, self.now, "waiting")
        elif name == "checkout":
            lane = self._lane_of(caller)
            self._waiting.pop(lane, None)
            if not about.get("queued"):
                self._arrived[lane] = self.now
            worker = worker_key(about["incarnation"], pool)
            self._name_holder(worker, self.lanes[lane].title)
            self._holders[worker] = lane
            self.begin(lane, self.now, "holding", self.lanes[worker].title)
        elif name in _REFUSED:
            outcome = _OUTCOMES.get(name) or str(about.get("reason") or name)
            self._refused(outcome, self.now - measurements["wait"])
        elif name in ("call_stop", "call_exception"):
            self._called(self._lane_of(caller), measurements["duration"], about)

    def _refused(self, outcome: str, since: float) -> None:
        lane = next((lane for lane, began in self._waiting.items() if abs(began - since) < 1e-3), None)
        if lane is not None:
            del self._waiting[lane]
            self.finish(lane, self.now)
            self.calls.append(Call(self.lanes[lane].title, since, self.now, outcome))
        self.mark(self.now, lane or "", "end", outcome)

    def _called(self, lane: str, seconds: float, about: Mapping[str, Any]) -> None:
        outcome = str(about.get("error", ANSWERED))
        # The time that it waited for a worker counts; of a second call with the same worker there was none.
        began = self._arrived.pop(lane, self.now - seconds)
        self.calls.append(Call(self.lanes[lane].title, began, self.now, outcome))
        self.mark(
            self.now, lane, "end", outcome, f"{about.get('command', '')} {about.get('reason', '')}".strip()
        )
        self.finish(lane, self.now)

    def _lane_of(self, caller: object) -> str:
        """Return the lane of a caller: a task, whoever names it."""
        task = getattr(caller, "_task", caller)
        if task not in self._callers:
            number = len(self._callers) + 1
            name = str(getattr(task, "name", task)).rpartition(".")[2]
            title = f"caller {number}" if name == "caller" else f"caller {number} ({name})"
            self._callers[task] = self.lane(f"c{number}", title, CALLERS)
        return self._callers[task]


def _told(payload: bytes) -> tuple[str, str]:
    """Return a frame in a word, and its text without secrets."""
    text = redacted(payload.decode("utf-8", "backslashreplace"))
    short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(payload)} bytes)"
    try:
        message = msgspec.json.decode(payload)
        number = message.get("id")
        if "command" in message:
            return f"{message['command']} {number}", short
        if "success" in message:
            return f"{'answer' if message['success'] else 'error'} {number}", short
        return str(message.get("event", "message")), short
    except (msgspec.MsgspecError, ValueError, AttributeError):
        return "no message", short
