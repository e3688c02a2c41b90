"""The differential contract finds a kind of port that has drifted."""

from __future__ import annotations

from typing import Any

import pytest

from dspex_testkit.contracts.conversations import Turn, conversation
from dspex_testkit.contracts.differential import DifferenceError, compare, play_all, played_on
from dspex_testkit.plan import Plan

DRIFTS: dict[str, Any] = {
    "another answer": lambda args: {**args, "also": 1},
    "a failure": lambda args: Plan().fail("no", type="ValueError"),
    "a death": lambda args: Plan().die(),
    "a second answer": lambda args: Plan().reply(args).duplicate(),
}
ASKED = [[Turn("echo", {"a": 1}), Turn("echo", {"a": 2})]]


@pytest.mark.parametrize("drift", DRIFTS)
def test_worker_that_drifts_is_found(drift: str) -> None:
    """Whether it answers differently, fails, dies, or speaks out of turn: the turn and both outcomes are told."""
    played = {
        "right": play_all("sim", ASKED),
        "wrong": play_all("sim", ASKED, commands={"echo": DRIFTS[drift]}),
    }
    with pytest.raises(DifferenceError, match=r"(?s)conversation 0 differs.*on right.*on wrong"):
        compare(ASKED, played)


def test_conversation_is_drawn_from_its_seed_alone() -> None:
    """The same numbers give the same turns, others give others."""
    assert conversation(1, 2) == conversation(1, 2) != conversation(1, 3)
    assert conversation(2, 2) != conversation(1, 2)


def test_comparison_of_nothing_is_refused() -> None:
    """Without conversations, and with one kind of port to lay beside nothing, it passed."""
    played = {"right": play_all("sim", ASKED)}
    with pytest.raises(ValueError, match="1 conversations on right: nothing is laid side by side"):
        compare(ASKED, played)
    with pytest.raises(ValueError, match="0 conversations on one, other: nothing is laid side by side"):
        compare([], {"one": [], "other": []})


def test_kind_of_port_that_there_is_not_is_named() -> None:
    """A slip of the pen was a bare KeyError out of the middle of a run."""
    with pytest.raises(ValueError, match="no kind of port 'simm', only sim, server, process"):
        played_on(["simm", "sim"], [[]])
