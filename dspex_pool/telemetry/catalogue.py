"""Every event of a pool, with what it measures and what it says.

The catalogue bounds what may be emitted: names, measurements and metadata are those listed here, so that a
metrics system that makes a label of each sees a known number of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EVENTS", "MEASUREMENTS", "METADATA", "PREFIX", "EventSpec", "events_table", "problem_with"]

#: Beginning of the name of every event of a pool.
PREFIX = ("dspex", "python_bridge", "pool")

#: Meaning and unit of each measurement.
MEASUREMENTS = {
    "age": "Seconds since the worker became ready; 0 if it never did.",
    "attempt": "Number of the try that follows, the first being 1.",
    "count": "Always 1, to be summed up.",
    "delay": "Seconds until the next start may be tried.",
    "duration": "Seconds that it took.",
    "failures": "Starts that failed in a row.",
    "from_size": "Size before, in workers.",
    "held": "Seconds that the worker has been in a caller's hands.",
    "idle": "Seconds since the worker was last used.",
    "to_size": "Size after, in workers.",
    "uses": "Leases of the worker with at least one request.",
    "wait": "Seconds that the caller waited in line.",
    "waiting": "Callers in line.",
    "workers": "Workers, in whatever state.",
}

#: Meaning of each piece of metadata.
METADATA = {
    "attempts": "Tries of the call so far.",
    "command": "Name of the command.",
    "error": "Class name of the error.",
    "exit": "How the process ended, in words.",
    "from": "State that the worker left; none at its start. Missing if it stayed.",
    "generation": "Number of the generation that begins.",
    "holder": "Who holds the worker, in words.",
    "incarnation": "Number of the worker's incarnation, never used again.",
    "ok": "Whether it went well.",
    "outcome": "What the lease's end proved: clean, unused, care or retire.",
    "queued": "Whether the caller stood in line.",
    "reason": "Why, in a word or a sentence.",
    "service": "Name of the service.",
    "session": "Id of the session, or none.",
    "to": "State that the worker entered. Missing if it stayed.",
    "worker_id": "Name of the worker, such as w-3.",
}


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One event: when it is emitted, and what it carries."""

    #: One sentence: when it is emitted.
    doc: str
    #: Names of its measurements. Each is always there.
    measurements: tuple[str, ...] = ("count",)
    #: Names of its metadata. One that does not apply may be missing.
    metadata: tuple[str, ...] = ()


# What every event of a worker that moves carries, so that the gauges are the sum of the events.
_WORKER = ("worker_id", "incarnation", "from", "to")
_CALL = ("session", "worker_id", "command", "attempts")

#: Every event, by the last part of its name.
EVENTS: dict[str, EventSpec] = {
    # Workers.
    "worker_starting": EventSpec("A worker's process is being started.", metadata=_WORKER),
    "worker_started": EventSpec("A worker has shaken hands and is ready.", ("duration",), _WORKER),
    "worker_restarted": EventSpec(
        "A worker is ready in the place of one that left.", metadata=("worker_id", "reason")
    ),
    "worker_start_failed": EventSpec(
        "A start failed, or a worker died before its first use; then the reason is `died unused`.",
        ("delay",),
        ("worker_id", "reason"),
    ),
    "worker_retiring": EventSpec("A worker is taken out of service.", ("age", "uses"), (*_WORKER, "reason")),
    "worker_retired": EventSpec(
        "A worker's process is reaped and its place free.", ("age", "uses"), (*_WORKER, "reason", "exit")
    ),
    "worker_drained": EventSpec(
        "The pool finished, or gave up, what a caller had left on a worker.", ("duration",), (*_WORKER, "ok")
    ),
    "ping_start": EventSpec("The health check of an idle worker begins.", ("idle",), _WORKER),
    "ping_stop": EventSpec("The health check of a worker ended.", ("duration",), (*_WORKER, "ok")),
    # Checkouts.
    "checkout": EventSpec("A worker was lent.", ("wait",), (*_WORKER, "session", "queued")),
    "checkin": EventSpec("A worker was given back.", ("held",), (*_WORKER, "outcome")),
    "checkout_declined": EventSpec(
        "A worker that was just lent was not clean; the checkout goes on with another.",
        metadata=("worker_id", "reason"),
    ),
    "waiting": EventSpec("A caller took its place in line.", ("waiting",), ("session",)),
    "timeout": EventSpec(
        "A caller's patience ended before a worker came free.", ("wait",), ("session", "reason", "queued")
    ),
    "cancelled": EventSpec("A caller in line was cancelled.", ("wait",), ("session",)),
    "rejected": EventSpec(
        "A checkout was refused for another reason than time.", ("wait",), ("session", "reason", "queued")
    ),
    "leak_suspected": EventSpec(
        "A lease is older than leak_warning_after.", ("held",), ("worker_id", "holder")
    ),
    "lease_expired": EventSpec("A lease was ended by force.", ("held",), ("worker_id", "holder")),
    # Calls.
    "call_start": EventSpec("A command is about to be sent.", metadata=_CALL),
    "call_stop": EventSpec("A command was answered.", ("duration",), _CALL),
    "call_exception": EventSpec("A command ended in an error.", ("duration",), (*_CALL, "error", "reason")),
    "call_retry": EventSpec(
        "A command is tried again on another worker.", ("attempt",), ("session", "command", "reason")
    ),
    # Sessions.
    "session_started": EventSpec("A session began.", metadata=("session",)),
    "session_ended": EventSpec("A session was ended by its user.", metadata=("session",)),
    "session_expired": EventSpec("A session was not used for its time to live.", metadata=("session",)),
    "session_bound": EventSpec("A session keeps to a worker from now on.", metadata=("session", "worker_id")),
    "session_unbound": EventSpec(
        "A session was not used for its time to live; any worker will do.", metadata=("session",)
    ),
    "session_moved": EventSpec(
        "A session's worker left; any other will do.", metadata=("session", "worker_id", "reason")
    ),
    "session_lost": EventSpec(
        "A strict session's worker left; its next use fails.", metadata=("session", "worker_id", "reason")
    ),
    # The pool.
    "ready": EventSpec("The pool has its first worker in service, or has one again.", ("workers",)),
    "unready": EventSpec("The pool's last worker in service left.", ("workers",)),
    "breaker_opened": EventSpec(
        "Starts have failed for long and no worker is left; checkouts are refused.",
        ("failures",),
        ("reason",),
    ),
    "breaker_closed": EventSpec("A start succeeded; checkouts are served again."),
    "resized": EventSpec("The pool's size was changed.", ("from_size", "to_size")),
    "drained": EventSpec("A new generation begins; present workers leave.", ("workers",), ("generation",)),
    "suspended": EventSpec("The pool lends no workers until it is resumed.", ("waiting",)),
    "resumed": EventSpec("The pool lends workers again.", ("waiting",)),
    "closing": EventSpec("The pool began to close.", ("waiting", "workers")),
    "closed": EventSpec("The pool is closed; nothing of it is left running.", ("duration",)),
    "monitor_restarted": EventSpec("The monitor failed and was started again.", metadata=("reason",)),
    "service_restarted": EventSpec(
        "A service of the pool failed and was started again.", metadata=("service", "reason")
    ),
}


def problem_with(
    event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
) -> str | None:
    """Say what is wrong with an event according to the catalogue, or return ``None``."""
    spec = EVENTS.get(event[-1]) if event[:-1] == PREFIX else None
    if spec is None:
        return f"there is no event {'.'.join(event)}"
    if set(measurements) != set(spec.measurements):
        return f"{event[-1]} measures {sorted(measurements)}, should be {sorted(spec.measurements)}"
    for name, value in measurements.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            return f"{event[-1]} measures {name} = {value!r}, should be a number of at least 0"
    unknown = set(metadata) - set(spec.metadata)
    if unknown:
        return f"{event[-1]} has metadata {sorted(unknown)} that the catalogue does not list"
    return None


def events_table() -> str:
    """Return all events as a table in Markdown, with a final newline."""
    lines = ["| Event | Emitted when | Measurements | Metadata |", "| --- | --- | --- | --- |"]
    for name, spec in EVENTS.items():
        lines.append(f"| `{name}` | {spec.doc} | {_codes(spec.measurements)} | {_codes(spec.metadata)} |")
    return "\n".join(lines) + "\n"


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
