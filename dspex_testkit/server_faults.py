"""Faults of a whole worker by command: delays, and misbehaviour with a probability drawn from a seed."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from dspex_testkit.plan import Fail, Pause, Plan, Repeat, Reply, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dspex_pool.protocol.messages import Request

__all__ = ["FAULT_KINDS", "Fault", "FaultyAnswerer"]

_Change: TypeAlias = "Callable[[Plan], Plan]"


def _with_wrong_id(plan: Plan) -> Plan:
    return Plan(*map(_under_wrong_id, plan.steps))


def _under_wrong_id(step: Step) -> Step:
    if isinstance(step, Reply | Fail):
        return Reply(step.result if isinstance(step, Reply) else None, request_id=2**31)
    return step


def _twice(plan: Plan) -> Plan:
    """Repeat the answer at once: a worker that is told to shut down does nothing after it."""
    steps = ([step, Repeat()] if isinstance(step, Reply | Fail) else [step] for step in plan.steps)
    return Plan(*itertools.chain.from_iterable(steps))


#: What each kind of fault makes of the plan that the worker would have followed.
FAULT_KINDS: Mapping[str, _Change] = {
    "fail": lambda plan: Plan().fail("a fault was ordered", type="InjectedError"),
    "hang": lambda plan: Plan().stall(),
    "deaf": lambda plan: Plan().stall(deaf=True),
    "silent": lambda plan: Plan(),
    "die": lambda plan: Plan().stderr("dying, as ordered\n").die(code=1),
    "kill": lambda plan: Plan().die(signal=9),
    "garbage": lambda plan: Plan().garbage(),
    "oversize": lambda plan: Plan().oversize(),
    "partial": lambda plan: Plan().send_partial_frame(10).stall(deaf=True),
    "cut": lambda plan: Plan().send_partial_frame(10).die(code=1),
    "duplicate": _twice,
    "wrong-id": _with_wrong_id,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave.

    Raises:
        ValueError: There is no command, no such kind, or a probability outside 0 to 1.
    """

    #: Command that it hits; ``*`` hits all but the handshake.
    command: str
    #: A key of ``FAULT_KINDS``.
    kind: str
    #: Share of the requests that it hits.
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("a fault hits a command, or *, and not ''")
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"there is no kind of fault {self.kind!r}, only {', '.join(FAULT_KINDS)}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"the probability {self.probability!r} must be from 0 to 1")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``command:kind`` or ``command:kind:probability``.

        Raises:
            ValueError: The text has another form, an unknown kind, or a probability outside 0 to 1.
        """
        command, _, rest = text.partition(":")
        kind, _, share = rest.partition(":")
        if not command or kind not in FAULT_KINDS:
            raise ValueError(f"{text!r} is not command:kind[:probability]; kinds: {', '.join(FAULT_KINDS)}")
        try:
            probability = float(share or 1.0)
        except ValueError:
            probability = math.nan
        if not 0 <= probability <= 1:
            raise ValueError(f"{text!r} has the probability {share!r}, but it must be from 0 to 1")
        return cls(command, kind, probability)


class FaultyAnswerer:
    """Wraps an answerer with delays and faults. Same seed and same requests: same faults.

    Args:
        answer: What the worker does when it is well.
        delays: Seconds before an answer, by command; ``*`` for all others. The handshake is never delayed.
        faults: Tried in order for each request; the first that hits is done.
        seed: Seed of the probabilities.
    """

    def __init__(
        self,
        answer: Callable[[Request], Plan],
        *,
        delays: Mapping[str, float] | None = None,
        faults: Sequence[Fault] = (),
        seed: int = 0,
    ) -> None:
        #: What was done, in order: request id, command, kind. A fault that is not here did not happen.
        self.injected: list[tuple[int, str, str]] = []
        self._answer = answer
        self._delays = dict(delays or {})
        self._faults = tuple(faults)
        self._random = random.Random(seed)

    def plan(self, request: Request) -> Plan:
        """Answer ``request``: the ``Answerer`` of a ``WorkerModel``."""
        plan = self._answer(request)
        is_handshake = request.command == "ping" and request.args.get("initialization") is True
        if (fault := self._fault_for(request.command, is_handshake)) is not None:
            well, plan = plan, FAULT_KINDS[fault.kind](plan)
            if plan.steps != well.steps:
                self.injected.append((request.id, request.command, fault.kind))
        delay = self._delays.get(request.command, self._delays.get("*", 0.0))
        return plan if is_handshake or not delay else Plan(Pause(delay), *plan.steps)

    def _fault_for(self, command: str, is_handshake: bool) -> Fault | None:
        for fault in self._faults:
            # The handshake is hit by no fault but one that is meant for it.
            hits = fault.command == ("handshake" if is_handshake else command)
            if (
                hits or (fault.command == "*" and not is_handshake)
            ) and self._random.random() < fault.probability:
                return fault
        return None
