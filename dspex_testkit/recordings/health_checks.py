"""Health checks in recordings: how many there are depends on the time that a test takes, not on what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspex_testkit.recordings.entries import Entry

__all__ = ["is_health_check", "well_answer", "without_health_checks"]


def is_health_check(payload: Any) -> bool:
    """Tell whether a request is a ping of the pool's own, which is none that shakes hands."""
    if not isinstance(payload, dict) or payload.get("command") != "ping":
        return False
    args = payload.get("args")
    return isinstance(args, dict) and set(args) == {"worker_id"}


def without_health_checks(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries without the health checks that were answered well, and without the answers.

    One that failed stays: the pool ended the worker because of it.
    """
    well = {entry.request_id for entry in entries if entry.what == "received" and _is_well(entry)}
    dropped = {
        entry.request_id
        for entry in entries
        if entry.what == "sent" and is_health_check(entry.payload) and entry.request_id in well
    }
    return [
        entry
        for entry in entries
        if entry.what not in ("sent", "received")
        or entry.request_id is None
        or entry.request_id not in dropped
    ]


def well_answer(entries: Sequence[Entry]) -> Entry | None:
    """Return the last answer to a ping that tells a worker is well, if there was one."""
    asked = {
        entry.request_id
        for entry in entries
        if entry.what == "sent" and isinstance(entry.payload, dict) and entry.payload.get("command") == "ping"
    }
    answers = [entry for entry in entries if entry.what == "received" and entry.request_id in asked]
    return next((entry for entry in reversed(answers) if _is_well(entry)), None)


def _is_well(entry: Entry) -> bool:
    return isinstance(entry.payload, dict) and entry.payload.get("success") is True
