"""The workers of a simulated world: they answer, unless a fault says otherwise, and keep the proof of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import WorkerStartError
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.reactions import Reactions
from dspex_testkit.simulation.faults import FailStart, HangStart, InCall, InStart, Kill, OnWorker
from dspex_testkit.simulation.quiet_port import QuietPort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dspex_testkit.report.recorder import Recorder
    from dspex_testkit.simulation.faults import Fault

__all__ = ["SimulatedWorkers"]


class SimulatedWorkers(MockPortFactory):
    """Starts simulated workers and lets faults happen to them.

    Args:
        on_request: Called with the incarnation and the call whenever a worker takes up a request of a call.
        on_start: Called when a start begins.
        recorder: Records frames and faults.
    """

    def __init__(
        self,
        on_request: Callable[[int, int], object],
        on_start: Callable[[], object],
        recorder: Recorder,
    ) -> None:
        super().__init__(self._behave)
        #: Faults that have happened, in order.
        self.met: list[InCall | InStart | OnWorker] = []
        #: Incarnations of the workers that are no good any more.
        self.hit: set[int] = set()
        #: When starts failed by order of a fault.
        self.failures: list[float] = []
        #: When workers were killed from outside, by incarnation.
        self.killed: dict[int, float] = {}
        self._on_request = on_request
        self._on_start = on_start
        self._recorder = recorder
        self._in_calls: dict[int, InCall] = {}
        self._in_starts: dict[int, InStart] = {}

    def expect(self, faults: Iterable[Fault]) -> list[OnWorker]:
        """Take up ``faults``; return those that somebody has to ``strike`` when their moment has come."""
        later: list[OnWorker] = []
        for fault in faults:
            if isinstance(fault, InCall):
                self._in_calls[fault.call] = fault
            elif isinstance(fault, InStart):
                times = fault.times if isinstance(fault, FailStart) else 1
                self._in_starts |= dict.fromkeys(range(fault.start, fault.start + times), fault)
            else:
                later.append(fault)
        return later

    def heal(self) -> None:
        """Let nothing more happen, and the deaf hear again."""
        self._in_calls.clear()
        self._in_starts.clear()
        for port in self.live:
            port.model.reactions = Reactions()

    def strike(self, fault: OnWorker) -> None:
        """Let ``fault`` happen now, if any worker is alive."""
        if live := self.live:
            port = live[fault.worker % len(live)]
            self._note(fault, port)
            if isinstance(fault, Kill):
                self.killed[port.incarnation] = trio.current_time()
            fault.strike(port)

    def _note(self, fault: InCall | InStart | OnWorker, port: MockPort | None = None) -> None:
        self.met.append(fault)
        self._recorder.fault(fault, None if port is None else port.incarnation)
        if port is not None and getattr(fault, "breaks", True):
            self.hit.add(port.incarnation)

    async def _start(self, worker_id: str) -> None:
        self._on_start()
        fault = self._in_starts.pop(len(self.attempts) - 1, None)
        if fault is None:
            return await super()._start(worker_id)
        self._note(fault)
        if isinstance(fault, HangStart):
            await trio.sleep_forever()
        await trio.sleep(fault.delay)
        if isinstance(fault, FailStart):
            self.failed += 1
            self.failures.append(trio.current_time())
            raise WorkerStartError(f"worker {worker_id} could not be started: a fault", worker_id=worker_id)
        return None

    async def _open(self, worker_id: str, incarnation: int) -> MockPort:
        return QuietPort(worker_id, incarnation, max_frame_bytes=self.max_frame_bytes)

    def _behave(self, port: MockPort) -> None:
        self._recorder.watch_requests(port)
        if isinstance(port, QuietPort):
            port.on_answer = self._recorder.answers_of(port)
        port.answer("*", lambda args: self._answer(port, args))

    def _answer(self, port: MockPort, args: dict[str, Any]) -> object:
        if "call" not in args:
            return args
        call = args["call"]
        self._on_request(port.incarnation, call)
        result = {"call": call, "ask": args["ask"]}
        fault = self._in_calls.pop(call, None)
        if fault is None:
            return Plan().after(args["work"]).reply(result)
        self._note(fault, port)
        return fault.plan(args["work"], result)

    def met_by_kind(self) -> Counter[str]:
        """Return how many faults of each kind have happened."""
        return Counter(type(fault).__name__ for fault in self.met)
