"""Plans as JSON, so that a worker in another process can be told what to do."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from dspex_pool.transport.port import ExitStatus
from dspex_testkit.plan import (
    Deed,
    Emit,
    Exit,
    Fail,
    Oversize,
    PartialFrame,
    Pause,
    Plan,
    Raw,
    Repeat,
    Reply,
    Stall,
    Stderr,
    Step,
)

__all__ = ["plan_from_json", "plan_to_json"]

_KINDS: Final[dict[str, Any]] = {
    kind.__name__: kind
    for kind in (Reply, Fail, Emit, Raw, PartialFrame, Oversize, Repeat, Pause, Stall, Stderr, Exit, Deed)
}


def plan_to_json(plan: Plan) -> list[list[Any]]:
    """Return a plan as a list of ``[step, fields]``; bytes become text, one character each."""
    return [[type(step).__name__, _plain(dataclasses.asdict(step))] for step in plan.steps]


def plan_from_json(steps: list[list[Any]]) -> Plan:
    """Read what ``plan_to_json`` wrote."""
    return Plan(*(_step(name, dict(fields)) for name, fields in steps))


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in fields.items()
    }


def _step(name: str, fields: dict[str, Any]) -> Step:
    if name == "Raw":
        fields["data"] = fields["data"].encode("latin-1")
    if name == "Exit":
        fields["status"] = ExitStatus(**fields["status"])
    step: Step = _KINDS[name](**fields)
    return step
