"""A language model to test against, and fake data: ``lm_server``, ``scripted_lm`` and ``dspex_faker``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dspex_testkit.lm.engine import ScriptedLM
    from dspex_testkit.lm.server import LMServer


@pytest.fixture
def lm_server() -> Iterator[LMServer]:
    """An OpenAI-compatible server on loopback that answers as its ``script`` says, which must be used up."""
    from dspex_testkit.lm.server import LMServer

    with LMServer() as server:
        yield server
    server.script.assert_drained()


@pytest.fixture
def scripted_lm(tmp_path: Path) -> Iterator[ScriptedLM]:
    """A model without network for real workers that answers as its ``script`` says, which must be used up."""
    from dspex_testkit.lm.engine import ScriptedLM

    scripted = ScriptedLM(tmp_path / "lm-script.json")
    yield scripted
    scripted.script.assert_drained()


@pytest.fixture
def dspex_faker(dspex_seed: int, request: pytest.FixtureRequest) -> Any:
    """Fake data for one test, drawn from the run's seed and the test's name: a Faker with our provider."""
    from dspex_testkit.fakes import faker_of

    return faker_of(dspex_seed, request.node.nodeid)
