"""Faults that prove themselves: the fixture ``chaos``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from dspex_testkit.chaos.chaos import Chaos


@pytest.fixture
def chaos(dspex_random: random.Random) -> Iterator[Chaos]:
    """Inject faults that prove themselves: ``with chaos(Kill(worker=0)) as fault: …``."""
    from dspex_testkit.chaos.chaos import Chaos

    injector = Chaos(dspex_random)
    yield injector
    injector.leave()
    injector.demand_proofs()
