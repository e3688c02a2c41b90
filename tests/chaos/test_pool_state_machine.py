"""The whole pool under random commands: real leases, scripted workers, a clock that only rules move."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from dspex_pool.decision_runner import DecisionRunner
from dspex_pool.pool_state import PoolState
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.pool_state_machine import Call, PoolStateMachine
from dspex_testkit.ports.kinds import SimulatedKind
from tests.search_profiles import chosen, depth

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.chaos

#: Without shrinking: that something is found is enough.
FIND = settings(
    max_examples=300,
    stateful_step_count=50,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    derandomize=True,
)


def test_pool_keeps_every_promise_under_random_commands() -> None:
    """Any order of commands leaves no worker in two hands, every answer with its caller, and a whole pool."""
    run_state_machine_as_test(PoolStateMachine, settings=settings(chosen(), max_examples=depth(40, 400)))


class LateMachine(PoolStateMachine):
    """Has workers that answer what they were asked the time before."""

    def make_ports(self) -> MockPortFactory:
        asked: list[Any] = [None]

        def late(args: dict[str, Any]) -> Any:
            asked.append(args)
            return asked[-2]

        return MockPortFactory(lambda port: port.answer("ping", {}).answer("echo", late))

    def calls(self) -> st.SearchStrategy[Call]:
        return st.builds(Call, st.just("echo"), st.fixed_dictionaries({"n": st.integers()}))

    def check_answer(self, call: Call, answer: Any) -> None:
        assert answer == call.args, "not my own answer"


def test_machine_sees_answers_that_are_not_the_callers_own() -> None:
    """What a subclass says of answers is checked on every call that nobody has disturbed."""
    with pytest.raises(AssertionError, match="not my own answer"):
        run_state_machine_as_test(LateMachine, settings=FIND)


class MisspeltMachine(PoolStateMachine):
    """Has workers with a handler that there is not."""

    def make_ports(self) -> MockPortFactory:
        return SimulatedKind(handler="dspex_testkit.children.echo:EcoHandler").factory()


def test_machine_says_that_its_workers_cannot_start() -> None:
    """It played for minutes with a pool that has none, and ended in errors of callers that had waited in vain."""
    with pytest.raises(AssertionError, match=r"make_ports gives what starts no worker: .*EcoHandler"):
        run_state_machine_as_test(MisspeltMachine, settings=FIND)


class IdleMisspeltMachine(MisspeltMachine):
    """Starts none of them before the world is healed."""

    def settings_of_pool(self) -> st.SearchStrategy[dict[str, Any]]:
        return st.just({"pool_size": 1, "lazy": True})


def test_machine_that_is_healed_says_so_too() -> None:
    """A lazy pool was said not to lend its workers, which Hypothesis shrank for a minute, beside the reason."""
    with pytest.raises(AssertionError, match=r"make_ports gives what starts no worker: .*EcoHandler"):
        run_state_machine_as_test(IdleMisspeltMachine, settings=settings(FIND, stateful_step_count=1))


def forget_to_start(state: PoolState, now: float) -> None:
    """Be a core that starts no worker in place of one that has died."""
    if not state._starts.failures and state.counters.reaped == 0:
        REPLENISH(state, now)


REPLENISH: Callable[[PoolState, float], None] = PoolState._replenish


def test_machine_finds_a_planted_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that does not replace the dead fails."""
    monkeypatch.setattr(PoolState, "_replenish", forget_to_start)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(PoolStateMachine, settings=FIND)


def carry_out_without_timer(runner: DecisionRunner) -> None:
    """Be a runner that never wakes earlier than it once meant to."""
    at, runner._timer_at = runner._timer_at, -math.inf
    try:
        CARRY_OUT(runner)
    finally:
        runner._timer_at = at


CARRY_OUT: Callable[[DecisionRunner], None] = DecisionRunner.carry_out


def test_machine_finds_a_timer_that_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was due and is not done is seen after the next rule, and not only if the pool cannot be healed."""
    monkeypatch.setattr(DecisionRunner, "carry_out", carry_out_without_timer)
    with pytest.raises(AssertionError, match=r"I1[14]"):
        run_state_machine_as_test(PoolStateMachine, settings=FIND)
