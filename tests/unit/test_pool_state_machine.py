"""The pool core under random commands: every invariant, after every step."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from dspex_testkit.pool_core_machine import PoolCoreMachine
from tests.search_profiles import chosen, depth

pytestmark = pytest.mark.fast


@pytest.mark.budget(0.6)
@pytest.mark.hangs_after(depth(20, 600))
def test_core_keeps_every_invariant_under_random_commands() -> None:
    """Any order of commands keeps I1 to I16 after each step and Q1 to Q3 at the end. [property 35]"""
    run_state_machine_as_test(PoolCoreMachine, settings=chosen())
