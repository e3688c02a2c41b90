"""The kinds of port do not differ: the same conversations come to the same ends."""

from __future__ import annotations

import pytest

from dspex_testkit.contracts.conversations import conversation, program_conversation
from dspex_testkit.contracts.differential import compare, of_programs, play_all, played_on

pytestmark = pytest.mark.integration

SEED = 1


def test_simulated_served_and_real_workers_come_to_the_same_ends() -> None:
    """Thirty conversations, deaths and broken frames among them: no outcome differs in class, text or content."""
    asked = [conversation(SEED, number, trouble=0.04) for number in range(30)]
    assert compare(asked, played_on(["sim", "server", "process"], asked)) > 150


def test_canned_programs_behave_as_those_of_dspy() -> None:
    """What is refused, with which words, and what is answered, the outputs' texts aside, is the same on DSPy."""
    asked = [program_conversation(SEED, number) for number in range(60)]
    played = {
        "sim": play_all("sim", asked),
        "dspy": play_all("process", asked, lanes=1, handler="dspex_pool.bridge.dspy_handler:DspyHandler"),
    }
    assert compare(asked, played, view=of_programs) > 400
