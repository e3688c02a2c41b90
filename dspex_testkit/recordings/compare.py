"""Compare two recordings of the same thing: what reality says today, and what it said when it was recorded."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_testkit.recordings.entries import VOLATILE, Entry, canonical, lives, read_recording, without_id
from dspex_testkit.recordings.health_checks import without_health_checks
from dspex_testkit.recordings.replay import RecordingMovedError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Difference", "assert_unmoved", "compare"]

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One place at which two recordings differ."""

    #: The worker, the command, and the place within its answer.
    where: str
    #: What the old recording says there.
    old: str
    #: What the new one says.
    new: str

    def __str__(self) -> str:
        return f"{self.where}\n  was: {self.old}\n  is:  {self.new}"


@dataclass(slots=True)
class _Exchange:
    """A request and what came back."""

    request: Any
    answers: list[Any] = field(default_factory=list)

    def title(self, ignored: frozenset[str]) -> str:
        return canonical(without_id(self.request), ignored)


def assert_unmoved(old: Path | str, new: Path | str, *, ignored: frozenset[str] = VOLATILE) -> None:
    """Fail if two recordings differ.

    Raises:
        RecordingMovedError: With all differences.
    """
    if differences := compare(old, new, ignored=ignored):
        lines = "\n".join(str(difference) for difference in differences)
        count = "1 place" if len(differences) == 1 else f"{len(differences)} places"
        raise RecordingMovedError(f"reality has moved in {count} since {Path(old).name}\n{lines}")


def compare(old: Path | str, new: Path | str, *, ignored: frozenset[str] = VOLATILE) -> list[Difference]:
    """Return where two recordings differ: requests that came or went, answers, exits.

    Times, signals, and the ids of requests are no differences.

    Args:
        old: A recording.
        new: Another.
        ignored: Names of fields that may differ, at any depth.
    """
    before, after = _workers(old), _workers(new)
    found: list[Difference] = []
    for name in sorted({*before, *after}):
        if name in before and name in after:
            found += _compare_worker(name, before[name], after[name], ignored)
        else:
            words = (
                "recorded" if name in before else "not recorded",
                "recorded" if name in after else "not recorded",
            )
            found.append(Difference(name, *words))
    return found


def _workers(path: Path | str) -> dict[str, list[Entry]]:
    """Return the entries by the name of the worker, its incarnation, and how often both were opened before."""
    workers = {}
    for (name, incarnation), found in lives(read_recording(path)).items():
        for times, entries in enumerate(found):
            again = f", opened again {times}" if times else ""
            workers[f"{name} (incarnation {incarnation}{again})"] = without_health_checks(entries)
    return workers


def _compare_worker(
    name: str, old: list[Entry], new: list[Entry], ignored: frozenset[str]
) -> Iterator[Difference]:
    before, after = _exchanges(old), _exchanges(new)
    matcher = difflib.SequenceMatcher(
        None, [one.title(ignored) for one in before], [one.title(ignored) for one in after], autojunk=False
    )
    for kind, low, high, new_low, new_high in matcher.get_opcodes():
        if kind == "equal":
            for one, other in zip(before[low:high], after[new_low:new_high], strict=True):
                yield from _compare_answers(f"{name}, {_name(one.request)}", one, other, ignored)
            continue
        gone = [_show(one.request) for one in before[low:high]] or ["no request"]
        come = [_show(one.request) for one in after[new_low:new_high]] or ["no request"]
        yield Difference(f"{name}, requests", "; ".join(gone), "; ".join(come))
    yield from _compare_values(f"{name}, start", _start(old), _start(new), ignored)
    yield from _compare_values(f"{name}, exit", _exit(old), _exit(new), ignored)


def _exchanges(entries: list[Entry]) -> list[_Exchange]:
    found: list[_Exchange] = []
    by_id: dict[Any, _Exchange] = {}
    for entry in entries:
        if entry.what == "sent":
            found.append(_Exchange(entry.payload if entry.raw is None else entry.raw))
            by_id[entry.request_id] = found[-1]
        elif entry.what == "received":
            owner = by_id.get(entry.request_id) or (found[-1] if found else None)
            if owner is not None:
                owner.answers.append(entry.payload if entry.raw is None else entry.raw)
    return found


def _start(entries: list[Entry]) -> str:
    return str(entries[0].facts.get("message", "failed")) if entries[0].what == "failed" else "started"


def _exit(entries: list[Entry]) -> Any:
    return next(
        (
            {"code": entry.facts.get("code"), "signal": entry.facts.get("signal")}
            for entry in entries
            if entry.what == "exited"
        ),
        None,
    )


def _compare_answers(
    where: str, old: _Exchange, new: _Exchange, ignored: frozenset[str]
) -> Iterator[Difference]:
    before, after = ([without_id(answer) for answer in one.answers] for one in (old, new))
    if len(before) == len(after) == 1:
        yield from _compare_values(f"{where}, answer", before[0], after[0], ignored)
    else:
        yield from _compare_values(f"{where}, answers", before, after, ignored)


def _compare_values(where: str, old: Any, new: Any, ignored: frozenset[str]) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            if name not in ignored:
                yield from _compare_values(
                    f"{where}.{name}", old.get(name, _ABSENT), new.get(name, _ABSENT), ignored
                )
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _compare_values(f"{where}[{place}]", one, other, ignored)
    elif type(old) is not type(new) or old != new:
        yield Difference(where, _show(old), _show(new))


def _name(request: Any) -> str:
    return str(request.get("command", "request")) if isinstance(request, dict) else "request"


def _show(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
