"""The last wire: what a row asks of the pool, and how often."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.cli import pool_runner
from dspex_pool.cli.pool_runner import MOST_ATTEMPTS, PROGRAM_ID, PoolRunner, wait_ready
from dspex_pool.cli.program import ProgramChoice
from dspex_pool.config import PoolConfig
from dspex_pool.errors import (
    CallTimeoutError,
    ProgramError,
    RemoteProtocolError,
    WorkerDiedError,
    WorkerStartError,
)
from dspex_pool.session_call import Reply
from tests.cases import case

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.integration

ANSWER = {"program_id": PROGRAM_ID, "outputs": {"a": 1}, "execution_time": 0.25}


class FakePool:
    """Gives what the test has prepared, and remembers what it was asked."""

    def __init__(self, *said: object, retries: int = 0) -> None:
        self.config = PoolConfig(retries=retries)
        self.said = list(said)
        self.asked: list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = []
        self.ended: list[str] = []
        self.sessions = self

    async def call(self, session_id: str, command: str, args: Mapping[str, Any], **options: Any) -> Reply:
        self.asked.append((session_id, command, args, options))
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return Reply(said, "w-2", 1, 9.0)

    async def end_session(self, session_id: str) -> None:
        self.ended.append(session_id)

    async def wait_ready(self, *, fail_fast: bool = False) -> None:
        said = self.said.pop(0)
        assert fail_fast is (len(self.said) > 0)
        if isinstance(said, Exception):
            raise said


def runner(
    pool: FakePool, state: Mapping[str, Any] | None = None, *, timeout: float | None = 1.5
) -> PoolRunner:
    """Make the runner of a program on a fake pool."""
    program = ProgramChoice("q -> a", {"signature": "q -> a"}, state)
    return PoolRunner(pool, program, timeout=timeout)  # type: ignore[arg-type]  # a pool as far as it looks


def died(*, sent: bool, attempts: int) -> WorkerDiedError:
    """Make the error of a worker that died, before or after it had the row."""
    return WorkerDiedError("died", worker_id="w-1", request_sent=sent, attempts=attempts)


def late(command: str) -> CallTimeoutError:
    """Make the error of a worker that did not answer a command in time."""
    return CallTimeoutError("late", worker_id="w-1", command=command, attempts=1)


@pytest.mark.trio
async def test_session_begins_with_its_program() -> None:
    """By a command that may be repeated, so that a lost worker costs time alone."""
    pool = FakePool({}, {})
    await runner(pool).begin_session("t")
    await runner(pool, {"demos": []}).begin_session("u")
    assert [asked[:2] for asked in pool.asked] == [("t", "load_program"), ("u", "load_program")]
    assert pool.asked[0][2] == {"program_id": PROGRAM_ID, "definition": {"signature": "q -> a"}}
    assert pool.asked[1][2]["state"] == {"demos": []}
    assert pool.asked[0][3]["idempotent"]


@pytest.mark.trio
async def test_row_is_one_call() -> None:
    """Its time is that of the program, without the wait for a worker."""
    pool = FakePool(ANSWER, retries=3)
    reply = await runner(pool).run_row("t", {"q": 1})
    assert pool.asked == [
        (
            "t",
            "execute_program",
            {"program_id": PROGRAM_ID, "inputs": {"q": 1}},
            {"timeout": 1.5, "retries": 3, "idempotent": True},
        )
    ]
    assert (reply.outputs, reply.worker_id, reply.attempts, reply.duration) == ({"a": 1}, "w-2", 1, 0.25)


@pytest.mark.trio
async def test_row_without_a_timeout_has_all_the_time() -> None:
    """It had that of the rest, a minute: an agent that took longer failed, though nobody had set a limit."""
    pool = FakePool(ANSWER)
    await runner(pool, timeout=None).run_row("t", {"q": 1})
    assert pool.asked[0][3]["timeout"] == math.inf


@pytest.mark.trio
async def test_row_that_no_worker_ever_had_costs_no_retry() -> None:
    """Workers that are killed while they import are no reason to give a row up."""
    pool = FakePool(died(sent=False, attempts=4), died(sent=False, attempts=3), ANSWER, retries=3)
    reply = await runner(pool).run_row("t", {})
    assert reply.attempts == 8
    # Tries that may have reached a worker are never more than was allowed.
    assert [asked[3]["retries"] for asked in pool.asked] == [3, 0, 0]


@pytest.mark.trio
async def test_row_whose_worker_was_still_being_prepared_is_tried_again() -> None:
    """With a short --timeout the first rows failed, one a worker: their time went into the import of DSPy.

    The time of the row itself is never given twice.
    """
    pool = FakePool(late("configure_lm"), died(sent=False, attempts=1), ANSWER, retries=2)
    assert (await runner(pool).run_row("t", {})).attempts == 3
    with pytest.raises(CallTimeoutError) as caught:
        await runner(FakePool(late("load_program"), late("execute_program"), retries=2)).run_row("t", {})
    assert caught.value.attempts == 2
    with pytest.raises(CallTimeoutError):
        await runner(FakePool(*(late("configure_lm") for _ in range(MOST_ATTEMPTS + 1)))).run_row("t", {})


@pytest.mark.trio
async def test_row_that_a_worker_had_is_given_up_when_retries_are_used() -> None:
    """The pool has tried as often as it was allowed."""
    pool = FakePool(died(sent=False, attempts=2), died(sent=True, attempts=1))
    with pytest.raises(WorkerDiedError) as caught:
        await runner(pool).run_row("t", {})
    assert caught.value.attempts == 3


@pytest.mark.trio
async def test_row_is_given_up_in_the_end() -> None:
    """A program that kills every worker while it is loaded does not keep the run for ever."""
    pool = FakePool(*(died(sent=False, attempts=3) for _ in range(20)))
    with pytest.raises(WorkerDiedError) as caught:
        await runner(pool).run_row("t", {})
    assert caught.value.attempts is not None
    assert MOST_ATTEMPTS < caught.value.attempts <= MOST_ATTEMPTS + 3


@pytest.mark.trio
async def test_answer_without_outputs_is_an_error_of_the_row() -> None:
    """A handler that serves something else does not end the run with a defect."""
    answers: list[object] = [None, [], {}, {"outputs": 3}, {"outputs": {}, "execution_time": "long"}]
    complaint = "worker w-2 answered execute_program without outputs"
    for said in answers:
        with case(said), pytest.raises(RemoteProtocolError, match=complaint):
            await runner(FakePool(said)).run_row("t", {})


@pytest.mark.trio
async def test_session_is_ended_through_the_pool() -> None:
    """So that every worker forgets it."""
    pool = FakePool()
    await runner(pool).end_session("t")
    assert pool.ended == ["t"]


@pytest.mark.trio
async def test_worker_that_was_killed_at_start_is_waited_for() -> None:
    """A command that is wrong fails again, but a worker that was killed may come up the next time."""
    await wait_ready(FakePool(WorkerStartError("killed", signal=9), None))  # type: ignore[arg-type]  # as above
    with pytest.raises(WorkerStartError, match="wrong"):
        await wait_ready(FakePool(WorkerStartError("wrong", exit_status=2), None))  # type: ignore[arg-type]  # as above


@pytest.mark.trio
async def test_model_that_workers_refuse_is_told_in_their_words() -> None:
    """Only where the command is unknown do the workers run no programs."""

    class Refusing:
        async def configure_lm(self) -> None:
            raise ProgramError("no such engine", type="LookupError")

    plan = SimpleNamespace(lm=SimpleNamespace(settings={}))
    with pytest.raises(ProgramError, match="no such engine"):
        await pool_runner._configure_lm(Refusing(), plan)  # type: ignore[arg-type]  # as far as it looks
