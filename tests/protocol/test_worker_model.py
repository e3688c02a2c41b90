"""The serial worker model, fed with bytes and times by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.protocol.framing import FrameDecoder, encode_frame
from dspex_pool.protocol.messages import Event, Failure, Success, decode_from_worker
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.plan import Plan, Stall
from dspex_testkit.worker_model import Reactions, WorkerModel
from tests.search_profiles import depth

if TYPE_CHECKING:
    from dspex_pool.protocol.messages import Request

HELLO = {"initialization": True, "worker_id": "w-0", "protocol": 2, "events": ["log", "chunk"]}


class Bench:
    """A model with its client, at a time that the test sets."""

    def __init__(self, plans: dict[str, Plan] | None = None, **settings: Any) -> None:
        self.plans = {"ping": Plan().reply({"protocol": 2}), **(plans or {})}
        self.model = WorkerModel(self.answer, **settings)
        self.client = ClientConversation(peer="worker w-0")
        self.decoder = FrameDecoder()
        self.now = 0.0

    def answer(self, request: Request) -> Plan:
        return Plan(*self.plans[request.command].steps)

    def ask(self, command: str, args: dict[str, Any] | None = None) -> int:
        request_id, payload = self.client.request(command, args or {})
        self.model.feed(encode_frame(payload), self.now)
        return request_id

    def shake_hands(self) -> None:
        self.ask("ping", HELLO)
        self.heard()

    def heard(self, now: float | None = None) -> list[Any]:
        """Move to ``now`` and return what the worker said: results, error types, event kinds."""
        self.now = self.now if now is None else now
        self.model.advance(self.now)
        self.decoder.feed(self.model.take_output())
        said: list[Any] = []
        while (payload := self.decoder.next_frame()) is not None:
            message = self.client.receive(payload)
            match message:
                case Success():
                    said.append(message.result)
                case Failure():
                    said.append(message.error_info.type if message.error_info else message.error)
                case Event():
                    said.append(message.event)
        return said


@pytest.fixture
def bench() -> Bench:
    bench = Bench(
        {
            "echo": Plan().reply("echo"),
            "slow": Plan().after(2).reply("slow"),
            "hang": Plan().stall(),
            "talk": Plan().event("log").event("progress").after(1).event("chunk").reply("talked"),
            "deaf": Plan().after(2, deaf=True).after(2).reply("deaf"),
        }
    )
    bench.shake_hands()
    return bench


def test_worker_is_serial_in_time(bench: Bench) -> None:
    """Two slow requests take twice as long, though both came at once and nobody looked in between."""
    bench.ask("slow")
    bench.ask("slow")
    bench.ask("echo")
    assert bench.model.next_wakeup == 2.0
    assert bench.heard(1.9) == []
    assert bench.heard(2.0) == ["slow"]
    assert bench.model.next_wakeup == 4.0
    assert bench.heard(100.0) == ["slow", "echo"]
    assert bench.model.next_wakeup == math.inf


def test_worker_says_what_it_owes(bench: Bench) -> None:
    """Outstanding are the requests that came and were not answered, waiting ones included."""
    first, second = bench.ask("slow"), bench.ask("echo")
    assert bench.model.outstanding == {first, second}
    assert bench.model.is_busy is True
    bench.heard(2.0)
    assert (bench.model.outstanding, bench.model.is_busy) == (frozenset(), False)
    assert [request.command for request in bench.model.received] == ["ping", "slow", "echo"]


def test_events_come_while_the_worker_is_busy(bench: Bench) -> None:
    """Events that the client asked for are sent when they happen; other kinds are not."""
    bench.ask("talk")
    assert bench.heard() == ["log"]
    assert bench.heard(1.0) == ["chunk", "talked"]
    bench.model.emit("log", {}, bench.now)
    bench.model.emit("progress", {}, bench.now)
    assert bench.heard() == ["log"]


def test_interrupt_ends_the_running_command_only(bench: Bench) -> None:
    """The running command answers ``Cancelled``; the waiting one is served."""
    bench.ask("hang")
    bench.ask("echo")
    bench.model.interrupt(1.0)
    assert bench.heard(1.0) == ["Cancelled", "echo"]
    bench.model.interrupt(1.0)
    assert bench.heard(5.0) == []


def test_interrupt_comes_too_late_when_the_command_ends_first(bench: Bench) -> None:
    """The reaction takes three seconds, the command two: it answers, and the next one is spared."""
    bench.model.reactions.interrupt = 3.0
    bench.ask("slow")
    bench.model.interrupt(0.0)
    bench.model.interrupt(0.5)
    assert bench.heard(2.5) == ["slow"]
    bench.ask("slow")
    assert bench.heard(10.0) == ["slow"]


def test_deaf_worker_hears_again_when_its_deaf_part_is_over(bench: Bench) -> None:
    """An interrupt during the deaf part is lost; one after it counts."""
    bench.ask("deaf")
    bench.model.interrupt(1.0)
    assert bench.heard(2.5) == []
    bench.model.interrupt(3.0)
    assert bench.heard(3.0) == ["Cancelled"]


def test_interrupt_that_strikes_in_the_deaf_part_is_lost() -> None:
    """What counts is the moment of the reaction."""
    plan = Plan().after(1).after(5, deaf=True).reply("end")
    bench = Bench({"late": plan}, reactions=Reactions(interrupt=2.0))
    bench.shake_hands()
    bench.ask("late")
    bench.model.interrupt(0.5)
    assert bench.heard(10.0) == ["end"]


def test_interrupt_after_the_answer_ends_the_rest_silently(bench: Bench) -> None:
    """A command that has answered is not answered again."""
    bench.plans["lingering"] = Plan().reply("answer").after(5).duplicate()
    bench.ask("lingering")
    bench.model.interrupt(1.0)
    assert bench.heard(10.0) == ["answer"]


def test_end_drops_what_waits_and_nothing_happens_afterwards(bench: Bench) -> None:
    """After its end the worker takes no bytes, writes none, and keeps its first status."""
    bench.ask("slow")
    bench.ask("echo")
    bench.model.kill(1.0)
    bench.model.exit(ExitStatus(code=3), 1.0)
    bench.ask("echo")
    bench.model.write(b"stray", 2.0)
    bench.model.emit("log", {}, 2.0)
    bench.model.feed_eof(2.0)
    assert bench.heard(10.0) == []
    assert bench.model.exit_status == ExitStatus(signal=9)
    assert bench.model.next_wakeup == math.inf


def test_earliest_end_wins() -> None:
    """SIGTERM takes five seconds, SIGKILL a later one but faster: the first to strike decides."""
    model = WorkerModel(lambda request: Plan(), reactions=Reactions(terminate=5.0, kill=1.0))
    model.terminate(0.0)
    model.kill(2.0)
    model.advance(2.9)
    assert not model.has_ended
    model.advance(10.0)
    assert model.exit_status == ExitStatus(signal=9)


def test_end_of_stdin_in_a_frame_is_told_on_stderr(bench: Bench) -> None:
    """A torn request is reported, and the worker leaves with status 0 as always."""
    bench.model.feed(b"\0\0\0\x09{", 0.0)
    bench.model.feed_eof(0.0)
    assert "missing" in bench.model.stderr
    assert bench.model.exit_status == ExitStatus(code=0)


def test_bytes_that_are_no_frame_end_the_worker_with_65() -> None:
    """It says so on stderr."""
    model = WorkerModel(lambda request: Plan())
    model.feed(b"GET / HTTP/1.1\r\n\r\n", 0.0)
    assert model.exit_status == ExitStatus(code=65)
    assert "GET / HTTP" in model.stderr


def test_request_that_cannot_be_read_is_answered_without_an_id(bench: Bench) -> None:
    """JSON that is no request is a failure, and the worker lives on."""
    bench.model.feed(encode_frame(b'{"id": "x"}'), 0.0)
    output = bench.model.take_output()
    assert b'"id":null' in output
    assert b'"success":false' in output
    bench.ask("echo")
    assert bench.heard() == ["echo"]


def test_result_that_json_cannot_carry_is_a_failure(bench: Bench) -> None:
    """A canned result with NaN in it is refused by the encoder, by name."""
    bench.plans["nan"] = Plan().reply(math.nan)
    bench.ask("nan")
    assert bench.heard() == ["LocalProtocolError"]


def test_plan_speaks_on_stderr_and_dies(bench: Bench) -> None:
    """Last words come before the end; a plan without a status ends with 1."""
    bench.plans["die"] = Plan().stderr("last words\n").die()
    bench.ask("die")
    assert bench.model.stderr == "last words\n"
    assert bench.model.exit_status == ExitStatus(code=1)


def test_version_1_worker_knows_nothing_of_version_2() -> None:
    """It answers without ``error_info`` and sends no events, whatever the client offers."""
    bench = Bench({"fail": Plan().event("log").fail("no", type="Bad")}, version=1)
    bench.plans["ping"] = Plan().reply({})
    bench.ask("ping", HELLO)
    assert bench.heard() == [{}]
    bench.ask("fail")
    assert bench.heard() == ["no"]
    assert bench.model.received[0].args == {"initialization": True, "worker_id": "w-0"}
    bench.model.feed(encode_frame(b"[]"), 0.0)
    assert b'"id":null' in bench.model.take_output()


def test_thousands_of_waiting_requests_need_no_deep_stack(bench: Bench) -> None:
    """A long queue of quick requests is worked off in a loop."""
    bench.ask("slow")
    for _ in range(1200):  # more than the depth of the stack
        bench.ask("echo")
    assert len(bench.heard(3.0)) == 1201


def test_time_stamps_replay_unless_a_clock_is_given(bench: Bench) -> None:
    """Answers carry the model's own time, so that two runs write the same bytes."""
    bench.now = 7.0
    bench.ask("echo")
    assert b'"timestamp":7.0' in bench.model.take_output()


def test_unknown_step_is_a_bug_of_the_test(bench: Bench) -> None:
    """What is no step is refused."""
    bench.plans["odd"] = Plan().then("nonsense")  # type: ignore[arg-type] # the subject of the test
    with pytest.raises(TypeError, match="nonsense"):
        bench.ask("odd")


def test_plan_may_go_on_after_its_answer(bench: Bench) -> None:
    """A failure, and an event, that follow the answer are faults to test with; the model refused to play them."""
    bench.plans["twice"] = Plan().reply("once").fail("again").event("log", {"n": 1}).reply("thrice")
    bench.ask("twice")
    decoder = FrameDecoder()
    decoder.feed(bench.model.take_output())
    said = []
    while (payload := decoder.next_frame()) is not None:
        said.append(decode_from_worker(payload))
    assert [type(message) for message in said] == [Success, Failure, Event, Success]
    assert len({message.id for message in said}) == 1


def test_plan_shows_its_steps() -> None:
    """A plan in an error message can be read."""
    assert repr(Plan().stall(deaf=True)) == f"Plan({Stall(deaf=True)!r})"


@settings(max_examples=depth(10, 1000))
@given(
    chunks=st.lists(st.integers(1, 40), min_size=1),
    looks=st.lists(st.floats(0, 30, allow_nan=False), max_size=20),
)
def test_worker_says_the_same_whoever_looks_when(chunks: list[int], looks: list[float]) -> None:
    """Neither the split of the input nor the moments of looking change what is said, or in which order."""
    plans = {
        "slow": Plan().after(2).reply("slow"),
        "talk": Plan().event("log").after(3).event("chunk").reply("talked"),
    }
    commands = ["slow", "talk", "slow", "talk"]
    bench = Bench(plans)
    bench.shake_hands()
    stream = b"".join(encode_frame(bench.client.request(command, {})[1]) for command in commands)
    while stream:
        size = chunks[len(stream) % len(chunks)]
        bench.model.feed(stream[:size], 0.0)
        stream = stream[size:]
    said: list[Any] = []
    for moment in sorted([*looks, 30.0]):
        said += bench.heard(moment)
    assert said == ["slow", "log", "chunk", "talked", "slow", "log", "chunk", "talked"]


def test_stopped_worker_does_what_came_when_it_goes_on(bench: Bench) -> None:
    """Neither requests nor signals reach it meanwhile, and what it was doing waits; then all of it, in order."""
    bench.model.stop(0.0)
    bench.ask("echo")
    bench.model.interrupt(1.0)
    bench.model.terminate(2.0)
    assert bench.heard(10.0) == []
    assert bench.model.next_wakeup == math.inf
    bench.model.go_on(11.0)
    assert len(bench.heard(11.0)) == 1
    assert bench.model.exit_status == ExitStatus(code=0)


def test_stopped_worker_can_be_killed() -> None:
    """SIGKILL alone needs no cooperation."""
    model = WorkerModel(lambda request: Plan(), reactions=Reactions(kill=1.0))
    model.stop(0.0)
    model.feed_eof(0.0)
    model.kill(5.0)
    model.advance(5.5)
    assert not model.has_ended
    model.advance(6.0)
    assert model.exit_status == ExitStatus(signal=9)
