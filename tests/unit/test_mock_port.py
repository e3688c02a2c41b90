"""What the mock port promises to the tests that stand on it."""

from __future__ import annotations

import contextlib
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import (
    LocalFrameTooLargeError,
    PortClosedError,
    RemoteFrameTooLargeError,
    RemoteProtocolError,
    WorkerStartError,
)
from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES
from dspex_pool.protocol.messages import Event, Failure, Success
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.contracts.port import PortContract
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.plan import CommandFailedError, Plan
from dspex_testkit.script import ScriptNotDrainedError, UnexpectedRequestError
from dspex_testkit.server_faults import Fault, FaultyAnswerer
from dspex_testkit.worker_model import Reactions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from dspex_pool.protocol.messages import Reply
    from dspex_pool.transport.port import Port, PortFactory


class Client:
    """The other end of a mock port: the product's conversation, without a pool."""

    def __init__(self, port: MockPort) -> None:
        self.port = port
        self.conversation = ClientConversation(peer=f"worker {port.worker_id}")
        self.events: list[Event] = []

    async def shake_hands(self) -> Reply:
        args = {"initialization": True, "worker_id": "w-0", "protocol": 2, "events": ["log", "chunk"]}
        return await self.ask("ping", args)

    async def ask(self, command: str, args: dict[str, Any] | None = None) -> Reply:
        await self.say(command, args)
        return await self.hear()

    async def say(self, command: str, args: dict[str, Any] | None = None) -> int:
        request_id, payload = self.conversation.request(command, args or {})
        await self.port.send(payload)
        return request_id

    async def hear(self) -> Reply:
        while True:
            message = self.conversation.receive(await self.port.receive())
            if isinstance(message, Success | Failure):
                return message
            if isinstance(message, Event):
                self.events.append(message)


async def connect(port: MockPort | None = None) -> Client:
    client = Client(port if port is not None else MockPort())
    await client.shake_hands()
    return client


def result_of(reply: Reply) -> Any:
    assert isinstance(reply, Success), reply
    return reply.result


def error_of(reply: Reply) -> tuple[str, str]:
    assert isinstance(reply, Failure), reply
    assert reply.error_info is not None
    return reply.error_info.type, reply.error


def test_mock_port_is_a_port_to_the_type_checker() -> None:
    """The mock has the members of the interface."""
    port: Port = MockPort()
    factory: PortFactory = MockPortFactory()
    assert port.pid is None
    assert factory is not None
    assert repr(port) == "<MockPort w-0 incarnation 0>"


@pytest.mark.trio
async def test_handshake_is_answered_without_a_script() -> None:
    """A port without any script shakes hands, in the version that the client speaks."""
    client = Client(MockPort("w-7"))
    hello = result_of(await client.shake_hands())
    assert (hello["status"], hello["worker_id"], hello["protocol"]) == ("ok", "w-0", 2)
    assert client.conversation.version == 2


@pytest.mark.trio
async def test_handshake_says_nothing_of_version_2_to_a_version_1_client() -> None:
    """A version 1 client sees version 1 fields only."""
    client = Client(MockPort())
    hello = result_of(await client.ask("ping", {"initialization": True, "worker_id": "w-0"}))
    assert "protocol" not in hello


@pytest.mark.trio
async def test_handshake_hangs_when_the_test_says_so(autojump_clock: MockClock) -> None:
    """A worker that never answers its first ping can be played."""
    port = MockPort()
    port.answer_handshake(Plan().stall())
    with trio.move_on_after(60) as scope:
        await Client(port).shake_hands()
    assert scope.cancelled_caught


@pytest.mark.trio
async def test_expectations_are_met_in_order() -> None:
    """Each request takes the next expectation, and a drained script passes."""
    client = await connect()
    client.port.expect("first").reply(1)
    client.port.expect("second", {"a": 2}).fail("no", type="Bad", code="x")
    assert result_of(await client.ask("first")) == 1
    assert error_of(await client.ask("second", {"a": 2, "b": 3})) == ("Bad", "no")
    assert [request.command for request in client.port.received] == ["ping", "first", "second"]
    client.port.assert_drained()


@pytest.mark.trio
async def test_expectation_takes_a_predicate_on_the_arguments() -> None:
    """Arguments may be judged by a function."""
    client = await connect()
    client.port.expect("add", lambda args: args["n"] > 3).reply("big")
    assert result_of(await client.ask("add", {"n": 4})) == "big"


@pytest.mark.trio
@pytest.mark.parametrize(("command", "args"), [("other", {}), ("add", {"n": 2}), ("add", {})])
async def test_unexpected_request_shows_expected_beside_what_came(command: str, args: dict[str, Any]) -> None:
    """A request that does not match fails at once, with both sides."""
    client = await connect()
    client.port.expect("add", {"n": 1}).reply(1)
    with pytest.raises(
        UnexpectedRequestError, match=r"expected: add with at least \{'n': 1\}\n.*came: +"
    ) as info:
        await client.ask(command, args)
    assert f"{command} (id 1) with {args!r}" in str(info.value)


@pytest.mark.trio
async def test_script_is_not_drained_while_expectations_are_left_or_strangers_came() -> None:
    """What is left and what came unexpectedly is listed."""
    client = await connect()
    client.port.expect("never", lambda args: True)
    with pytest.raises(UnexpectedRequestError, match="expected: never with args that satisfy <lambda>"):
        await client.ask("stranger")
    with pytest.raises(ScriptNotDrainedError, match=r"never came: never(.|\n)*not expected: +stranger"):
        client.port.assert_drained()


@pytest.mark.trio
async def test_rules_answer_what_no_expectation_takes() -> None:
    """A value, a function, a failing function, a plan, and a rule for all other commands."""

    def refuse(args: dict[str, Any]) -> Any:
        raise CommandFailedError("not you", type="InvalidArgument")

    client = await connect()
    client.port.answer("value", [1]).answer("function", lambda args: args["x"] * 2)
    client.port.answer("refuse", refuse).answer("plan", Plan().reply("p")).answer("*", "else")
    client.port.expect("once").reply("expected")
    assert result_of(await client.ask("value")) == [1]
    assert result_of(await client.ask("function", {"x": 4})) == 8
    assert error_of(await client.ask("refuse")) == ("InvalidArgument", "not you")
    assert result_of(await client.ask("plan")) == "p"
    assert result_of(await client.ask("once")) == "expected"
    assert result_of(await client.ask("once")) == "else"


@pytest.mark.trio
async def test_answer_takes_virtual_time(autojump_clock: MockClock) -> None:
    """A busy worker answers when its time has come, not earlier."""
    client = await connect()
    client.port.answer("slow", Plan().after(3600).reply("done"))
    began = trio.current_time()
    assert result_of(await client.ask("slow")) == "done"
    assert trio.current_time() - began == pytest.approx(3600)


@pytest.mark.trio
async def test_requests_wait_behind_the_one_in_work(autojump_clock: MockClock) -> None:
    """The worker is serial: two seconds each, so the third answer comes after six."""
    client = await connect()
    client.port.answer("slow", lambda args: Plan().after(2).reply(args["n"]))
    began = trio.current_time()
    for number in range(3):
        await client.say("slow", {"n": number})
    await trio.sleep(1)
    assert [result_of(await client.hear()) for _ in range(3)] == [0, 1, 2]
    assert trio.current_time() - began == pytest.approx(6)


@pytest.mark.trio
async def test_hung_worker_stays_hung_until_interrupted(autojump_clock: MockClock) -> None:
    """Later requests wait behind a hung one; the interrupt ends it with ``Cancelled``."""
    client = await connect()
    client.port.answer("hang", Plan().stall()).answer("echo", "ok")
    await client.say("hang")
    await client.say("echo")
    with trio.move_on_after(1000):
        await client.hear()
        pytest.fail("a hung worker answered")
    client.port.interrupt()
    assert error_of(await client.hear())[0] == "Cancelled"
    assert result_of(await client.hear()) == "ok"


@pytest.mark.trio
async def test_interrupt_is_answered_after_the_delay_that_was_set(autojump_clock: MockClock) -> None:
    """The reaction to an interrupt takes its time."""
    client = await connect(MockPort(reactions=Reactions(interrupt=1.5)))
    client.port.answer("hang", Plan().stall())
    await client.say("hang")
    began = trio.current_time()
    client.port.interrupt()
    assert error_of(await client.hear())[0] == "Cancelled"
    assert trio.current_time() - began == pytest.approx(1.5)


@pytest.mark.trio
async def test_interrupt_means_nothing_to_an_idle_worker() -> None:
    """SIGINT while idle is ignored, also by the next command."""
    client = await connect()
    client.port.answer("echo", "ok")
    client.port.interrupt()
    assert result_of(await client.ask("echo")) == "ok"
    assert not client.port.has_unread()


@pytest.mark.trio
@pytest.mark.parametrize("deaf_by", ["plan", "reactions"])
async def test_deaf_worker_ignores_interrupts(deaf_by: str, autojump_clock: MockClock) -> None:
    """A command that blocks signals, and a worker that never reacts, hang on."""
    client = await connect()
    client.port.answer("hang", Plan().stall(deaf=deaf_by == "plan"))
    if deaf_by == "reactions":
        client.port.reactions.interrupt = None
    await client.say("hang")
    client.port.interrupt()
    with trio.move_on_after(100) as scope:
        await client.hear()
    assert scope.cancelled_caught


@pytest.mark.trio
async def test_late_reply_comes_although_the_caller_left(autojump_clock: MockClock) -> None:
    """The answer to an abandoned request arrives later and is dropped once by the conversation."""
    client = await connect()
    client.port.answer("late", Plan().late_reply("late", after=10)).answer("echo", "ok")
    abandoned = await client.say("late")
    client.conversation.abandon(abandoned)
    client.port.interrupt()
    assert result_of(await client.ask("echo")) == "ok"
    assert client.conversation.is_clean


@pytest.mark.trio
async def test_events_come_before_the_answer() -> None:
    """Events of a request and of none reach a client that asked for them, no other kinds do."""
    client = await connect()
    plan = Plan().event("chunk", {"text": "a"}).event("progress", {"done": 1}).event("log").reply("end")
    client.port.answer("talk", plan)
    client.port.emit("log", {"message": "idle"})
    assert result_of(await client.ask("talk")) == "end"
    assert [(event.event, event.id) for event in client.events] == [("log", None), ("chunk", 1), ("log", 1)]


@pytest.mark.trio
async def test_duplicate_and_foreign_answers_break_the_conversation() -> None:
    """A second answer and an answer to another id are sent as they are ordered."""
    client = await connect()
    client.port.expect("twice").reply(1).duplicate()
    assert result_of(await client.ask("twice")) == 1
    with pytest.raises(RemoteProtocolError, match="settled already"):
        await client.hear()
    other = await connect()
    other.port.expect("foreign").reply(1, request_id=99)
    with pytest.raises(RemoteProtocolError, match="never asked"):
        await other.ask("foreign")


@pytest.mark.trio
async def test_garbage_and_oversize_are_seen_as_such() -> None:
    """Stray text and an oversize header raise from ``receive``, with the text."""
    client = await connect()
    client.port.expect("print").garbage(b"Traceback (most recent call last):\n")
    with pytest.raises(RemoteFrameTooLargeError, match="Traceback"):
        await client.ask("print")
    other = await connect(MockPort(max_frame_bytes=1000))
    other.port.expect("big").oversize()
    with pytest.raises(RemoteFrameTooLargeError, match="1001"):
        await other.ask("big")
    third = await connect()
    third.port.inject(b"\xff\xff\xff\xffstray")
    assert third.port.has_unread()
    with pytest.raises(RemoteFrameTooLargeError, match="stray"):
        await third.hear()


@pytest.mark.trio
async def test_partial_frame_then_death_is_an_unclean_end() -> None:
    """A frame cut by the worker's death says how many bytes are missing."""
    client = await connect()
    client.port.expect("cut").send_partial_frame(10, "x" * 100).die(signal=9)
    with pytest.raises(PortClosedError, match="missing") as info:
        await client.ask("cut")
    assert not info.value.clean
    assert info.value.missing > 100
    assert await client.port.attend() == ExitStatus(signal=9)


@pytest.mark.trio
async def test_answer_over_the_limit_becomes_a_failure() -> None:
    """The worker says so and lives on when an answer does not fit a frame."""
    client = await connect(MockPort(max_frame_bytes=400))
    client.port.answer("big", "x" * 1000).answer("echo", "ok")
    kind, text = error_of(await client.ask("big"))
    assert (kind, "400 bytes" in text) == ("LocalFrameTooLargeError", True)
    assert result_of(await client.ask("echo")) == "ok"


@pytest.mark.trio
async def test_request_over_the_limit_is_refused_unsent() -> None:
    """A request over the limit writes nothing."""
    port = MockPort(max_frame_bytes=10)
    with pytest.raises(LocalFrameTooLargeError):
        await port.send(b"x" * 11)
    assert port.bytes_sent == 0


@pytest.mark.trio
async def test_death_is_seen_by_everybody_who_waits(autojump_clock: MockClock) -> None:
    """A worker that dies by itself ends ``receive`` cleanly, ``attend`` with its status, and ``send``."""
    client = await connect()
    statuses: list[ExitStatus | None] = []

    async def attend() -> None:
        statuses.append(await client.port.attend())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attend)
        await trio.sleep(5)
        statuses.append(client.port.exit_status)
        client.port.die(code=3)
        assert client.port.has_unread()
        with pytest.raises(PortClosedError) as info:
            await client.hear()
    assert info.value.clean
    statuses.append(client.port.exit_status)
    assert statuses == [None, ExitStatus(code=3), ExitStatus(code=3)]
    with pytest.raises(PortClosedError):
        await client.say("anything")


@pytest.mark.trio
@pytest.mark.parametrize(
    ("signal", "status"),
    [("send_eof", ExitStatus(code=0)), ("terminate", ExitStatus(code=0)), ("kill", ExitStatus(signal=9))],
)
async def test_each_way_to_end_a_worker_takes_the_time_that_was_set(
    signal: str, status: ExitStatus, autojump_clock: MockClock
) -> None:
    """End of stdin, SIGTERM and SIGKILL end the worker after their delays, whatever it does."""
    client = await connect(MockPort(reactions=Reactions(eof=2, terminate=2, kill=2)))
    client.port.answer("hang", Plan().stall())
    await client.say("hang")
    began = trio.current_time()
    getattr(client.port, signal)()
    assert await client.port.attend() == status
    assert trio.current_time() - began == pytest.approx(2)


@pytest.mark.trio
async def test_worker_that_ignores_the_polite_ways_falls_to_kill(autojump_clock: MockClock) -> None:
    """Ignoring the end of stdin and SIGTERM leaves SIGKILL."""
    port = MockPort(reactions=Reactions(eof=None, terminate=None))
    port.send_eof()
    port.terminate()
    with trio.move_on_after(60) as scope:
        await port.attend()
    assert scope.cancelled_caught
    port.kill()
    assert await port.attend() == ExitStatus(signal=9)
    assert port.signals == ["eof", "terminate", "kill"]


@pytest.mark.trio
async def test_signals_to_a_reaped_worker_do_nothing() -> None:
    """After ``attend`` returned nothing is signalled."""
    port = MockPort()
    port.die()
    await port.attend()
    port.kill()
    port.interrupt()
    assert port.signals == []
    assert port.exit_status == ExitStatus(code=1)


@pytest.mark.trio
async def test_send_is_refused_after_stdin_was_closed() -> None:
    """Nothing can be written after ``send_eof``, even while the worker lives."""
    port = MockPort(reactions=Reactions(eof=None))
    port.send_eof()
    with pytest.raises(PortClosedError):
        await port.send(b"{}")


@pytest.mark.trio
async def test_cancelled_send_tears_the_frame_when_the_pipe_is_full(autojump_clock: MockClock) -> None:
    """A pipe that takes seven bytes leaves a torn frame when the sender is cancelled."""
    client = await connect()
    before = client.port.bytes_sent
    client.port.accept_only(7)
    with trio.move_on_after(1):
        await client.say("anything")
    assert client.port.bytes_sent - before == 7
    client.port.go_on()
    with pytest.raises(PortClosedError, match="half a frame"):
        await client.say("anything")


@pytest.mark.trio
async def test_blocked_send_goes_on_when_the_worker_reads_again(autojump_clock: MockClock) -> None:
    """A blocked sender is woken, and the whole frame arrives."""
    client = await connect()
    client.port.answer("echo", "ok").accept_only(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.say, "echo")
        await trio.sleep(1)
        client.port.go_on()
        assert result_of(await client.hear()) == "ok"


@pytest.mark.trio
async def test_blocked_send_goes_on_as_far_as_there_is_room_again(autojump_clock: MockClock) -> None:
    """Room for a few bytes more reaches a sender that is blocked already; it slept on, whatever room there was."""
    client = await connect()
    client.port.answer("echo", "ok").accept_only(3)
    before = client.port.bytes_sent
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.say, "echo")
        await trio.sleep(1)
        client.port.accept_only(4)
        await trio.sleep(1)
        assert client.port.bytes_sent - before == 7
        client.port.accept_only(1000)
        with trio.fail_after(1):
            assert result_of(await client.hear()) == "ok"


@pytest.mark.trio
async def test_worker_that_does_not_read_leaves_bytes_in_the_pipe(autojump_clock: MockClock) -> None:
    """What the worker has not taken is counted, also after its end, and answered when it reads again."""
    client = await connect()
    client.port.answer("echo", "ok").stop_reading()
    before = client.port.bytes_sent
    await client.say("echo")
    assert client.port.bytes_unread == client.port.bytes_sent - before > 0
    client.port.go_on()
    assert result_of(await client.hear()) == "ok"
    assert client.port.bytes_unread == 0
    client.port.stop_reading()
    await client.say("echo")
    client.port.die()
    await client.port.attend()
    assert client.port.bytes_unread


@pytest.mark.trio
async def test_blocked_send_ends_when_the_worker_dies(autojump_clock: MockClock) -> None:
    """A sender that waits for room hears that the worker is gone."""
    client = await connect()
    client.port.accept_only(0)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _send() -> None:
            with pytest.raises(PortClosedError):
                await client.say("anything")

        await trio.sleep(1)
        client.port.die()


@pytest.mark.trio
async def test_cancelled_send_writes_nothing_before_the_first_byte() -> None:
    """A sender that is cancelled already leaves the port untouched."""
    port = MockPort()
    with trio.CancelScope() as scope:
        scope.cancel()
        await port.send(b"{}")
    assert scope.cancelled_caught
    assert port.bytes_sent == 0


@pytest.mark.trio
async def test_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    """The answer that a cancelled receiver waited for is there for the next one."""
    client = await connect()
    client.port.answer("slow", Plan().after(2).reply("kept"))
    await client.say("slow")
    with trio.move_on_after(1):
        await client.hear()
    assert result_of(await client.hear()) == "kept"


@pytest.mark.trio
@pytest.mark.parametrize("name", ["receive", "attend"])
async def test_second_task_is_refused(name: str, autojump_clock: MockClock) -> None:
    """Two tasks on one direction are a bug of the pool, and said to be."""
    port = MockPort()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(getattr(port, name))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await getattr(port, name)()
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_second_sender_is_refused(autojump_clock: MockClock) -> None:
    """Two senders at once are a bug of the pool, and said to be."""
    port = MockPort()
    port.accept_only(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.send, b"{}")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await port.send(b"{}")
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_stray_bytes_from_the_client_end_the_worker() -> None:
    """A worker that is sent no frame says so on stderr and exits with 65."""
    port = MockPort(max_frame_bytes=100)
    port.model.feed(b"GET / HTTP/1.1\r\n", trio.current_time())
    assert await port.attend() == ExitStatus(code=65)
    assert "GET " in port.stderr_tail


@pytest.mark.trio
async def test_factory_remembers_every_port_and_fills_its_script(autojump_clock: MockClock) -> None:
    """Starts and ends can be counted, and a script given by incarnation."""
    factory = MockPortFactory({2: lambda port: port.answer("echo", "second")}, start_delay=0.5)
    first = await factory.open(worker_id="w-1", incarnation=1)
    second = await factory.open(worker_id="w-2", incarnation=2)
    assert trio.current_time() == pytest.approx(1.0)
    assert result_of(await (await connect(second)).ask("echo")) == "second"
    first.kill()
    await first.attend()
    assert (factory.started, factory.ended, factory.live) == (2, 1, [second])
    assert factory.port("w-1") is first
    factory.assert_drained()


@pytest.mark.trio
async def test_factory_fails_and_hangs_as_often_as_ordered(autojump_clock: MockClock) -> None:
    """First the failures, then the hang, then workers as usual; a cancelled start leaves no worker."""
    factory = MockPortFactory(lambda port: port.answer("*", 1), fail_starts=2, hang_starts=1)
    for _ in range(2):
        with pytest.raises(WorkerStartError, match="w-1"):
            await factory.open(worker_id="w-1", incarnation=1)
    with trio.move_on_after(100) as scope:
        await factory.open(worker_id="w-1", incarnation=1)
    assert scope.cancelled_caught
    assert (factory.failed, factory.cancelled, factory.started, factory.starting) == (2, 1, 0, 0)
    await factory.open(worker_id="w-1", incarnation=1)
    assert (factory.started, len(factory.attempts)) == (1, 4)


@pytest.mark.trio
class TestMockPort(PortContract):
    """The contract of all ports, on the mock."""

    @contextlib.asynccontextmanager
    async def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AsyncIterator[Port]:
        """Open a mock port to a canned worker."""
        port = MockPort(max_frame_bytes=max_frame_bytes)
        port.answer_rest(FaultyAnswerer(CannedBridge().plan, faults=faults).plan)
        yield port


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda port, _: port.expect(5), "a command is named by a text, such as 'echo', not 5"),
        (lambda port, _: port.expect("w", 5), "an object that must be among them, or a predicate, not 5"),
        (lambda port, _: port.expect("w", ["n"]), "or a predicate, not ['n']"),
        (lambda port, _: port.answer(5, 1), "a command is named by a text"),
        (lambda port, _: port.answer_rest(5), "a function of the request, not by 5"),
        (lambda port, _: port.accept_only(-1), "size must be at least 0, not -1"),
        (lambda _, plan: plan.after(-1), "the time -1 is refused: it must be seconds, 0 or more"),
        (lambda _, plan: plan.after(math.nan), "the time nan is refused"),
        (lambda _, plan: plan.after("1"), "the time '1' is refused"),
        (lambda _, plan: plan.late_reply(1, after=-1), "the time -1 is refused"),
        (lambda _, plan: plan.garbage("text"), "'text' is refused: it must be bytes"),
        (lambda _, plan: plan.oversize(-1), "the size -1 is refused: it must be a whole number of bytes"),
        (lambda _, plan: plan.send_partial_frame("4"), "the size '4' is refused"),
        (lambda _, plan: plan.event(5, {}), "the kind of event 5 is refused"),
        (lambda _, plan: plan.event("log", 5), "the data of an event 5 is refused"),
        (lambda _, plan: plan.stderr(b"oops"), "b'oops' is refused: it must be a text"),
        (lambda _, plan: plan.die(code=3, signal=9), "with a code or of a signal, and not both"),
    ],
)
@pytest.mark.trio
async def test_script_that_no_worker_can_follow_is_refused_where_it_is_written(write: Any, said: str) -> None:
    """The call that came to it failed with an error out of the worker's inside, or waited for ever."""
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        write(MockPort(), Plan())


@pytest.mark.trio
async def test_script_of_an_incarnation_that_was_never_opened_is_not_drained() -> None:
    """What a replacement was to be asked passed unseen when there was no replacement."""
    ports = MockPortFactory({1: lambda _: None, 2: lambda port: port.expect("work").reply()})
    with pytest.raises(ScriptNotDrainedError, match=r"incarnation 1 has a script .* opened were none"):
        ports.assert_drained()
    await ports.open(worker_id="w-1", incarnation=1)
    with pytest.raises(ScriptNotDrainedError, match=r"incarnation 2 has a script .* opened were \[1\]"):
        ports.assert_drained()


@pytest.mark.parametrize("behaviour", [5, {"w-1": lambda _: None}, {1: 5}])
def test_factory_refuses_what_fills_no_script(behaviour: Any) -> None:
    """Some of it failed each start of a worker, the rest was never looked at."""
    with pytest.raises(TypeError, match="fills no script: give a function of the port"):
        MockPortFactory(behaviour)
