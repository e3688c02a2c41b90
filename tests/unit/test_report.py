"""The picture of a failure: what is made of what was recorded, and what is told of it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from dspex_testkit.report.ascii_lanes import ascii_picture
from dspex_testkit.report.axis import Axis
from dspex_testkit.report.carried import carried, carry
from dspex_testkit.report.figures import buckets_of, percentile
from dspex_testkit.report.perfetto import trace_json
from dspex_testkit.report.recorder import BEGAN, ENDED, EVENT, FAILED, FAULT, FROM, TO, Recorder, note_fault
from dspex_testkit.report.story import story_of
from dspex_testkit.report.thinning import THINGS, thinned
from dspex_testkit.report.timeline import (
    ANSWERED,
    CALLERS,
    WORKERS,
    Call,
    Lane,
    Mark,
    Span,
    Timeline,
    Verdict,
)
from dspex_testkit.report.weaving import INSTANT, Weaver

pytestmark = pytest.mark.fast

#: A pool of one, whose worker is killed in the middle of a call while another waits.
KILLED = Timeline(
    "tests/test_x.py::test_killed",
    Verdict("AssertionError", "assert 1 == 2\nand more", 2.0, ("c2",)),
    lanes=(Lane("w1", "w-1 #1", WORKERS), Lane("c1", "call 1", CALLERS), Lane("c2", "call 2", CALLERS)),
    spans=(
        Span("w1", 0.0, 1.0, "leased", "call 1"),
        Span("c1", 0.0, 1.0, "holding", "w-1 #1"),
        Span("c2", 0.5, 2.0, "waiting"),
        Span("w1", 1.0, 2.0, "retiring", "died"),
    ),
    marks=(
        Mark(0.0, "w1", "to", "work 1", '{"id":1}'),
        Mark(1.0, "w1", "fault", "Kill", "signal 9", "leased", "call 1"),
        Mark(1.0, "c1", "end", "WorkerDiedError"),
    ),
    calls=(Call("call 1", 0.0, 1.0, "WorkerDiedError"),),
    restarts={"died": 1},
    replay="replay: pytest x --dspex-replay=S1.abc",
    seed="7",
)


def moved(at: float, name: str, to: str, caller: object = None, **more: Any) -> tuple[Any, ...]:
    """Return an event of the worker w-1 as a recorder keeps it."""
    about = {"worker_id": "w-1", "incarnation": 1, "from": None, "to": to, **more}
    return at, EVENT, 0, name, {"count": 1}, about, caller


class Task:
    """Stands for a task."""

    name = "module.function.<locals>.caller"


def test_recorded_events_become_lanes_of_workers_and_callers() -> None:
    """States of a worker follow each other, a lease names its caller, and an answered call has its time."""
    task, about = Task(), {"worker_id": "w-1", "command": "echo", "session": None, "attempts": 1}
    weaver = Weaver(zero=10.0)
    weaver.feed([
        moved(10.0, "worker_starting", "starting"),
        moved(11.0, "worker_started", "idle"),
        moved(12.0, "checkout", "leased", task),
        (12.0, TO, 0, 1, b'{"id":1,"command":"echo","args":{"api_key":"sesame"}}'),
        (13.0, FROM, 0, 1, b'{"id":1,"success":true,"result":null}'),
        (13.0, EVENT, 0, "call_stop", {"duration": 1.0}, about, task),
        moved(13.0, "checkin", "idle"),
        (14.0, FAULT, 0, 1, "Kill", "signal 9"),
        moved(14.0, "worker_retired", "dead", reason="died", exit="killed by signal 9"),
        (14.0, EVENT, 0, "worker_restarted", {"count": 1}, {"worker_id": "w-1", "reason": "died"}, None),
    ])  # fmt: skip
    timeline = weaver.timeline("x", Verdict("E", "", 4.0))
    states = [
        (span.kind, round(span.begin, 3), round(span.end, 3), span.label)
        for span in timeline.spans
        if span.lane == "w1"
    ]
    assert states == [
        ("starting", 0.0, 1.0, ""),
        ("idle", 1.0, 2.0, ""),
        ("leased", 2.0, 3.0, "caller 1"),
        ("idle", 3.0, 4.0, ""),
    ]
    assert [(mark.kind, mark.label) for mark in timeline.marks] == [
        ("to", "echo 1"), ("from", "answer 1"), ("end", ANSWERED), ("fault", "Kill"), ("died", "died"),
    ]  # fmt: skip
    assert "sesame" not in timeline.marks[0].detail
    assert [(call.outcome, round(call.seconds, 3)) for call in timeline.calls] == [(ANSWERED, 1.0)]
    assert timeline.restarts == {"died": 1}


def test_caller_has_its_worker_until_it_gives_it_back() -> None:
    """Who borrows a worker and makes no call has it for as long as the pool says so."""
    weaver = Weaver()
    weaver.feed(
        [moved(1.0, "checkout", "leased", Task()), moved(2.0, "checkin", "idle", **{"from": "leased"})]
    )
    weaver.feed([moved(9.0, "worker_retired", "dead", reason="closed", exit="")])
    held = [span for span in weaver.spans if span.kind == "holding"]
    assert [(span.label, span.begin, span.end) for span in held] == [("w-1 #1", 1.0, 2.0)]


def test_caller_that_gives_up_waiting_is_told_apart_from_the_others_in_line() -> None:
    """Who leaves the line is found by how long he stood there."""
    weaver = Weaver()
    for at in (0.0, 1.0):
        weaver.feed([(at, EVENT, 0, "waiting", {"waiting": 1}, {"session": None}, Task())])
    weaver.feed([(5.0, EVENT, 0, "timeout", {"wait": 4.0}, {"session": None, "reason": "timeouts"}, None)])
    timeline = weaver.timeline("x", Verdict("E", "", 6.0))
    assert timeline.calls == (Call("caller 2", 1.0, 5.0, "CheckoutTimeoutError"),)
    assert [span.end for span in timeline.spans] == [6.0, 5.0]


def test_callers_that_are_told_of_are_not_taken_for_others_in_line() -> None:
    """Of two calls that came at one moment, the event of the one that gives up ends none: its own end is told."""
    weaver = Weaver()
    weaver.feed([(0.0, BEGAN, 0, caller, "waiting") for caller in ("call 1", "call 2")])
    weaver.feed([
        (1.0, EVENT, 0, "timeout", {"wait": 1.0}, {"session": None}, None),
        (1.0, ENDED, 0, "call 2", "CheckoutTimeoutError", ""),
        (2.0, ENDED, 0, "call 1", ANSWERED, ""),
    ])  # fmt: skip
    ended = [(call.caller, call.outcome, round(call.seconds, 3)) for call in weaver.calls]
    assert ended == [("call 2", "CheckoutTimeoutError", 1.0), ("call 1", ANSWERED, 2.0)]


def test_story_says_what_failed_after_which_fault_and_who_held_what() -> None:
    """The three questions are answered in sentences, with names and moments."""
    story = story_of(KILLED)
    assert (story.failed, story.where) == ("AssertionError: assert 1 == 2", "at 2 s, to call 2")
    assert story.faults == (
        "Kill at 1 s struck w-1 #1, which call 1 held [signal 9]; it ended with WorkerDiedError at 1 s",
    )
    assert story.holders == (
        "w-1 #1 was held by nobody: retiring (died) since 1 s",
        "call 2 stood in line since 0.5 s",
    )
    assert story.unanswered == ("call 1 ended with WorkerDiedError at 1 s, after 1 s",)


def test_faults_after_the_failure_explain_nothing() -> None:
    """Only what came before is told, the latest first."""
    marks = tuple(Mark(at, "w1", "fault", f"F{at:g}") for at in (0.5, 1.0, 3.0))
    told = story_of(dataclasses.replace(KILLED, marks=marks)).faults
    assert [line[:2] for line in told] == ["F1", "F0"]


def test_picture_for_a_terminal_shows_lanes_faults_and_the_moment() -> None:
    """Workers and callers have a line each; the fault, the lost call and the failure stand where they belong."""
    lines = ascii_picture(KILLED, width=60).splitlines()
    worker, lost, waiting, pointer = lines[1:5]
    assert worker.startswith("w-1 #1  ")
    assert lost.endswith("E WorkerDiedError")
    assert worker.index("!") == lost.index("E")
    assert "=1=" in worker
    assert pointer.index("^") == len(waiting) - 1
    assert max(map(len, lines[:5])) <= 60 + 16
    assert all(line.isascii() for line in lines)


def test_pauses_are_cut_short_and_moments_keep_their_order() -> None:
    """An hour in which nothing happens does not squeeze the rest, and a full moment gets room."""
    moments = [0.0, 1.0, 1.0 + INSTANT, 2.0, 3602.0]
    axis = Axis(moments)
    places = [axis.place(at) for at in moments]
    assert places == sorted(places)
    assert places[2] - places[1] > 0.04
    assert axis.edges() == [0.0, 1.0 + INSTANT, 2.0, 3602.0]
    assert axis.place(2.0) > 0.3
    assert axis.cuts == [(2.0, 3602.0)]
    assert axis.place(1802.0) == pytest.approx((axis.place(2.0) + 1.0) / 2)


def test_trace_names_its_lanes_and_counts_microseconds() -> None:
    """The viewer finds a thread for each lane, spans with durations, and the fault in all lanes."""
    events = json.loads(trace_json(KILLED))["traceEvents"]
    assert {event["args"]["name"] for event in events if event["name"] == "thread_name"} == {
        "w-1 #1", "call 1", "call 2",
    }  # fmt: skip
    (lease,) = [event for event in events if event.get("cat") == "leased"]
    assert (lease["ts"], lease["dur"], lease["name"]) == (0, 1_000_000, "leased call 1")
    (fault,) = [event for event in events if event.get("cat") == "fault"]
    assert (fault["ph"], fault["s"], fault["ts"]) == ("i", "g", 1_000_000)


def test_long_run_is_thinned_to_what_is_near_its_failure() -> None:
    """What came shortly before stays, and the last fault, however long before it was."""
    marks = tuple(Mark(float(at), "w1", "fault" if at < 2 else "to", "x") for at in range(5 * THINGS))
    long = dataclasses.replace(KILLED, marks=marks, verdict=Verdict("E", "", 2.0 * THINGS))
    kept = [mark.at for mark in thinned(long).marks]
    assert len(kept) == THINGS + 1
    assert kept[0] == 1.0
    assert 2.0 * THINGS in kept
    assert thinned(KILLED) == KILLED


def test_percentiles_and_rates_are_those_of_the_calls() -> None:
    """A percentile is a latency that was measured, and each call is counted in one stretch."""
    assert [percentile(range(1, 101), percent) for percent in (50, 99, 100)] == [50, 99, 100]
    calls = tuple(Call("c", at, at + 1.0, ANSWERED if at else "E") for at in range(4))
    buckets = buckets_of(dataclasses.replace(KILLED, calls=calls), [0.0, 1.0, 2.0, 4.0])
    assert [(bucket.answered, bucket.others, bucket.rate) for bucket in buckets] == [
        (0, 1, 0),
        (1, 0, 1),
        (2, 0, 1),
    ]


def test_picture_travels_with_the_error_and_those_that_follow_from_it() -> None:
    """Whoever catches a later error still finds the timeline; it is drawn only then."""
    first = ValueError()
    carry(first, lambda: KILLED)
    later = RuntimeError()
    later.__cause__ = first
    assert carried(later) is KILLED
    assert carried(RuntimeError()) is None


def test_fault_is_noted_in_the_run_that_is_being_recorded() -> None:
    """A fault that knows no recorder is recorded all the same, and nowhere when nobody records."""
    note_fault("Kill", 1)
    with Recorder(clock=lambda: 5.0) as recorder:
        note_fault("Kill", 1, "signal 9")
    assert list(recorder.entries) == [(5.0, FAULT, 0, 1, "Kill", "signal 9")]


def test_who_held_what_is_taken_down_before_the_pool_is_closed() -> None:
    """In virtual time the closing of the pool has the moment of the failure; what it changes is not told."""
    now = 1.0
    with Recorder(clock=lambda: now) as recorder:
        recorder.entries.append(moved(1.0, "checkout", "leased", Task()))
        with pytest.raises(ValueError, match="x"), recorder.noting_failure():
            raise ValueError("x")
        recorder.entries.append(moved(1.0, "worker_retiring", "retiring", reason="closed"))
    weaver = Weaver()
    weaver.feed(recorder.entries)
    timeline = weaver.timeline("x", Verdict("ValueError", "x", 1.0))
    assert story_of(timeline).holders == ("w-1 #1 was held by caller 1 since 1 s",)


def test_caller_that_gave_its_worker_back_on_its_way_is_still_told() -> None:
    """When the test has failed its leases are over; who had them until then is what matters."""
    weaver = Weaver()
    weaver.feed([moved(1.0, "checkout", "leased", Task()), moved(2.0, "checkin", "idle"), (2.0, FAILED, 0)])
    told = story_of(weaver.timeline("x", Verdict("E", "", weaver.now))).holders
    assert told == ("w-1 #1 was held by nobody: idle since 2 s, until then by caller 1 since 1 s",)


def test_fault_that_is_named_and_done_is_told_once() -> None:
    """The name that a fault was injected under and what was done for it make one; later ones are others."""
    weaver = Weaver()
    weaver.feed(
        [
            moved(1.0, "worker_started", "idle"),
            (2.0, FAULT, 0, 1, "Kill", "exit"),
            (2.0, FAULT, 0, 1, "SIGKILL", ""),
        ]
    )
    weaver.feed([(3.0, FAULT, 0, 1, "Stop", "")])
    told = [(mark.label, mark.detail) for mark in weaver.marks]
    assert told == [("Kill, SIGKILL", "exit"), ("Stop", "")]


def test_fault_knows_its_workers_holder_by_the_order_of_things() -> None:
    """A worker that is given back, lent again and struck at one moment was in the hands of the second."""
    weaver, first, second = Weaver(), Task(), Task()
    weaver.feed([
        moved(1.0, "checkout", "leased", first),
        moved(2.0, "checkin", "idle"),
        moved(2.0, "checkout", "leased", second),
        (2.0, FAULT, 0, 1, "Kill", ""),
        moved(2.0, "worker_retiring", "retiring", reason="died"),
    ])  # fmt: skip
    (told,) = story_of(weaver.timeline("x", Verdict("E", "", 3.0))).faults
    assert told == "Kill at 2 s struck w-1 #1, which caller 2 held"
