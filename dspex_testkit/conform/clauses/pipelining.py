"""C: several requests at once."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Opening, Subject, hold
from dspex_testkit.conform.wire import frame, is_same_id, request, show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Message, Wire

__all__ = ["CLAUSES"]

pipelining = Subject("C", "concurrency")
CLAUSES = pipelining.clauses

_UNKNOWN = "conform_unknown_command"


def _answers(wire: Wire, count: int) -> list[Message]:
    return [wire.answer() for _ in range(count)]


@pipelining.clause(1, say.ONE_ANSWER)
def _two_outstanding(wire: Wire) -> None:
    """Two requests that are out at the same time are both answered, in any order."""
    wire.write(frame(request("ping", id=1_001)) + frame(request("ping", id=1_002)))
    outcomes = [answer.get("success") for answer in _answers(wire, 2)]
    hold(outcomes == [True, True], f"the answers say {outcomes}")


@pipelining.clause(2, say.ONE_ANSWER)
def _many_outstanding(wire: Wire) -> None:
    """A hundred requests in one piece are all answered, and each only once."""
    wire.write(b"".join(frame(request("ping", id=number)) for number in range(2_000, 2_100)))
    answers = _answers(wire, 100)
    hold(all(answer.get("success") is True for answer in answers), "not all were answered by a success")
    ids = [answer.get("id") for answer in answers]
    # A worker with ids of its own making is the matter of other clauses; here none may be lost or doubled.
    hold(len({*map(repr, ids)}) in (1, 100), f"100 requests were answered under {len({*map(repr, ids)})} ids")


@pipelining.clause(3, say.ONE_ANSWER)
def _good_and_bad_mixed(wire: Wire) -> None:
    """Good requests, unknown commands and invalid ones in one piece are answered each."""
    good, unknown = request("ping", id=3_001), request(_UNKNOWN, id=3_002)
    wire.write(b"".join(map(frame, (good, b"{no json", unknown, good.replace(b"3001", b"3003")))))
    outcomes = [answer.get("success") for answer in _answers(wire, 4)]
    hold(outcomes.count(True) == 2, f"two were good, but the answers say {outcomes}")


@pipelining.clause(4, say.ONE_ANSWER)
def _client_that_reads_late(wire: Wire) -> None:
    """Answers wait in the pipe for a client that reads late; none is lost."""
    wire.write(b"".join(frame(request("ping", id=number)) for number in range(4_000, 4_300)))
    time.sleep(0.05)
    hold(all(answer.get("success") is True for answer in _answers(wire, 300)), "an answer is no success")


@pipelining.clause(5, say.ONE_ANSWER, opening=Opening.FRESH, needs=("slow",))
def _behind_a_slow_command(wire: Wire) -> None:
    """A request behind a slow command is answered, at the latest when that is cancelled."""
    number = wire.begin("slow", id=5_001)
    wire.send("ping", id=5_002)
    deadline = time.monotonic() + wire.profile.timeout
    answer = wire.first_answer(number)
    while answer is None and time.monotonic() < deadline:
        wire.signal(signal.SIGINT)
        answer = wire.answer_within(0.1)
    # A worker that ends, or goes on with its command in spite of the signal, is the matter of another clause.
    if answer is not None:
        second = answer if is_same_id(answer.get("id"), 5_002) else wire.answer()
        hold(
            is_same_id(second.get("id"), 5_002),
            f"the request behind it was not answered, but came {show(second)}",
        )
