"""One worker in use: request, answer, and what is known of it when a call ends otherwise."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import (
    CallTimeoutError,
    LocalFrameTooLargeError,
    LocalProtocolError,
    ProgramError,
    RemoteFrameTooLargeError,
    RemoteProtocolError,
    WorkerDiedError,
)
from dspex_pool.protocol import ClientConversation
from dspex_pool.worker import Hello, PoolWorker
from dspex_testkit.mock_port import MockPort
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from typing import Never

    from trio.testing import MockClock

    from dspex_pool.protocol import Event

pytestmark = pytest.mark.trio


async def greeted(**answers: Any) -> tuple[PoolWorker, MockPort]:
    """Return a worker that has shaken hands, and its port, which answers these commands."""
    port = MockPort("w-1", 1)
    port.answer("echo", lambda args: args)
    for command, answer in answers.items():
        port.answer(command, answer)
    worker = PoolWorker(port, worker_id="w-1", incarnation=1)
    await worker.handshake()
    return worker, port


async def give_up(worker: PoolWorker, command: str = "slow", after: float = 1.0) -> None:
    """Ask, and leave before the answer."""
    with trio.move_on_after(after) as scope:
        await worker.request(command, {})
    assert scope.cancelled_caught


# --- handshake --------------------------------------------------------------------------------------------


async def test_handshake_takes_down_what_the_worker_says() -> None:
    """Version, process id, versions and capabilities are kept."""
    port = MockPort("w-1", 1)
    hello = {"protocol": 2, "pid": 17, "versions": {"python": "3.12"}, "capabilities": ["usage"]}
    port.answer_handshake(hello)
    worker = PoolWorker(port, worker_id="w-1", incarnation=1)
    await worker.handshake()
    assert worker.hello == Hello(protocol=2, pid=17, versions={"python": "3.12"}, capabilities=("usage",))
    asked = port.received[0]
    assert (asked.id, asked.command, asked.args["worker_id"]) == (0, "ping", "w-1")
    assert repr(worker) == "<PoolWorker w-1 incarnation 1 pid None>"


async def test_handshake_with_an_old_worker_leaves_the_rest_empty() -> None:
    """A worker of version 1 says next to nothing; odd values are not taken."""
    port = MockPort()
    port.answer_handshake({"status": "ok", "versions": "1.0", "capabilities": "all"})
    worker = PoolWorker(port, worker_id="w-1", incarnation=1)
    await worker.handshake()
    assert worker.hello == Hello()


async def test_handshake_that_is_answered_with_no_object_is_refused() -> None:
    """What answers the first ping with a number is no worker."""
    port = MockPort()
    port.answer_handshake(lambda _: 7)
    with pytest.raises(RemoteProtocolError, match="answered its first ping with 7"):
        await PoolWorker(port, worker_id="w-1", incarnation=1).handshake()


# --- requests ---------------------------------------------------------------------------------------------


async def test_request_returns_the_result_and_leaves_the_worker_clean() -> None:
    """Asked and answered, nothing is due."""
    worker, _ = await greeted()
    assert await worker.request("echo", {"a": 1}) == {"a": 1}
    assert worker.why_unclean() is None
    assert not worker.owes_answer


async def test_call_with_all_the_time_in_the_world_has_no_bound() -> None:
    """An infinite timeout was sent along to the worker, which JSON cannot, and the call was refused."""
    worker, port = await greeted(add=Plan().reply(3))
    assert await worker.request("add", {}, timeout=math.inf) == 3
    assert port.received[-1].timeout_s is None


async def test_failed_command_is_an_error_of_the_program() -> None:
    """The error names command and worker; the worker is well."""
    worker, _ = await greeted(fail=Plan().fail("bad input", type="ValueError"))
    with pytest.raises(ProgramError, match="bad input") as caught:
        await worker.request("fail", {})
    assert (caught.value.command, caught.value.worker_id, caught.value.type) == ("fail", "w-1", "ValueError")
    assert worker.why_unclean() is None


async def test_call_that_takes_too_long_leaves_an_answer_due(autojump_clock: MockClock) -> None:
    """The error says that the request was sent, and the worker may not be asked again before it is settled."""
    worker, _ = await greeted(slow=Plan().after(5.0).reply())
    with pytest.raises(CallTimeoutError, match="'slow' within 1 s") as caught:
        await worker.request("slow", {}, timeout=1.0)
    assert (caught.value.request_sent, caught.value.waited) == (True, 1.0)
    assert worker.why_unclean() == "answer_due"
    with pytest.raises(LocalProtocolError, match="still owes the answer"):
        await worker.request("echo", {})


@pytest.mark.parametrize("late_by", ["the answer", "an event", "a full pipe"])
async def test_call_whose_time_somebody_else_keeps_ends_as_one_with_a_scope(
    late_by: str, autojump_clock: MockClock
) -> None:
    """Whatever it waits for; also if it was about to go on when its time was up, and would wait again."""
    events = Plan().after(1.0).event("progress", {"done": 1}).after(5.0).reply()
    worker, port = await greeted(slow=events if late_by == "an event" else Plan().after(5.0).reply())
    told: list[float] = []
    worker.watch = told.append
    if late_by == "a full pipe":
        port.accept_only(5)
    async with trio.open_nursery() as nursery:
        if late_by != "an event":
            nursery.start_soon(_expire_at, worker, 1.0)
        with pytest.raises(CallTimeoutError, match="'slow' within 1 s") as caught:
            await worker.request("slow", {}, timeout=1.0, on_event=lambda _: worker.expire())
    assert told == [1.0]
    assert trio.current_time() == 1.0
    assert (worker.deadline, caught.value.request_sent) == (math.inf, True)
    assert worker.why_unclean() == ("torn_frame" if late_by == "a full pipe" else "answer_due")
    if late_by != "a full pipe":
        await worker.settle()
        assert await worker.request("echo", {"x": 1}) == {"x": 1}, "the next one is not late"


async def _expire_at(worker: PoolWorker, deadline: float) -> None:
    await trio.sleep_until(deadline)
    worker.expire()


async def test_answer_that_came_in_time_is_taken_whoever_keeps_it(autojump_clock: MockClock) -> None:
    """Before or after its caller's turn, the time ran out at the same moment; the next request is not touched."""
    worker, _ = await greeted(slow=Plan().after(1.0).reply("in time"))
    worker.watch = lambda _: None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expire_if_still_asked, worker)
        assert await worker.request("slow", {}, timeout=2.0) == "in time"
    assert await worker.request("echo", {"x": 1}, timeout=2.0) == {"x": 1}


async def _expire_if_still_asked(worker: PoolWorker) -> None:
    await trio.sleep_until(1.0)
    if worker.deadline == 2.0:
        worker.expire()


async def test_call_without_time_sends_nothing() -> None:
    """With a timeout of zero not a byte is written, and the worker stays clean."""
    worker, port = await greeted()
    worker.watch = lambda _: worker.expire()
    before = port.bytes_sent
    with pytest.raises(CallTimeoutError) as caught:
        await worker.request("echo", {}, timeout=0.0)
    assert caught.value.request_sent is False
    assert (port.bytes_sent, worker.why_unclean()) == (before, None)


async def test_call_cancelled_before_its_first_byte_was_never_made(autojump_clock: MockClock) -> None:
    """A full pipe took nothing: the request is taken back and the worker can be asked again."""
    worker, port = await greeted()
    port.accept_only(0)
    await give_up(worker, "echo")
    port.go_on()
    assert worker.why_unclean() is None
    assert await worker.request("echo", {}) == {}


@pytest.mark.parametrize("lacking", [1, 4, 60])
async def test_call_cancelled_within_its_frame_spoils_the_worker(
    lacking: int, autojump_clock: MockClock
) -> None:
    """Half a frame can never be mended: the worker is torn, and its next request finds the way closed."""
    worker, port = await greeted()
    before = port.bytes_sent
    await worker.request("echo", {})
    port.accept_only(port.bytes_sent - before - lacking)
    await give_up(worker, "echo")
    assert (worker.is_torn, worker.why_unclean()) == (True, "torn_frame")


async def test_ctrl_c_behind_an_answer_leaves_the_worker_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was taken: nothing is due, and the caller hears of Ctrl-C and of nothing else."""
    worker, _ = await greeted()

    def receive(conversation: ClientConversation, payload: bytes) -> Never:
        real_receive(conversation, payload)
        raise KeyboardInterrupt

    real_receive = ClientConversation.receive
    with monkeypatch.context() as patched:
        patched.setattr(ClientConversation, "receive", receive)
        with pytest.raises(KeyboardInterrupt):
            await worker.request("echo", {})
    assert worker.why_unclean() is None
    assert await worker.request("echo", {"x": 1}) == {"x": 1}


@pytest.mark.parametrize("broken", [{"a": float("nan")}, {"a": object()}])
async def test_args_that_cannot_be_sent_harm_nothing(broken: dict[str, Any]) -> None:
    """The caller is told, not a byte is written, and no answer is due."""
    worker, port = await greeted()
    before = port.bytes_sent
    with pytest.raises(LocalProtocolError):
        await worker.request("echo", broken)
    assert (port.bytes_sent, worker.why_unclean()) == (before, None)


async def test_args_too_long_for_a_frame_harm_nothing() -> None:
    """A request over the limit is taken back; the worker can be asked again."""
    port = MockPort("w-1", 1, max_frame_bytes=400)
    port.answer("echo", lambda args: args)
    worker = PoolWorker(port, worker_id="w-1", incarnation=1)
    port.answer_handshake({})
    await worker.handshake()
    with pytest.raises(LocalFrameTooLargeError):
        await worker.request("echo", {"a": "x" * 400})
    assert worker.why_unclean() is None


@pytest.mark.parametrize(
    ("plan", "kind", "says"),
    [
        (Plan().reply(request_id=9), RemoteProtocolError, "never asked"),
        (Plan().garbage(b"\0\0\0\2no"), RemoteProtocolError, "no"),
        (Plan().garbage(), RemoteFrameTooLargeError, "print to stdout"),
        (Plan().oversize(), RemoteFrameTooLargeError, "w-1"),
    ],
)
async def test_worker_that_breaks_the_protocol_is_garbled(
    plan: Plan, kind: type[RemoteProtocolError], says: str
) -> None:
    """The error names the worker; it is asked nothing more."""
    worker, _ = await greeted(work=plan)
    with pytest.raises(kind, match=says) as caught:
        await worker.request("work", {})
    assert caught.value.worker_id == "w-1"
    assert worker.why_unclean() == "protocol_error"


# --- death ------------------------------------------------------------------------------------------------


async def attend(worker: PoolWorker) -> None:
    """Reap the worker, as its life does."""
    await worker.port.attend()
    worker.exited.set()


async def test_death_during_a_call_tells_how_and_whether_it_was_sent(autojump_clock: MockClock) -> None:
    """Exit status, last words and whether the request may have taken effect are in the error."""
    worker, _ = await greeted(work=Plan().after(1.0).stderr("out of memory\n").die(signal=9))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attend, worker)
        with pytest.raises(
            WorkerDiedError, match=r"killed by signal 9.*out of memory.*taken effect"
        ) as caught:
            await worker.request("work", {})
    assert (caught.value.signal, caught.value.request_sent) == (9, True)
    assert worker.why_unclean() == "died"


async def test_death_before_a_call_is_told_as_such() -> None:
    """Nothing was sent, so nothing can have happened."""
    worker, port = await greeted()
    port.die(code=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attend, worker)
        with pytest.raises(WorkerDiedError, match="never had the request") as caught:
            await worker.request("echo", {})
    assert (caught.value.request_sent, caught.value.exit_status) == (False, 3)


async def test_second_request_to_a_worker_that_has_died_tells_of_its_death(autojump_clock: MockClock) -> None:
    """Who asks again in the same lease is not told that the worker still owes an answer: it never will."""
    worker, port = await greeted(work=Plan().after(1.0).die(signal=9))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attend, worker)
        with pytest.raises(WorkerDiedError):
            await worker.request("work", {})
        before = port.bytes_sent
        with pytest.raises(WorkerDiedError, match=r"killed by signal 9.* never had the request") as caught:
            await worker.request("echo", {})
    assert (caught.value.request_sent, port.bytes_sent) == (False, before)


async def test_end_of_output_is_reported_even_if_nobody_reaps_the_process(autojump_clock: MockClock) -> None:
    """An answer cut short is an error after half a second at most; it says how much is missing."""
    worker, _ = await greeted(work=Plan().send_partial_frame(10, "x" * 50).die())
    with pytest.raises(WorkerDiedError, match="its output ended, in the middle of an answer") as caught:
        await worker.request("work", {})
    assert caught.value.exit_status is None
    assert trio.current_time() == 0.5


# --- settling ---------------------------------------------------------------------------------------------


async def test_settling_interrupts_until_the_answer_comes(autojump_clock: MockClock) -> None:
    """The command is asked to stop, again and again, and its answer is taken in."""
    worker, port = await greeted(slow=Plan().after(0.3, deaf=True).stall())
    await give_up(worker, after=0.1)
    await worker.settle()
    assert worker.why_unclean() is None
    assert 1 < port.signals.count("interrupt") < 10
    assert 0.3 < trio.current_time() < 0.6


async def test_settling_takes_in_late_events_and_answers(autojump_clock: MockClock) -> None:
    """What a command that was given up still says is read and dropped."""
    plan = (
        Plan().after(1.0, deaf=True).event("progress", {"done": 1}).event("log", {"message": "bye"}).reply()
    )
    worker, _ = await greeted(slow=plan)
    await give_up(worker, after=0.5)
    await worker.settle()
    assert worker.why_unclean() is None
    assert await worker.request("echo", {}) == {}


async def test_settling_with_nothing_due_does_nothing() -> None:
    """A clean worker is not even interrupted."""
    worker, port = await greeted()
    await worker.settle()
    assert port.signals == []


async def test_settling_a_cancelled_settling_loses_nothing(autojump_clock: MockClock) -> None:
    """Cut short and begun again, it still waits for the same answer."""
    worker, _ = await greeted(slow=Plan().late_reply(after=3.0))
    await give_up(worker, after=0.5)
    with trio.move_on_after(1.0):
        await worker.settle()
    assert worker.owes_answer
    await worker.settle()
    assert (worker.owes_answer, trio.current_time()) == (False, 3.0)


@pytest.mark.parametrize(
    ("plan", "kind", "unclean"),
    [
        (Plan().after(1.0, deaf=True).die(), WorkerDiedError, "died"),
        (Plan().after(1.0, deaf=True).reply(request_id=9), RemoteProtocolError, "answer_due"),
    ],
)
async def test_settling_a_worker_that_dies_or_lies_raises(
    plan: Plan, kind: type[Exception], unclean: str, autojump_clock: MockClock
) -> None:
    """The pool hears of it and replaces the worker."""
    worker, _ = await greeted(slow=plan)
    await give_up(worker, after=0.5)
    with pytest.raises(kind):
        await worker.settle()
    assert worker.why_unclean() == unclean


# --- events -----------------------------------------------------------------------------------------------


async def test_events_of_a_request_reach_its_caller() -> None:
    """Chunks and progress are handed on as they come; without a taker they are dropped."""
    plan = Plan().event("chunk", {"text": "a"}).event("progress", {"done": 1}).reply("end")
    worker, _ = await greeted(work=plan)
    heard: list[Event] = []
    assert await worker.request("work", {}, on_event=heard.append) == "end"
    assert [(event.event, event.data) for event in heard] == [
        ("chunk", {"text": "a"}),
        ("progress", {"done": 1}),
    ]


async def test_taker_of_events_that_fails_leaves_an_answer_due() -> None:
    """Its error reaches the caller, and the worker is settled like any that was given up."""
    worker, _ = await greeted(work=Plan().event("chunk", {}).after(1.0).reply())

    def fail(_: Event) -> None:
        raise KeyError("cannot be shown")

    with pytest.raises(KeyError, match="cannot be shown"):
        await worker.request("work", {}, on_event=fail)
    assert worker.why_unclean() == "answer_due"


@pytest.mark.parametrize(
    ("level", "expected"),
    [("WARNING", logging.WARNING), ("error", logging.ERROR), (35, 35), ("loud", 20), (None, 20), ([1], 20)],
)
async def test_log_events_are_logged_with_their_origin(
    level: object, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker's log line is one of ours, with the worker's name; a level that is none counts as INFO."""
    data = {"level": level, "message": "hot", "logger": "dspy.lm", "session_id": "s"}
    worker, _ = await greeted(work=Plan().event("log", data).reply())
    with caplog.at_level(logging.DEBUG, "dspex_pool.worker"):
        assert await worker.request("work", {}) is None
    record = caplog.records[-1]
    assert (record.levelno, record.getMessage()) == (expected, "w-1: hot")
    assert vars(record)["remote_logger"] == "dspy.lm"


async def test_log_events_below_the_level_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody wants to see costs no record."""
    worker, _ = await greeted(work=Plan().event("log", {"level": "DEBUG", "message": "cold"}).reply())
    with caplog.at_level(logging.WARNING, "dspex_pool.worker"):
        await worker.request("work", {})
    assert not caplog.records
