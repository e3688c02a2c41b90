"""Each checker finds its small wrong history, and lets the right one pass."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.config import PoolOptions
from dspex_pool.errors import (
    CheckoutTimeoutError,
    ProgramError,
    ProgramExistsError,
    ProgramNotFoundError,
    WorkerDiedError,
)
from dspex_testkit.history import checkers
from dspex_testkit.history.consistency import after, consistent
from dspex_testkit.history.record import History, Operation, Outcome, PoolEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_testkit.history.consistency import Programs


def ticking(**settings: Any) -> History:
    """Return a history whose clock goes on by a second with each look, of a pool with these settings."""
    return History(itertools.count(0.0).__next__, options=PoolOptions(**{"pool_size": 1, **settings}))


def told(history: History, checker: checkers.Checker) -> str:
    """Return what a checker finds, in words."""
    return "; ".join(violation.text for violation in checker(history))


def answered(
    history: History, command: str, value: Any = None, *, client: str = "c", **args: Any
) -> Operation:
    """Have one client call something in session ``s`` and be answered at once."""
    operation = history.begin(client, args.pop("session", "s"), command, args)
    history.ok(operation, value)
    return operation


def happened(history: History, name: str, measured: dict[str, float] | None = None, **about: Any) -> None:
    """Have the pool tell an event."""
    history.events.append(PoolEvent(history.next_place(), history.clock(), name, measured or {}, about))


# --- operations ----------------------------------------------------------------------------------------------------


def test_operation_without_an_outcome_or_with_two_is_found() -> None:
    """One that never ended and one that ended twice are both told."""
    history = ticking()
    twice = answered(history, "echo")
    assert not told(history, checkers.one_outcome_each)
    history.ok(twice)
    history.begin("c", None, "echo")
    assert (
        told(history, checkers.one_outcome_each) == "an operation ended 2 times; an operation has no outcome"
    )


def test_error_that_may_not_happen_is_found() -> None:
    """An error is lawful if it or its name was given, for all commands or for this one."""
    history = ticking()
    history.erred(history.begin("c", None, "echo"), CheckoutTimeoutError("late"))
    assert "CheckoutTimeoutError" in told(history, checkers.lawful())
    assert "CheckoutTimeoutError" in told(history, checkers.lawful({"sleep": {"CheckoutTimeoutError"}}))
    assert not told(history, checkers.lawful({"echo": {"CheckoutTimeoutError"}}))
    assert not told(history, checkers.lawful({"CheckoutTimeoutError"}))
    assert not told(history, checkers.lawful({CheckoutTimeoutError}))


def test_arguments_are_kept_as_they_were_sent() -> None:
    """A client that used one dictionary for all its calls was accused of having sent the same nonce each time."""
    history = ticking()
    args: dict[str, Any] = {"inputs": {}}
    for turn in range(2):
        args["nonce"] = args["inputs"]["turn"] = turn
        history.ok(history.begin("c", "s", "echo", args), {"nonce": turn})
    assert not told(history, checkers.own_answers())
    assert [operation.args["inputs"]["turn"] for operation in history.operations] == [0, 1]


def test_lawful_errors_may_be_any_mapping() -> None:
    """A constant that nobody can change was read as a set of errors, whose names were those of the commands."""
    history = ticking()
    history.erred(history.begin("c", None, "echo"), CheckoutTimeoutError("late"))
    assert not told(history, checkers.lawful(MappingProxyType({"echo": {"CheckoutTimeoutError"}})))


def test_answer_of_somebody_else_is_found() -> None:
    """Swapped answers are told, and numbers that were used twice, because they could hide swapped ones."""
    history = ticking()
    answered(history, "echo", {"nonce": 1}, nonce=1)
    assert not told(history, checkers.own_answers())
    answered(history, "echo", {"nonce": 3}, nonce=2)
    answered(history, "echo", {"nonce": 1}, nonce=1)
    found = told(history, checkers.own_answers())
    assert "sent 2, got 3" in found
    assert "same nonce" in found


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("list_programs", {"programs": [{"id": "p"}], "total_count": 1}),
        ("get_program_info", {"program_id": "p"}),
        ("execute_program", {"program_id": "p", "outputs": {}}),
    ],
)
def test_program_of_another_session_is_found(command: str, value: Any) -> None:
    """What one session made, the other must not see, whatever it asks for."""
    history = ticking()
    answered(history, "create_program", {"program_id": "p"}, id="p")
    answered(history, command, value, program_id="p")
    assert not told(history, checkers.own_programs)
    answered(history, command, value, program_id="p", session="other")
    assert "'other' sees program 'p'" in told(history, checkers.own_programs)


def test_run_that_proves_nothing_is_found() -> None:
    """Without faults, without affected operations, or without success, nothing was put to the test."""
    history = ticking()
    history.erred(history.begin("c", None, "echo"), ProgramError("its own affair"))
    found = told(history, checkers.not_vacuous(0))
    assert all(what in found for what in ("no fault", "no operation was affected", "no operation succeeded"))
    answered(history, "echo")
    history.erred(history.begin("c", None, "echo"), WorkerDiedError("killed"))
    assert not told(history, checkers.not_vacuous(1))


# --- the store of a session ----------------------------------------------------------------------------------------


def listing(*names: str) -> dict[str, Any]:
    """Return the answer to ``list_programs``."""
    return {"programs": [{"id": name} for name in names]}


def made(history: History, name: str, signature: str = "q -> a") -> Operation:
    """Have a program made, and acknowledged."""
    return answered(history, "create_program", {"program_id": name}, id=name, signature=signature)


def replacing(history: History, name: str, signature: str) -> Operation:
    """Call for a program to be replaced; the answer is left to the caller."""
    args = {"program_id": name, "definition": {"signature": signature}}
    return history.begin("c", "s", "load_program", args)


def lost_program(history: History) -> None:
    """What was acknowledged is not there."""
    made(history, "p")
    answered(history, "list_programs", listing())


def returned_program(history: History) -> None:
    """What was deleted is there again."""
    made(history, "p")
    answered(history, "delete_program", {"program_id": "p"}, program_id="p")
    answered(history, "list_programs", listing("p"))


def old_definition(history: History) -> None:
    """A program runs as it was before it was replaced."""
    made(history, "p", "q -> old")
    history.ok(replacing(history, "p", "q -> new"), {"program_id": "p"})
    answered(history, "execute_program", {"program_id": "p", "outputs": {"old": 1}}, program_id="p")


def undone_write(history: History) -> None:
    """A write whose outcome nobody knew was seen, and then it was not."""
    history.unknown(history.begin("c", "s", "create_program", {"id": "p"}), WorkerDiedError("killed"))
    answered(history, "list_programs", listing("p"))
    answered(history, "list_programs", listing())


def write_that_failed(history: History) -> None:
    """A write that surely was not made is seen."""
    history.erred(history.begin("c", "s", "create_program", {"id": "p"}), CheckoutTimeoutError("late"))
    answered(history, "list_programs", listing("p"))


def refusal_without_reason(history: History) -> None:
    """A program is refused because there is one already, and there is none."""
    history.erred(history.begin("c", "s", "create_program", {"id": "p"}), ProgramExistsError("twice"))


def two_creators(history: History) -> None:
    """Two callers at the same time are both told that they have created it."""
    first = history.begin("a", "s", "create_program", {"id": "p"})
    second = history.begin("b", "s", "create_program", {"id": "p"})
    history.ok(first, {"program_id": "p"})
    history.ok(second, {"program_id": "p"})


def wrong_count(history: History) -> None:
    """A session that ends tells of more programs than it had."""
    made(history, "p")
    answered(history, "cleanup_session", {"programs_removed": 2})


@pytest.mark.parametrize(
    "wrong",
    [
        lost_program,
        returned_program,
        old_definition,
        undone_write,
        write_that_failed,
        refusal_without_reason,
        two_creators,
        wrong_count,
    ],
)
@pytest.mark.parametrize("real_time", [True, False])
def test_answers_that_no_order_explains_are_found(
    wrong: Callable[[History], None], *, real_time: bool
) -> None:
    """Each of the ways in which a session could lose, invent or mix up programs, in both kinds of order."""
    history = ticking()
    wrong(history)
    (violation,) = consistent(real_time=real_time)(history)
    assert "no order explains" in violation.text
    assert violation.operations


def test_unknown_write_may_take_effect_late_or_never() -> None:
    """Seen after a while, or never seen, or seen and then replaced: all of that can be."""
    history = ticking()
    made(history, "p", "q -> old")
    history.unknown(replacing(history, "p", "q -> new"), WorkerDiedError("killed"))
    history.unknown(history.begin("c", "s", "create_program", {"id": "never"}), WorkerDiedError("killed"))
    history.unknown(
        history.begin("c", "s", "delete_program", {"program_id": "never"}), WorkerDiedError("killed")
    )
    answered(history, "get_program_info", {"program_id": "p", "signature": "q -> old"}, program_id="p")
    answered(history, "get_program_info", {"program_id": "p", "signature": "q -> new"}, program_id="p")
    answered(history, "list_programs", listing("p"))
    assert not told(history, consistent())


def test_calls_at_the_same_time_may_take_effect_in_either_order() -> None:
    """Who is told that it exists may have called first, if the other was under way."""
    history = ticking()
    refused = history.begin("a", "s", "create_program", {"id": "p"})
    created = history.begin("b", "s", "create_program", {"id": "p"})
    history.erred(refused, ProgramExistsError("twice"))
    answered(history, "list_programs", listing("p"))
    history.ok(created, {"program_id": "p"})
    assert not told(history, consistent())


def test_late_read_is_found_in_real_time_alone() -> None:
    """Another client that still sees nothing breaks the order of time, not that of any client."""
    history = ticking()
    made(history, "p")
    answered(history, "list_programs", listing(), client="other")
    assert told(history, consistent())
    assert not told(history, consistent(real_time=False))


def test_search_that_takes_too_long_is_no_pass() -> None:
    """What could not be decided is told."""
    history = ticking()
    for number in range(10):
        made(history, f"p-{number}")
    assert not told(history, consistent(most_steps=20))
    assert "undecided after 5 steps" in told(history, consistent(most_steps=5))


def test_write_that_can_be_done_no_more_is_not_taken_later() -> None:
    """Whoever is dead changes nothing: what a first look does not show, a second one must not."""
    history = ticking()
    create = history.begin("c", "s", "create_program", {"id": "p"})
    history.unknown(create, WorkerDiedError("killed"), is_over=True)
    answered(history, "list_programs", listing("p"))
    assert not told(history, consistent())
    answered(history, "list_programs", listing("p"))
    history.unknown(replacing(history, "p", "q -> new"), WorkerDiedError("killed"), is_over=True)
    answered(history, "list_programs", listing("p"))
    answered(history, "get_program_info", {"signature": "q -> new"}, program_id="p")
    assert not told(history, consistent())
    history.unknown(replacing(history, "p", "q -> newer"), WorkerDiedError("killed"), is_over=True)
    answered(history, "get_program_info", {"signature": "q -> new"}, program_id="p")
    answered(history, "get_program_info", {"signature": "q -> newer"}, program_id="p")
    assert told(history, consistent())


def test_writes_that_can_be_done_no_more_come_before_those_called_later() -> None:
    """Two unanswered writes are ordered by time, too: the first was over before the second was called.

    Only answers were held against the first, so a session might show the second without it and then both.
    """
    history = ticking()
    first = history.begin("a", "s", "create_program", {"id": "first"})
    one, both = (history.begin(client, "s", "list_programs") for client in "bc")
    history.unknown(first, WorkerDiedError("killed"), is_over=True)
    history.unknown(history.begin("d", "s", "create_program", {"id": "second"}), WorkerDiedError("killed"))
    history.ok(one, listing("second"))
    history.ok(both, listing("first", "second"))
    assert told(history, consistent())


def test_write_that_can_be_done_no_more_is_over_for_its_own_client_alone() -> None:
    """Without the order of time, what another client called later may come before it."""
    history = ticking()
    create = history.begin("a", "s", "create_program", {"id": "p"})
    history.unknown(create, WorkerDiedError("killed"), is_over=True)
    answered(history, "list_programs", listing(), client="b")
    answered(history, "list_programs", listing("p"), client="b")
    assert told(history, consistent())
    assert not told(history, consistent(real_time=False))


def played(random: Random, *, calls: int, unknown: float) -> History:
    """Return the history of four clients of one correct session, of whose operations a share ends unknown."""
    history, programs = ticking(), frozenset[tuple[str, str]]()
    under_way: dict[str, tuple[Operation, Any]] = {}
    while len(history.operations) < calls or under_way:
        client = random.choice("abcd")
        operation, answer = under_way.pop(client, (None, None))
        if operation is None:
            if len(history.operations) < calls:
                under_way[client] = (drawn(history, client, random), None)
        elif answer is None:
            # It takes effect now; one whose outcome nobody will know, perhaps later, perhaps never.
            answer, programs = carried_out(operation, programs)
            under_way[client] = (operation, answer)
        elif random.random() < unknown:
            history.unknown(operation, WorkerDiedError("killed"))
        elif isinstance(answer, Exception):
            history.erred(operation, answer)
        else:
            history.ok(operation, answer)
    return history


def drawn(history: History, client: str, random: Random) -> Operation:
    """Have a client call something."""
    program, signature = random.choice("pqr"), f"q -> a{len(history.operations)}"
    commands: dict[str, dict[str, Any]] = {
        "create_program": {"id": program, "signature": signature},
        "load_program": {"program_id": program, "definition": {"signature": signature}},
        "delete_program": {"program_id": program},
        "get_program_info": {"program_id": program},
        "list_programs": {},
    }
    command = random.choice(list(commands))
    return history.begin(client, "s", command, commands[command])


def carried_out(operation: Operation, programs: Programs) -> tuple[Any, Programs]:
    """Return what a correct session answers, and what it has then."""
    now, command = dict(programs), operation.command
    program = operation.args.get("id", operation.args.get("program_id", ""))
    if command == "create_program" and program in now:
        return ProgramExistsError("twice"), programs
    if command in ("delete_program", "get_program_info") and program not in now:
        return ProgramNotFoundError("none"), programs
    if command == "list_programs":
        return listing(*now), programs
    told_of = {"program_id": program}
    if command == "get_program_info":
        # Signatures are kept as they are shown.
        told_of["signature"] = now[program][1:-1]
    return told_of, after(replace(operation, outcome=Outcome.OK), programs) or frozenset()


@pytest.mark.parametrize("seed", range(4))
def test_history_of_a_correct_session_is_explained(seed: int) -> None:
    """Whatever four clients do, with some outcomes unknown; and one answer changed is found."""
    history = played(Random(seed), calls=60, unknown=0.15)
    assert not told(history, consistent())
    assert not told(history, consistent(real_time=False))
    shown = [one for one in history.operations if one.command == "get_program_info" and one.value]
    shown[-1].value["signature"] = "q -> nobody_wrote_this"
    assert told(history, consistent())


def test_sessions_begin_with_what_they_had() -> None:
    """A history that goes on where another ended is told what there was."""
    history = ticking()
    answered(history, "list_programs", listing("p"))
    assert not told(history, consistent(start={"s": frozenset({("p", "'q -> a'")})}))
    assert told(history, consistent())


# --- the pool ------------------------------------------------------------------------------------------------------


def test_gap_in_the_recording_is_found() -> None:
    """A history that missed an event is no proof."""
    history = ticking()
    assert not told(history, checkers.without_gaps)
    history.gaps.append(KeyError("incarnation"))
    assert "could not be recorded" in told(history, checkers.without_gaps)


@pytest.mark.parametrize("told_by", ["pool", "caller"])
def test_worker_in_two_hands_is_found(told_by: str) -> None:
    """Two leases of one worker that overlap, whoever tells of them; one after the other is right."""
    history = ticking()
    for token in (1, 2):
        history.released(history.acquired(7, token, told_by=told_by))
    assert not told(history, checkers.leases_exclusive)
    history.acquired(7, 3, told_by=told_by)
    history.acquired(7, 4, told_by=told_by)
    assert "in two hands" in told(history, checkers.leases_exclusive)


def test_token_that_comes_again_is_found() -> None:
    """Tokens grow, over all workers."""
    history = ticking()
    for worker in (1, 2):
        history.acquired(worker, 5, told_by="pool")
    assert "does not grow" in told(history, checkers.leases_exclusive)


def test_use_after_the_end_of_the_lease_is_found() -> None:
    """Who uses a worker must have it at that moment, by the pool's own books."""
    history = ticking()
    lease = history.acquired(7, 1, told_by="pool")
    history.released(history.acquired(7, 1))
    assert not told(history, checkers.leases_exclusive)
    history.released(lease)
    history.released(history.acquired(7, 1))
    assert "to whom it was not lent" in told(history, checkers.leases_exclusive)


def test_process_over_the_size_is_found() -> None:
    """A start counts from its begin until the process is reaped."""
    history = ticking(pool_size=1, max_overflow=1)
    for number in (1, 2):
        happened(history, "worker_starting", incarnation=number)
    happened(history, "worker_retired", incarnation=1)
    happened(history, "worker_starting", incarnation=3)
    assert not told(history, checkers.sizes_within_bounds)
    happened(history, "worker_starting", incarnation=4)
    assert "makes 3 processes, allowed are 2" in told(history, checkers.sizes_within_bounds)


def granted(history: History, arrived: float | None, session: str | None = None, worker: str = "w-1") -> None:
    """Have a worker lent to somebody who came at a time."""
    happened(history, "checkout", arrived=arrived, session=session, worker_id=worker)


def test_overtaken_waiter_is_found() -> None:
    """Who came later is served later; housekeeping, and who insists on another worker, stand in no such line."""
    history = ticking()
    history.strict_sessions.add("strict")
    granted(history, 1.0)
    granted(history, 3.0)
    granted(history, 2.0, "strict")
    granted(history, None)
    assert not told(history, checkers.waiters_in_order)
    granted(history, 2.0)
    assert "overtaken in line" in told(history, checkers.waiters_in_order)


def test_waiter_whose_loan_was_undone_is_overtaken_by_nobody() -> None:
    """It was served when its turn came; that it is served again later breaks no order."""
    history = ticking()
    granted(history, 1.0)
    granted(history, 2.0, worker="w-2")
    happened(history, "checkout_declined", worker_id="w-1")
    granted(history, 1.0, worker="w-3")
    assert not told(history, checkers.waiters_in_order)


def test_start_too_many_or_too_early_is_found() -> None:
    """Starts in flight are bounded; after a failure one is tried, when its time has come."""
    history = ticking(max_starting=2)
    for number in (1, 2):
        happened(history, "worker_starting", incarnation=number, worker_id="w", to="starting", began=0.0)
    assert not told(history, checkers.starts_bounded)
    happened(history, "worker_starting", incarnation=3, worker_id="w", to="starting", began=0.0)
    assert "number 3 in flight" in told(history, checkers.starts_bounded)
    for number in (1, 2, 3):
        happened(history, "worker_start_failed", retry_at=9.0)
        happened(history, "worker_retiring", incarnation=number, to="retiring")
    happened(history, "worker_starting", incarnation=4, worker_id="w", to="starting", began=8.5)
    happened(history, "worker_starting", incarnation=5, worker_id="w", to="starting", began=9.0)
    found = told(history, checkers.starts_bounded)
    assert found.count("too early") == 1
    assert found.count("not alone") == 1


def test_death_that_costs_two_calls_is_found() -> None:
    """A worker is in one caller's hands, so its death is one caller's affair."""
    history = ticking()
    happened(history, "worker_starting", worker_id="w-1")
    history.erred(history.begin("c", None, "echo"), WorkerDiedError("killed", worker_id="w-1"))
    assert not told(history, checkers.deaths_cost_one_call_each)
    history.erred(history.begin("c", None, "echo"), WorkerDiedError("killed", worker_id="w-1"))
    assert "2 calls died with 1 workers" in told(history, checkers.deaths_cost_one_call_each)


def test_what_outlives_the_pool_is_found() -> None:
    """Once it has closed no worker lives, none is started, and no lease is left."""
    history = ticking()
    happened(history, "worker_starting", incarnation=1, worker_id="w-1")
    assert not told(history, checkers.nothing_alive_after_close)
    happened(history, "worker_retired", incarnation=1)
    happened(history, "closed")
    assert not told(history, checkers.nothing_alive_after_close)
    history.acquired(1, 1)
    happened(history, "worker_starting", incarnation=2, worker_id="w-2")
    happened(history, "closed")
    found = told(history, checkers.nothing_alive_after_close)
    assert all(what in found for what in ("was started after", "was alive when", "a lease outlives"))


def test_all_that_is_found_is_told_at_once() -> None:
    """The error names every violation with its operations, of the usual checkers and of one's own."""
    history = ticking()
    lost_program(history)
    with pytest.raises(checkers.BrokenHistoryError) as caught:
        checkers.check_history(history, lambda _: [checkers.Violation("my own rule")], faults=0)
    text = str(caught.value)
    assert all(what in text for what in ("no order explains", "list_programs", "vacuous", "my own rule"))
    assert len(caught.value.violations) == 4


def test_history_of_nothing_is_no_proof() -> None:
    """Who called the pool past a history that attended none had it pass all checks."""
    history = ticking()
    with pytest.raises(checkers.BrokenHistoryError, match="vacuous: nothing was recorded"):
        checkers.check_history(history)
    history.released(history.acquired(1, 1))
    checkers.check_history(history)


def test_asking_no_checker_is_refused() -> None:
    """``check_all(history)`` reads as if it asked all that there are; it asked none, and passed."""
    with pytest.raises(ValueError, match="no checker was named; check_history asks the usual ones"):
        checkers.check_all(ticking())
