"""Faults by command and probability."""

from __future__ import annotations

import pytest

from dspex_pool.protocol.messages import Request
from dspex_testkit.plan import Pause, Plan, Repeat, Reply
from dspex_testkit.server_faults import FAULT_KINDS, Fault, FaultyAnswerer
from dspex_testkit.server_loop import ServerOptions
from tests.cases import case


def request(command: str = "work", number: int = 1, *, handshake: bool = False) -> Request:
    args = {"initialization": True} if handshake else {}
    return Request(number, "ping" if handshake else command, args, "2026-01-01T00:00:00Z")


def healthy(request: Request) -> Plan:
    return Plan().reply("well")


def test_answer_is_untouched_without_faults() -> None:
    """No delay, no fault: the plan itself."""
    assert FaultyAnswerer(healthy).plan(request()).steps == [Reply("well")]


def test_delay_comes_before_the_answer() -> None:
    """By command or for all; the handshake is spared."""
    answerer = FaultyAnswerer(healthy, delays={"work": 2.0, "*": 1.0})
    assert answerer.plan(request()).steps == [Pause(2.0), Reply("well")]
    assert answerer.plan(request("other")).steps == [Pause(1.0), Reply("well")]
    assert answerer.plan(request(handshake=True)).steps == [Reply("well")]


def test_every_kind_changes_the_plan_and_is_recorded() -> None:
    """A fault that was ordered happens, and can be proven."""
    for kind in FAULT_KINDS:
        with case(kind):
            answerer = FaultyAnswerer(healthy, faults=[Fault("work", kind)])
            assert answerer.plan(request()).steps != [Reply("well")]
            assert answerer.plan(request("other")).steps == [Reply("well")]
            assert answerer.injected == [(1, "work", kind)]


def test_duplicate_and_wrong_id_keep_the_result() -> None:
    """What is wrong is the id or the number of answers only."""
    twice = FaultyAnswerer(healthy, faults=[Fault("work", "duplicate")]).plan(request())
    assert twice.steps == [Reply("well"), Repeat()]
    (foreign,) = FaultyAnswerer(healthy, faults=[Fault("work", "wrong-id")]).plan(request()).steps
    assert isinstance(foreign, Reply)
    assert foreign.result == "well"
    assert foreign.request_id not in (None, 1)


def test_handshake_is_hit_only_by_a_fault_meant_for_it() -> None:
    """A star means all commands after the handshake."""
    answerer = FaultyAnswerer(healthy, faults=[Fault("*", "fail")])
    assert answerer.plan(request(handshake=True)).steps == [Reply("well")]
    assert answerer.plan(request("ping")).steps != [Reply("well")]
    hit = FaultyAnswerer(healthy, faults=[Fault("handshake", "hang")])
    assert hit.plan(request(handshake=True)).steps == Plan().stall().steps
    assert hit.plan(request("ping")).steps == [Reply("well")]


def test_faults_of_answers_hit_failures_and_last_answers_too() -> None:
    """A failure kept its id, and what came after the end was never sent; yet both were told as injected."""
    failing = FaultyAnswerer(lambda _: Plan().fail("no"), faults=[Fault("work", "wrong-id")])
    assert failing.plan(request()).steps == [Reply(None, request_id=2**31)]
    leaving = FaultyAnswerer(lambda _: Plan().reply("bye").die(code=0), faults=[Fault("work", "duplicate")])
    assert leaving.plan(request()).steps == [*Plan().reply("bye").duplicate().die(code=0).steps]


def test_fault_that_changes_nothing_is_not_told() -> None:
    """Where a script has the worker hang there is no answer that could come twice or under another id."""
    for kind in ("wrong-id", "duplicate", "hang"):
        with case(kind):
            silent = FaultyAnswerer(lambda _: Plan().stall(), faults=[Fault("work", kind)])
            assert silent.plan(request()).steps == Plan().stall().steps
            assert silent.injected == []


def test_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    """A run can be replayed from its seed."""

    def run(seed: int) -> list[int]:
        answerer = FaultyAnswerer(healthy, faults=[Fault("*", "fail", 0.5)], seed=seed)
        for number in range(50):
            answerer.plan(request(number=number))
        return [number for number, _, _ in answerer.injected]

    assert run(1) == run(1) != run(2)
    assert 10 < len(run(1)) < 40


def test_fault_is_read_from_text() -> None:
    """``command:kind`` with or without a share."""
    assert Fault.parse("work:die") == Fault("work", "die")
    assert Fault.parse("*:hang:0.25") == Fault("*", "hang", 0.25)


def test_unreadable_fault_is_refused() -> None:
    """Unknown kinds, no command, shares beyond one."""
    for text in ["work", "work:explode", ":die", "work:die:2", "work:die:x"]:
        with case(text):
            with pytest.raises(ValueError, match=r"."):
                Fault.parse(text)


@pytest.mark.parametrize(
    ("command", "kind", "probability", "said"),
    [
        ("work", "kil", 1.0, "there is no kind of fault 'kil', only fail, hang"),
        ("", "kill", 1.0, "a fault hits a command, or \\*, and not ''"),
        ("work", "kill", 1.5, "the probability 1.5 must be from 0 to 1"),
        ("work", "kill", float("nan"), "the probability nan must be from 0 to 1"),
    ],
)
def test_fault_that_cannot_be_is_refused(command: str, kind: str, probability: float, said: str) -> None:
    """A misspelt kind ended the server's thread with a KeyError, and its client took that for the worker's death."""
    with pytest.raises(ValueError, match=said):
        Fault(command, kind, probability)


def test_delay_that_is_no_time_is_refused_before_the_server_starts() -> None:
    """It ended the thread at the first such command, like a fault that nobody had ordered."""
    with pytest.raises(ValueError, match="the time -1 is refused"):
        ServerOptions(delays={"work": -1})
