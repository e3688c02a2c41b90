"""Five hundred drawn conversations on every kind of port: no difference in outcome."""

from __future__ import annotations

import pytest

from dspex_testkit.contracts.conversations import conversation
from dspex_testkit.contracts.differential import compare, played_on
from dspex_testkit.seeds import random_of

pytestmark = pytest.mark.chaos

CONVERSATIONS = 500
PARTS = 5


@pytest.mark.parametrize("part", range(PARTS))
def test_no_conversation_shows_what_its_port_is_soak(part: int, dspex_seed: int) -> None:
    """Whatever is asked, in whatever trouble, the outcomes are those of the simulation, everywhere."""
    seed = random_of(dspex_seed, "differential").randrange(10**9)
    share = CONVERSATIONS // PARTS
    asked = [conversation(seed, number) for number in range(part * share, (part + 1) * share)]
    assert compare(asked, played_on(["sim", "server", "process"], asked)) > 5 * share
