"""Keeps what happens in a run, as it comes: a tuple for each thing, of which a timeline is made when a test fails."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from dspex_pool.telemetry import Telemetry

__all__ = [
    "BEGAN", "ENDED", "EVENT", "FAILED", "FAULT", "FROM", "LENT", "LIMIT", "TO", "TURN", "Entry", "Recorder",
    "note_fault", "recording",
]  # fmt: skip

#: What is kept at the most; of a longer run, the end.
LIMIT: Final = 200_000

#: Kinds of entries. After time, kind and the number of the pool stand, for an event, name, measurements, metadata
#: and the caller, if known; for the others the incarnation and, for a frame, the payload; for a fault its name and
#: what proves it; for the failure nothing.
EVENT, TO, FROM, FAULT, FAILED = "event", "to", "from", "fault", "failed"
#: Of callers that the recorder is told of: who and what it does, who and which worker it got, who and how it ended.
BEGAN, LENT, ENDED = "began", "lent", "ended"
#: A decision of the scheduler in words, and in full.
TURN = "turn"

Entry: TypeAlias = tuple[Any, ...]

#: Recorders of the runs under way, the newest last.
_recording: list[Recorder] = []


class Recorder:
    """Records one run.

    Args:
        clock: Tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self.entries: deque[Entry] = deque(maxlen=LIMIT)
        self._clock = clock
        #: When the recording began.
        self.zero = 0.0
        #: When the run failed, if it did.
        self.failed_at: float | None = None

    # --- pools and ports ----------------------------------------------------------------------------------

    def attend(self, telemetry: Telemetry, holder_of: Callable[[int], object], *, pool: int = 0) -> None:
        """Record the events of a pool.

        Args:
            telemetry: Where they come from.
            holder_of: Tells who has the worker of an incarnation.
            pool: Number of the pool in the run.
        """
        record, clock = self.entries.append, self._clock

        def note(event: tuple[str, ...], measurements: Mapping[str, float], about: Mapping[str, Any]) -> None:
            name = event[-1]
            caller: object = None
            if name == "checkout":
                caller = holder_of(about["incarnation"])
            elif name in _BY_CALLER:
                caller = trio.lowlevel.current_task()
            record((clock(), EVENT, pool, name, measurements, about, caller))

        telemetry.attach((), note)

    def watch(self, port: Any, *, pool: int = 0) -> None:
        """Record the frames that go through a port of a pool, from now on."""
        self.watch_requests(port, pool=pool)
        note, receive = self.answers_of(port, pool=pool), port.receive

        async def recorded_receive() -> bytes:
            payload: bytes = await receive()
            note(payload)
            return payload

        port.receive = recorded_receive

    def watch_requests(self, port: Any, *, pool: int = 0) -> None:
        """Record the frames that are sent to the worker of a port, from now on."""
        record, clock, incarnation, send = self.entries.append, self._clock, port.incarnation, port.send

        # No coroutine of its own: it would take part in every step of the one that it waits for.
        def recorded_send(payload: bytes) -> Awaitable[None]:
            record((clock(), TO, pool, incarnation, payload))
            sending: Awaitable[None] = send(payload)
            return sending

        port.send = recorded_send

    def answers_of(self, port: Any, *, pool: int = 0) -> Callable[[bytes], None]:
        """Return what records a frame that came from the worker of a port."""
        record, clock, incarnation = self.entries.append, self._clock, port.incarnation
        return lambda payload: record((clock(), FROM, pool, incarnation, payload))

    # --- what else happens --------------------------------------------------------------------------------

    def fault(self, name: object, incarnation: int | None = None, proof: str = "", *, pool: int = 0) -> None:
        """Record that a fault has happened.

        Args:
            name: Its name, in a word or two, or something whose text is that.
            incarnation: The worker that it struck, or ``None``.
            proof: How it is known that it happened.
            pool: Number of the worker's pool in the run.
        """
        self.entries.append((self._clock(), FAULT, pool, incarnation, name, proof))

    def turn(self, turn: object, tasks: Sequence[object]) -> None:
        """Record a decision of the scheduler: which, and the tasks that could run."""
        self.entries.append((self._clock(), TURN, 0, turn, tasks))

    @contextlib.contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Take down the moment at which an error leaves the block."""
        try:
            yield
        except BaseException:
            self.fail()
            raise

    def fail(self) -> None:
        """Take down the moment of the failure; the first is what counts."""
        if self.failed_at is None:
            self.failed_at = self._clock()
            self.entries.append((self.failed_at, FAILED, 0))

    @property
    def is_cut(self) -> bool:
        """Whether more has happened than is kept."""
        return len(self.entries) == LIMIT

    def __enter__(self) -> Recorder:
        self.zero = self._clock()
        _recording.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _recording.remove(self)


#: Events that are told in the task of the caller that they are about.
_BY_CALLER = frozenset({"waiting", "call_start", "call_stop", "call_exception"})


def recording() -> Recorder | None:
    """Return the recorder of the run under way, or ``None``."""
    return _recording[-1] if _recording else None


def note_fault(name: str, incarnation: int | None = None, proof: str = "", *, pool: int = 0) -> None:
    """Have the run that is being recorded know that a fault has happened; without one, do nothing.

    This is for faults that know no recorder: they are done to workers of whatever pool the test has opened.

    Args:
        name: Its name, in a word or two.
        incarnation: The worker that it struck, or ``None``.
        proof: How it is known that it happened.
        pool: Number of the worker's pool in the run.
    """
    if (recorder := recording()) is not None:
        recorder.fault(name, incarnation, proof, pool=pool)
