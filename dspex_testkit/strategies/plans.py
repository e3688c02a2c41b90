"""Plans of what a worker does for one request: honest ones, and such as hold a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import strategies as st

from dspex_pool.protocol.framing import LARGEST_FRAME_BYTES
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.plan import (
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
from dspex_testkit.strategies.values import json_objects, json_values, seconds, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SILENT_STEPS", "fault_plans", "plans", "steps"]

Kinds: TypeAlias = "Sequence[type]"

#: Steps that write nothing to stdout that is not a frame, and leave the worker alive.
SILENT_STEPS: tuple[type, ...] = (Emit, Pause, Stderr)
#: Steps after which the client has reason to complain.
FAULTS: tuple[type, ...] = (Raw, PartialFrame, Oversize, Repeat, Stall, Exit)

#: Further fields of ``error_info``, each by the type that the protocol gives it.
_INFO = st.fixed_dictionaries(
    {},
    optional={
        "code": st.just("rate_limited"),
        "status": st.sampled_from([429, 500, 503]),
        "retry_after_s": seconds(),
        "retryable": st.booleans(),
    },
)
#: What ends up on stdout by mistake: prints, tracebacks, binary, and a byte that hides in a header.
_STRAY = st.sampled_from([b"Traceback (most recent call last):\n", b"hello\n", b"\0", b"\0\0\0\0", b"{}"])
_ENDS = st.builds(ExitStatus, code=st.sampled_from([0, 1, 65, 137])) | st.builds(
    ExitStatus, signal=st.sampled_from([6, 9, 11, 15])
)

_BY_KIND: dict[type, st.SearchStrategy[Any]] = {
    Reply: st.builds(Reply, json_values(max_leaves=4)),
    Fail: st.builds(Fail, texts(), st.sampled_from(["ValueError", "Cancelled", "InvalidArgument"]), _INFO),
    Emit: st.builds(Emit, st.sampled_from(["log", "chunk", "progress"]), json_objects(max_leaves=3)),
    Pause: st.builds(Pause, seconds(high=5.0), st.booleans()),
    Stderr: st.builds(Stderr, texts()),
    Raw: st.builds(Raw, _STRAY | st.binary(max_size=8)),
    PartialFrame: st.builds(PartialFrame, st.integers(0, 12), json_values(max_leaves=2)),
    Oversize: st.builds(Oversize, st.none() | st.just(LARGEST_FRAME_BYTES)),
    Repeat: st.just(Repeat()),
    Stall: st.builds(Stall, st.booleans()),
    Exit: st.builds(Exit, _ENDS),
}


def steps(*kinds: type) -> st.SearchStrategy[Step]:
    """Draw single steps, of any kind or of these."""
    return st.one_of([_BY_KIND[kind] for kind in (kinds or _BY_KIND)])


def plans() -> st.SearchStrategy[Plan]:
    """Draw honest plans: events, pauses and stderr, then one answer. They shrink to an empty success."""
    before = st.lists(steps(*SILENT_STEPS), max_size=3)
    return st.builds(lambda prelude, answer: Plan(*prelude, answer), before, steps(Reply, Fail))


def fault_plans(*kinds: type) -> st.SearchStrategy[Plan]:
    """Draw plans with one fault or more, before, instead of, or after an answer.

    Args:
        kinds: Kinds of steps to draw the faults from, by default all: ``Raw``, ``PartialFrame``, ``Oversize``,
            ``Repeat``, ``Stall``, ``Exit``, and an answer to another request.
    """
    chosen = [*kinds] or [*FAULTS, Reply]
    faults = [_wrong_answers() if kind is Reply else _BY_KIND[kind] for kind in chosen]
    return st.builds(
        lambda honest, fault, place, rest: Plan(
            *honest.steps[: place % (len(honest.steps) + 1)],
            *fault,
            *(honest.steps[place % (len(honest.steps) + 1) :] if rest else ()),
        ),
        plans(),
        st.lists(st.one_of(faults), min_size=1, max_size=2),
        st.integers(0, 4),
        st.booleans(),
    )


def _wrong_answers() -> st.SearchStrategy[Step]:
    return st.builds(Reply, json_values(max_leaves=2), st.integers(0, 9) | st.just(2**53))
