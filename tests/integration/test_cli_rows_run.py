"""Rows run a few at a time, each exactly once, and every one of them ends in a record."""

from __future__ import annotations

import signal
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.cli.execution import Drain
from dspex_pool.cli.problems import CliError, main_problem
from dspex_pool.cli.program import UnfitRowError, choose_program
from dspex_pool.cli.records import Entry, is_match
from dspex_pool.cli.rows import Row
from dspex_pool.cli.run import DEFAULT_SESSION, Job, RowReply, RowsRun, Sessions, failed_answer
from dspex_pool.errors import (
    CallTimeoutError,
    CircuitOpenError,
    PoolClosedError,
    ProgramError,
    SessionLostError,
    WorkerDiedError,
)
from tests.cases import case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.integration

PROGRAM = choose_program("q -> a")


class FakeRunner:
    """A pool that answers from a function and counts what it was asked."""

    def __init__(
        self, answer: Callable[[str, Mapping[str, Any]], object] = lambda _session, _inputs: {"a": 1}
    ):
        self.answer = answer
        self.seconds = 0.0
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.asked: list[Any] = []
        self.running = 0
        self.most_running = 0
        self.begin_errors: list[Exception] = []
        self.end_error: Exception | None = None

    async def begin_session(self, session_id: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.begin_errors:
            raise self.begin_errors.pop(0)
        self.begun.append(session_id)

    async def run_row(self, session_id: str, inputs: Mapping[str, Any]) -> RowReply:
        self.asked.append(inputs.get("q"))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.running -= 1
        said = self.answer(session_id, inputs)
        if isinstance(said, Exception):
            raise said
        assert isinstance(said, dict)
        return RowReply(said, "w-1", 2, 0.1234567)

    async def end_session(self, session_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.ended.append(session_id)
        if self.end_error is not None:
            raise self.end_error


class Desk:
    """A run of rows and what came out of it."""

    def __init__(self, runner: FakeRunner, *, sessions: Mapping[str, int] | None = None, **job: Any) -> None:
        self.entries: list[Entry] = []
        self.run = RowsRun(
            Job(**{"program": PROGRAM, "in_flight": 4, **job}),
            runner,
            Sessions(runner, sessions or {}),
            self.record,
        )

    async def record(self, entry: Entry) -> None:
        await trio.lowlevel.checkpoint()
        self.entries.append(entry)


def rows(count: int, **fields: Any) -> list[Row]:
    """Make rows whose ``q`` is their line."""
    return [Row(line, f"q-{line}", {"q": line, **fields}) for line in range(1, count + 1)]


@pytest.mark.trio
async def test_every_row_is_recorded_once(autojump_clock: trio.testing.MockClock) -> None:
    """No row is lost and none is run twice, whatever the order of completion."""
    runner = FakeRunner()
    runner.seconds = 1
    desk = Desk(runner)
    await desk.run.run(rows(50))
    assert Counter(entry.line for entry in desk.entries) == dict.fromkeys(range(1, 51), 1)
    row = min(desk.entries, key=lambda entry: entry.line).row
    assert (row.id, row.outputs, row.error, row.attempts, row.worker_id) == ("q-1", {"a": 1}, None, 2, "w-1")
    assert row.duration_s == 0.123457
    assert runner.begun == [DEFAULT_SESSION]


@pytest.mark.trio
async def test_few_rows_are_read_and_run_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    """The pool never holds more rows than the limit, and the input is read no further than needed."""
    runner = FakeRunner()
    runner.seconds = 1
    desk = Desk(runner)
    read: list[int] = []

    def lazily() -> Any:
        for row in rows(40):
            read.append(row.line)
            assert len(read) <= len(desk.entries) + 5
            yield row

    await desk.run.run(lazily())
    assert runner.most_running == 4
    assert len(desk.entries) == 40


@pytest.mark.trio
async def test_failure_of_a_row_is_a_record() -> None:
    """The others go on."""

    def answer(_session: str, inputs: Mapping[str, Any]) -> object:
        if inputs["q"] == 2:
            return ProgramError("no such thing", type="ValueError", worker_id="w-3", attempts=3)
        return {"a": 1}

    desk = Desk(FakeRunner(answer))
    await desk.run.run(rows(3))
    failed = {entry.row.id: entry.row for entry in desk.entries}["q-2"]
    assert failed.outputs is None
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("ValueError", "no such thing")
    assert (failed.attempts, failed.worker_id) == (3, "w-3")
    assert sum(entry.row.error is None for entry in desk.entries) == 2


def test_record_of_a_failed_row_says_why() -> None:
    """Type, message, attempts and worker are those of the error."""
    cases: list[tuple[Any, str, int, str | None]] = [
        (WorkerDiedError("died", worker_id="w-1"), "WorkerDiedError", 1, "w-1"),
        (CallTimeoutError("slow", worker_id="w-1", attempts=2), "CallTimeoutError", 2, "w-1"),
        (SessionLostError("lost"), "SessionLostError", 0, None),
        (ProgramError("odd"), "ProgramError", 0, None),
        (UnfitRowError("no field"), "InvalidArgumentError", 0, None),
    ]
    for error, kind, attempts, worker_id in cases:
        with case(error):
            answer = failed_answer(Row(1, "a", {}), error, 1.5)
            assert answer.error is not None
            assert (answer.error.type, answer.error.message) == (kind, str(error))
            assert (answer.attempts, answer.worker_id, answer.duration_s) == (attempts, worker_id, 1.5)


@pytest.mark.trio
async def test_row_that_does_not_fit_is_a_record_and_asks_no_worker() -> None:
    """A missing field, a number that JSON cannot carry and a missing session each fail their row alone."""
    bad = [
        Row(1, "a", {"t": "x"}),
        Row(2, "b", {"t": "x", "q": float("nan")}),
        Row(3, "c", {"q": 1}),
        Row(4, "d", {"t": "x", "q": 1}),
    ]
    runner = FakeRunner()
    desk = Desk(runner, session_field="t", sessions={"x": 3})
    await desk.run.run(bad)
    messages = [entry.row.error.message if entry.row.error else None for entry in desk.entries]
    assert messages == [
        "row 'a' (line 1): program 'q -> a' misses the input 'q'; its inputs are q",
        "row 'b' (line 2): q is nan; JSON has no such number, use null or leave the row out",
        "row 'c' (line 3) has no session: 't' must be a text or a whole number",
        None,
    ]
    assert runner.asked == [1]
    assert runner.ended == ["x"]


@pytest.mark.trio
async def test_session_is_begun_with_its_first_row_and_ended_after_its_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Rows of one session share one beginning, however many come at once."""
    runner = FakeRunner()
    runner.seconds = 1
    desk = Desk(runner, session_field="t", sessions={"x": 6, "y": 6})
    await desk.run.run([Row(n, n, {"q": n, "t": "xy"[n % 2]}) for n in range(1, 13)])
    assert sorted(runner.begun) == ["x", "y"]
    assert sorted(runner.ended) == ["x", "y"]


@pytest.mark.trio
async def test_row_without_a_session_ends_no_session_of_others() -> None:
    """It counted for the session ``anonymous``, which was ended while rows that name it were still to come."""
    runner = FakeRunner()
    desk = Desk(runner, session_field="t", sessions={"anonymous": 2}, in_flight=1)
    await desk.run.run([Row(1, 1, {"q": 1}), *(Row(n, n, {"q": n, "t": "anonymous"}) for n in (2, 3))])
    assert runner.asked == [2, 3]
    assert (runner.begun, runner.ended) == (["anonymous"], ["anonymous"])


@pytest.mark.trio
async def test_session_is_begun_again_if_that_failed() -> None:
    """The row that met the failure has failed; the next one tries anew."""
    runner = FakeRunner()
    runner.begin_errors = [WorkerDiedError("died", worker_id="w-2")]
    desk = Desk(runner, in_flight=1)
    await desk.run.run(rows(2))
    assert [entry.row.error is None for entry in desk.entries] == [False, True]


@pytest.mark.trio
async def test_session_that_cannot_be_ended_hurts_no_row() -> None:
    """All its rows have their answers."""
    runner = FakeRunner()
    runner.end_error = WorkerDiedError("died")
    desk = Desk(runner, session_field="t", sessions={"x": 1})
    await desk.run.run(rows(1, t="x"))
    assert [entry.row.error for entry in desk.entries] == [None]


@pytest.mark.trio
async def test_skipped_rows_are_not_run_and_count_for_their_session() -> None:
    """A resumed run ends a session whose last rows an earlier run has done."""
    runner = FakeRunner()
    desk = Desk(runner, session_field="t", sessions={"x": 4, "y": 1})
    desk.run.wants = lambda line: line in (1, 2)
    await desk.run.run([*rows(4, t="x"), Row(5, 5, {"q": 5, "t": "y"})])
    assert sorted(runner.asked) == [1, 2]
    assert runner.begun == ["x"]
    assert runner.ended == ["x"]


@pytest.mark.trio
@pytest.mark.parametrize("error", [CircuitOpenError("no worker starts"), PoolClosedError("closed")])
async def test_pool_that_is_gone_ends_the_run_and_fails_no_row(error: Exception) -> None:
    """Rows that nobody can answer stay missing, so that --resume runs them."""
    desk = Desk(FakeRunner(lambda _session, inputs: error if inputs["q"] == 3 else {"a": 1}), in_flight=1)
    with pytest.raises(ExceptionGroup) as caught:
        await desk.run.run(rows(9))
    assert main_problem(caught.value) is error
    assert [entry.line for entry in desk.entries] == [1, 2]


@pytest.mark.trio
async def test_program_that_cannot_be_built_is_one_error() -> None:
    """Not one a row; it is found before the first."""
    runner = FakeRunner()
    runner.begin_errors = [ProgramError("unknown type 'strr'")]
    with pytest.raises(CliError, match="the program 'q -> a' cannot be built: unknown type 'strr'"):
        await Desk(runner).run.prepare()


@pytest.mark.trio
async def test_factory_that_fails_is_told_with_type_and_place() -> None:
    """Of a KeyError nothing but the key was told, and no option showed where it was raised."""
    runner = FakeRunner()
    runner.begin_errors = [ProgramError("'nope'", type="KeyError", remote_traceback="  File mine.py, line 7")]
    with pytest.raises(CliError, match="cannot be built: KeyError: 'nope'") as caught:
        await Desk(runner).run.prepare()
    assert "mine.py, line 7" in "".join(traceback.format_exception(caught.value))


@pytest.mark.trio
async def test_stopping_begins_no_row_and_finishes_those_that_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first Ctrl-C loses no work that was paid for."""
    runner = FakeRunner()
    runner.seconds = 1
    desk = Desk(runner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run.run, rows(50))
        await trio.sleep(1.5)
        assert desk.run.running == 4
        desk.run.is_stopping = True
    assert sorted(entry.line for entry in desk.entries) == list(range(1, 9))
    assert desk.run.running == 0


@pytest.mark.trio
async def test_cancelled_row_is_no_record(autojump_clock: trio.testing.MockClock) -> None:
    """The second Ctrl-C leaves running rows missing, not failed."""
    runner = FakeRunner()
    runner.seconds = 10
    desk = Desk(runner)
    with trio.move_on_after(1):
        await desk.run.run(rows(3))
    assert desk.entries == []
    assert desk.run.running == 0


@pytest.mark.trio
async def test_answer_is_compared_with_what_was_expected() -> None:
    """In any case and spacing; a row that expects nothing is not counted."""
    cases: list[tuple[object, bool | None]] = [
        ("Paris", True),
        ("  pARIS ", True),
        ("Rome", False),
        (None, None),
        ("", None),
    ]
    for expected, match in cases:
        with case(expected):
            runner = FakeRunner(lambda _session, _inputs: {"why": "maps", "a": "It is PARIS, of course"})
            desk = Desk(runner, expected_field="gold")
            await desk.run.run(rows(1, gold=expected))
            assert [entry.match for entry in desk.entries] == [match]


@pytest.mark.trio
async def test_failed_row_does_not_match() -> None:
    """It expected something and has nothing."""
    desk = Desk(FakeRunner(lambda _session, _inputs: ProgramError("no")), expected_field="gold")
    await desk.run.run(rows(1, gold="x"))
    assert [entry.match for entry in desk.entries] == [False]


def test_match_is_containment_in_any_output() -> None:
    """A list of expectations is met by one of them."""
    cases: list[tuple[object, dict[str, Any], bool]] = [
        (["Rome", "Paris"], {"a": "paris"}, True),
        (["", None], {"a": "paris"}, False),
        (42, {"a": "about 42 km"}, True),
        (True, {"a": True}, True),
        ("two  words", {"a": "TWO\nwords"}, True),
        ("x", {"a": ["w", "x"]}, True),
        ("x", {}, False),
    ]
    for expected, outputs, match in cases:
        assert is_match(expected, outputs) is match, (expected, outputs)


def stop_with(rows_run: RowsRun | None) -> tuple[Drain, list[str]]:
    """Make a stop and the list of what it says."""
    said: list[str] = []
    return Drain(say=said.append, rows=rows_run), said


@pytest.mark.trio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_first_signal_drains_and_the_second_ends(number: int) -> None:
    """The signal that counts is the first."""
    desk = Desk(FakeRunner())
    desk.run.running = 3
    stop, said = stop_with(desk.run)
    stop.request(number)
    assert desk.run.is_stopping
    assert said == ["stopping: no new rows, waiting for 3 running rows; Ctrl-C again stops at once"]
    ended = stop.scope.cancel_called
    stop.request(signal.SIGINT)
    assert said[1:] == ["stopping at once; rows that were running stay missing"]
    assert (ended, stop.scope.cancel_called, stop.number) == (False, True, number)


@pytest.mark.trio
@pytest.mark.parametrize("has_rows", [True, False])
async def test_first_signal_ends_at_once_where_nothing_runs(has_rows: bool) -> None:
    """While the pool starts there is nothing to wait for."""
    stop, said = stop_with(Desk(FakeRunner()).run if has_rows else None)
    stop.request(signal.SIGINT)
    assert said == ["stopping"]
    assert stop.scope.cancel_called


def test_one_running_row_is_counted_in_the_singular() -> None:
    """The message is for people."""
    desk = Desk(FakeRunner())
    desk.run.running = 1
    stop, said = stop_with(desk.run)
    stop.request(signal.SIGINT)
    assert "waiting for 1 running row;" in said[0]
