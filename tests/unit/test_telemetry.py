"""Events reach those who asked for them, cost nothing otherwise, and never hurt the pool."""

from __future__ import annotations

import logging
import math
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dspex_pool
from dspex_pool.errors import InvalidArgumentError
from dspex_pool.telemetry import EVENTS, PREFIX, Attachment, Telemetry, events_table, problem_with
from dspex_pool.telemetry.catalogue import MEASUREMENTS, METADATA
from tests.cases import case

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.fast

CHECKOUT = (*PREFIX, "checkout")


class Recorder:
    """A handler that keeps the names it got."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        self.names.append(event[-1])


def broken(event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]) -> None:
    raise ValueError("no disk space for metrics")


# --- handing out -------------------------------------------------------------------------------------


def test_event_reaches_the_handler_as_it_was_emitted() -> None:
    """Name, measurements and metadata arrive unchanged; a short name gets the prefix."""
    telemetry, got = Telemetry(), []
    telemetry.attach(PREFIX, lambda *event: got.append(event))
    telemetry.emit("checkout", {"wait": 0.5}, {"session": "a"})
    assert got == [(CHECKOUT, {"wait": 0.5}, {"session": "a"})]


def test_event_of_another_kind_is_emitted_by_its_whole_name() -> None:
    """A tuple is the whole name, so that handlers and extensions can have events of their own."""
    telemetry, got = Telemetry(), Recorder()
    telemetry.attach(("mine",), got)
    telemetry.emit(("mine", "tick"), {}, {})
    telemetry.emit("checkout", {"wait": 0.0}, {})
    assert got.names == ["tick"]


def test_handler_gets_the_events_below_its_prefix() -> None:
    """A prefix matches whole parts from the beginning, and nothing else."""
    cases: list[tuple[tuple[str, ...], list[str]]] = [
        ((), ["checkout", "checkin", "other"]),
        (("dspex",), ["checkout", "checkin"]),
        (PREFIX, ["checkout", "checkin"]),
        (CHECKOUT, ["checkout"]),
        (("python_bridge",), []),
        (("oth",), []),
    ]
    for prefix, expected in cases:
        with case(prefix):
            telemetry, got = Telemetry(), Recorder()
            telemetry.attach(prefix, got)
            telemetry.emit("checkout", {}, {})
            telemetry.emit("checkin", {}, {})
            telemetry.emit(("other",), {}, {})
            assert got.names == expected


def test_handlers_are_called_in_the_order_of_attachment() -> None:
    """The first attached is the first called, and the same handler may be attached twice."""
    telemetry, order = Telemetry(), []
    for name in ("first", "second", "first"):
        telemetry.attach((), lambda *event, name=name: order.append(name))
    telemetry.emit("ready", {}, {})
    assert order == ["first", "second", "first"]


def test_pool_is_observed_only_while_a_handler_is_attached() -> None:
    """Whoever emits can tell from an attribute that nobody listens."""
    telemetry = Telemetry()
    assert telemetry.observed is False
    first, second = telemetry.attach((), Recorder()), telemetry.attach((), Recorder())
    first.detach()
    seen = [telemetry.observed]
    second.detach()
    assert [*seen, telemetry.observed] == [True, False]


def test_change_of_observation_is_told() -> None:
    """Those who keep a copy of ``observed`` learn when it changes, and only then."""
    told: list[bool] = []
    telemetry = Telemetry()
    telemetry.on_observed = told.append
    with telemetry.attach((), Recorder()), telemetry.attach((), Recorder()):
        assert told == [True]
    assert told == [True, False]


def test_unobserved_event_is_not_looked_at() -> None:
    """Without a handler, emitting returns before it touches what it was given."""
    nothing: Any = None
    Telemetry().emit(nothing, nothing, nothing)


def test_handler_of_some_names_hears_those_only() -> None:
    """Of the events under its prefix it gets those that end in its names; whoever emits can ask who hears which."""
    telemetry, got, all_of_it = Telemetry(), Recorder(), Recorder()
    with telemetry.attach((), got, names=("checkout", "ready")):
        heard = [telemetry.heard[name] for name in ("checkout", "checkin", "ready")]
        telemetry.emit("checkin", {}, {})
        with telemetry.attach((), all_of_it):
            heard.append(telemetry.heard["checkin"])
            telemetry.emit("checkin", {}, {})
        telemetry.emit("ready", {}, {})
    heard.append(telemetry.heard["ready"])
    assert (got.names, all_of_it.names) == (["ready"], ["checkin"])
    assert heard == [True, False, True, True, False]


def test_telemetries_are_independent() -> None:
    """The events of one pool are not seen by another's handlers: there is nothing global."""
    one, other, got = Telemetry(), Telemetry(), Recorder()
    one.attach((), got)
    other.emit("ready", {}, {})
    assert got.names == []
    assert other.observed is False


# --- attaching and detaching -------------------------------------------------------------------------


def test_detached_handler_is_called_no_more() -> None:
    """Leaving the context ends the calls, and detaching again does nothing."""
    telemetry, got = Telemetry(), Recorder()
    with telemetry.attach((), got) as attachment:
        telemetry.emit("ready", {}, {})
    telemetry.emit("unready", {}, {})
    attachment.detach()
    assert got.names == ["ready"]
    assert not attachment.is_attached


def test_handler_can_detach_itself_and_others_while_it_runs() -> None:
    """A handler that was detached is not called, even by the event that is being handed out."""
    telemetry, got = Telemetry(), Recorder()

    def detach_all(*event: object) -> None:
        for attachment in (first, second):
            attachment.detach()

    first = telemetry.attach((), detach_all)
    second = telemetry.attach((), got)
    third = Recorder()
    telemetry.attach((), third)
    telemetry.emit("ready", {}, {})
    assert (got.names, third.names) == ([], ["ready"])


def test_handler_attached_by_a_handler_gets_the_next_event() -> None:
    """What is attached while an event is handed out begins with the following one."""
    telemetry, got = Telemetry(), Recorder()
    with telemetry.attach((), lambda *event: telemetry.attach((), got)):
        telemetry.emit("ready", {}, {})
    telemetry.emit("unready", {}, {})
    assert got.names == ["unready"]


def test_handler_can_emit_events_of_its_own() -> None:
    """An event emitted by a handler is handed out before the rest of the first."""
    telemetry, got = Telemetry(), Recorder()
    telemetry.attach(CHECKOUT, lambda *event: telemetry.emit(("mine",), {}, {}))
    telemetry.attach((), got)
    telemetry.emit("checkout", {}, {})
    assert got.names == ["mine", "checkout"]


def test_prefix_is_refused_when_it_is_no_tuple_of_strings() -> None:
    """A prefix that could never match is a mistake."""
    prefixes: list[Any] = ["checkout", ["dspex"], ("dspex", 1), None]
    for prefix in prefixes:
        with case(prefix):
            with pytest.raises(TypeError, match="tuple of strings"):
                Telemetry().attach(prefix, Recorder())


def test_event_that_there_is_not_is_refused() -> None:
    """A misspelt name was taken in silence and its handler never called; a single string was taken for letters."""
    refused: list[tuple[tuple[str, ...], Any, str]] = [
        ((*PREFIX, "call_stopp"), None, "did you mean 'call_stop'"),
        ((*PREFIX, "check"), None, "no event 'check'"),
        ((*CHECKOUT, "more"), None, "no event 'checkout.more'"),
        ((*PREFIX, "zzz"), None, "there are breaker_closed, .*worker_started"),
        (PREFIX, ("checkin", "call_stopp"), "did you mean 'call_stop'"),
    ]
    for prefix, names, expected in refused:
        with case(prefix, names), pytest.raises(InvalidArgumentError, match=f"(?i){expected}"):
            Telemetry().attach(prefix, Recorder(), names=names)
    with pytest.raises(TypeError, match="'checkout'"):
        Telemetry().attach(PREFIX, Recorder(), names="checkout")
    Telemetry().attach(("mine",), Recorder(), names=("tick",))


def test_handler_is_refused_when_it_would_have_to_be_awaited() -> None:
    """A coroutine function would never run, so it is refused at once; likewise what is no function."""

    async def handler(*event: object) -> None:
        pass

    wrongs: list[Any] = [handler, None]
    for wrong in wrongs:
        with pytest.raises(TypeError, match="plain function"):
            Telemetry().attach((), wrong)


def test_handlers_attached_and_detached_by_threads_are_all_accounted_for() -> None:
    """Attaching from several threads at once loses no handler and leaves none behind."""
    telemetry = Telemetry()

    def attach_and_detach() -> None:
        for attachment in [telemetry.attach((), Recorder()) for _ in range(50)]:
            attachment.detach()

    kept = telemetry.attach((), Recorder())
    threads = [threading.Thread(target=attach_and_detach) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert telemetry.observed is True
    kept.detach()
    assert telemetry.observed is False


@pytest.mark.parametrize("is_asked", [False, True], ids=["emitted", "asked for"])
def test_change_while_an_event_is_looked_up_counts_from_the_next_one(
    is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread attaches while another finds out who hears an event is not left out for good."""
    telemetry, first, second = Telemetry(), Recorder(), Recorder()
    attachment = telemetry.attach((), first, names=("unready",))
    added: list[Attachment] = []

    def is_for(self: Attachment, event: tuple[str, ...]) -> bool:
        if self is attachment and not added:
            added.append(telemetry.attach((), second))
        return real_is_for(self, event)

    real_is_for = Attachment.is_for
    monkeypatch.setattr(Attachment, "is_for", is_for)
    heard = [telemetry.heard["ready"]] if is_asked else []
    telemetry.emit("ready", {}, {})
    heard += [telemetry.heard["ready"], telemetry.heard["ready", "unready"]]
    telemetry.emit("ready", {}, {})
    added[0].detach()
    heard += [telemetry.heard["ready"], telemetry.heard["ready", "unready"]]
    telemetry.emit("ready", {}, {})
    assert heard == [*[False] * is_asked, True, True, False, True]
    assert (first.names, second.names) == ([], ["ready"] * (1 + is_asked))


def test_attachment_shows_what_it_is() -> None:
    """An attachment in a debugger says whose it is, to what, and whether it lives."""
    attachment = Telemetry().attach((), broken)
    assert repr(attachment) == "<Attachment of broken to all events, attached>"
    attachment.detach()
    assert "detached" in repr(attachment)
    assert "Recorder object" in repr(Telemetry().attach(("a", "b"), Recorder()))


# --- handlers that fail ------------------------------------------------------------------------------


def test_broken_handler_is_logged_once_and_detached(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that raises costs one log record with its name, and nobody else an event."""
    telemetry, got = Telemetry(), Recorder()
    attachment = telemetry.attach((), broken)
    telemetry.attach((), got)
    with caplog.at_level(logging.ERROR, "dspex_pool.telemetry"):
        telemetry.emit("ready", {}, {})
        telemetry.emit("unready", {}, {})
    assert got.names == ["ready", "unready"]
    assert not attachment.is_attached
    (record,) = caplog.records
    assert "broken" in record.getMessage()
    assert "dspex.python_bridge.pool.ready" in record.getMessage()


def test_broken_handler_leaves_the_pool_unobserved_when_it_was_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After the last handler failed, events cost nothing again."""
    telemetry = Telemetry()
    telemetry.attach((), broken)
    telemetry.emit("ready", {}, {})
    assert telemetry.observed is False
    assert len(caplog.records) == 1


def test_interrupt_in_a_handler_is_not_swallowed() -> None:
    """Ctrl-C reaches the program, even if it strikes in a handler."""
    telemetry = Telemetry()

    def interrupted(*event: object) -> None:
        raise KeyboardInterrupt

    telemetry.attach((), interrupted)
    with pytest.raises(KeyboardInterrupt):
        telemetry.emit("ready", {}, {})


# --- the catalogue -----------------------------------------------------------------------------------


def test_event_is_described_in_one_sentence_with_known_parts() -> None:
    """Each event has a sentence, and each of its parts a meaning and a unit."""
    for name in EVENTS:
        with case(name):
            spec = EVENTS[name]
            assert spec.doc[0].isupper()
            assert spec.doc.endswith(".")
            assert spec.measurements
            assert set(spec.measurements) <= MEASUREMENTS.keys()
            assert set(spec.metadata) <= METADATA.keys()
            example = dict.fromkeys(spec.measurements, 1.0), dict.fromkeys(spec.metadata, "x")
            assert problem_with((*PREFIX, name), *example) is None


def test_every_event_that_is_emitted_is_in_the_catalogue() -> None:
    """No module of the pool emits a name that the catalogue does not list."""
    emission = re.compile(r'\b_?emit(?:_moved)?\(\s*"(\w+)"')
    emitted = {
        name
        for path in Path(dspex_pool.__path__[0]).rglob("*.py")
        # The child's program emits events of the wire.
        if "bridge" not in path.parts
        for name in emission.findall(path.read_text(encoding="utf-8"))
    }
    assert "checkout" in emitted
    assert emitted <= EVENTS.keys()


def test_catalogue_explains_nothing_that_no_event_has() -> None:
    """Parts that no event carries any more are not explained."""
    assert {part for spec in EVENTS.values() for part in spec.measurements} == MEASUREMENTS.keys()
    assert {part for spec in EVENTS.values() for part in spec.metadata} == METADATA.keys()


def test_problem_is_found_with_what_the_catalogue_does_not_list() -> None:
    """A name, measurement or piece of metadata of somebody's own invention is found out."""
    cases: list[tuple[tuple[str, ...], Any, Any, str]] = [
        (("checkout",), {"wait": 0}, {}, "no event checkout"),
        ((*PREFIX, "checkuot"), {"wait": 0}, {}, "no event dspex.python_bridge.pool.checkuot"),
        ((*PREFIX, "x", "checkout"), {"wait": 0}, {}, "no event"),
        (CHECKOUT, {}, {}, r"measures \[\], should be \['wait'\]"),
        (CHECKOUT, {"wait": 0, "held": 1}, {}, "held"),
        (CHECKOUT, {"wait": -0.5}, {}, "wait = -0.5"),
        (CHECKOUT, {"wait": math.nan}, {}, "wait = nan"),
        (CHECKOUT, {"wait": math.inf}, {}, "wait = inf"),
        (CHECKOUT, {"wait": True}, {}, "wait = True"),
        (CHECKOUT, {"wait": "0"}, {}, "wait = '0'"),
        (CHECKOUT, {"wait": 0}, {"tenant": "x"}, "tenant"),
    ]
    for event, measurements, metadata, problem in cases:
        with case(event, measurements, metadata):
            found = problem_with(event, measurements, metadata)
            assert found is not None
            with pytest.raises(AssertionError, match=problem):
                raise AssertionError(found)


def test_metadata_may_be_missing_where_it_does_not_apply() -> None:
    """A worker that stays in its state has neither from nor to, and that is no problem."""
    assert problem_with((*PREFIX, "ping_stop"), {"duration": 0.1}, {"worker_id": "w-1", "ok": True}) is None


def test_table_lists_every_event() -> None:
    """The table for the documentation has one row for each event."""
    lines = events_table().splitlines()
    assert len(lines) == 2 + len(EVENTS)
    assert (
        "| `rejected` | A checkout was refused for another reason than time. | `wait` "
        "| `session`, `reason`, `queued` |" in lines
    )
