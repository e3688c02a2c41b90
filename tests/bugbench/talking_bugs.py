"""Bugs of request and answer: whose answer it is, where a frame ends, what is said of the dead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import CallTimeoutError, PortClosedError, WorkerDiedError
from dspex_pool.lease import Lease
from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.protocol.framing import FrameDecoder
from dspex_pool.worker import PoolWorker
from dspex_pool.worker_life import WorkerLife
from tests.bugbench.planting import bug

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_pool.decision_runner import DecisionRunner as Runner
    from tests.bugbench.planting import Planting


@bug("R17, R18, property 50; gunicorn #3687, valkey-glide #6794")
def any_answer_is_mine(planting: Planting) -> None:
    """Take the next answer for one's own, whatever its id."""

    def accept(self: ClientConversation, reply: Any, payload: bytes) -> Any:
        awaited = next((number for number, is_awaited in self.due.items() if is_awaited), None)
        if awaited is not None:
            rest = (getattr(reply, name) for name in reply.__struct_fields__[1:])
            reply = type(reply)(awaited, *rest)
        return original(self, reply, payload)

    original = planting.replace(ClientConversation, "_accept_reply", accept)


@bug("property 51; captain-hook #50, kode-bridge #27")
def late_answer_is_forgotten(planting: Planting) -> None:
    """Forget a request when its caller leaves, so that its late answer is nobody's."""

    def abandon(self: ClientConversation, request_id: int) -> None:
        self.retract(request_id)

    planting.replace(ClientConversation, "abandon", abandon)


@bug("property 49; httpcore closes on any cancelled exchange, asyncpg")
def torn_frame_counts_as_unsent(planting: Planting) -> None:
    """Take back a request of which half was written, and lend the worker on."""

    def leave(self: PoolWorker, request_id: int, *, sent: int, whole: int) -> None:
        original(self, request_id, sent=0 if sent < whole else sent, whole=whole)

    original = planting.replace(PoolWorker, "_leave", leave)


@bug("R34, property 56, rule 12; trio-parallel, celery redelivery")
def repeated_after_sending(planting: Planting) -> None:
    """Ask once more on a worker that has not answered in time."""

    async def request(
        self: Lease,
        command: str,
        args: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_event: Any = None,
    ) -> Any:
        try:
            return await original(self, command, args, timeout=timeout, on_event=on_event)
        except CallTimeoutError:
            self.worker._conversation.due.clear()
            return await original(self, command, args, timeout=timeout, on_event=on_event)

    original = planting.replace(Lease, "request", request)


@bug("R96; Snakepit 0.9.1")
def request_timeout_is_ignored(planting: Planting) -> None:
    """Wait for an answer for as long as it takes."""

    async def request(self: PoolWorker, command: str, args: Any, **more: Any) -> Any:
        return await original(self, command, args, **(more | {"timeout": None}))

    async def request_any(self: PoolWorker, *args: Any, **more: Any) -> Any:
        return await request(self, *args, **more)

    original = planting.replace(PoolWorker, "request", request_any)


@bug("R62; the ancestor's port messages")
def own_request_fails_with_foreign_error(planting: Planting) -> None:
    """Tell a caller that its worker died when its time was over."""

    async def request(self: Lease, *args: Any, **more: Any) -> Any:
        try:
            return await original(self, *args, **more)
        except CallTimeoutError as error:
            raise WorkerDiedError("no answer") from error

    original = planting.replace(Lease, "request", request)


@bug("property 57, R37; Erlang port owners, trio-parallel #20")
def idle_death_unnoticed(planting: Planting) -> None:
    """Hear of a worker's end only from whoever uses it."""

    async def attend(self: WorkerLife, worker: PoolWorker) -> None:
        await worker.port.attend()
        worker.exited.set()

    planting.replace(WorkerLife, "_attend", attend)


@bug("R07; nimble_pool callbacks, postgres-nio #607")
def failed_ping_breaks_the_pool(planting: Planting) -> None:
    """Let what fails in the pool's care of a worker out into its tasks."""
    from dspex_pool.decision_runner import DecisionRunner

    async def take_care(
        self: Runner, life: WorkerLife, what: str, care: Callable[[PoolWorker], Awaitable[None]]
    ) -> None:
        worker = life.worker
        assert worker is not None
        with life.care:
            await care(worker)
            report = self._state.ping_answered if what == "ping" else self._state.drained
            report(life.number, trio.current_time())
            self.carry_out()

    planting.replace(DecisionRunner, "_take_care", take_care)


@bug("R09; the ancestor's pool_worker_v2")
def timer_sleeps_through(planting: Planting) -> None:
    """Sleep through a wake-up that comes earlier than the one that was known."""
    from dspex_pool.decision_runner import DecisionRunner

    def carry_out(self: Runner) -> None:
        deadline = self._timer.deadline
        original(self)
        self._timer.deadline = max(self._timer.deadline, min(deadline, 1e9))

    original = planting.replace(DecisionRunner, "carry_out", carry_out)


@bug("R52, R10; readers that trust the pipe's pieces")
def read_is_a_frame(planting: Planting) -> None:
    """Take the bytes of one read for one frame."""

    def feed(self: FrameDecoder, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._buffer.clear()
        original(self, data)

    original = planting.replace(FrameDecoder, "feed", feed)


@bug("R18; readers that keep one frame of a read")
def second_frame_dropped(planting: Planting) -> None:
    """Drop what follows the first frame of a read."""

    def next_frame(self: FrameDecoder) -> bytes | None:
        frame: bytes | None = original(self)
        if frame is not None:
            self._buffer.clear()
        return frame

    original = planting.replace(FrameDecoder, "next_frame", next_frame)


@bug("R52; the ancestor's 4-byte prefix")
def no_frame_limit(planting: Planting) -> None:
    """Wait for as many bytes as a header announces, however many."""

    def next_frame(self: FrameDecoder) -> bytes | None:
        self._max_frame_bytes = 2**32
        frame: bytes | None = original(self)
        return frame

    original = planting.replace(FrameDecoder, "next_frame", next_frame)


@bug("property 58; D7")
def cut_frame_is_a_clean_end(planting: Planting) -> None:
    """Say of a stream that ended within a frame that it ended between two."""

    def check_eof(self: FrameDecoder, total: int, *, held: int) -> None:
        if self._eof:
            raise PortClosedError(f"{self._peer} has closed its stream", clean=True, missing=0)

    planting.replace(FrameDecoder, "_check_eof", check_eof)


@bug("R08, property 52; Erlang ports with leftovers")
def leftovers_unseen(planting: Planting) -> None:
    """Say that nothing is held although the begin of a frame is."""

    def buffered(self: FrameDecoder) -> int:
        return 0

    planting.replace(FrameDecoder, "buffered", property(buffered))
