"""The adapter contract on canned answers, and what the mock adds to it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.errors import CallTimeoutError
from dspex_testkit.adapters.mock import Mock
from dspex_testkit.contracts.adapter import INPUTS, SIGNATURE, AdapterContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from dspex_pool.adapters.base import Adapter


@pytest.mark.trio
class TestMock(AdapterContract):
    """The contract on the mock."""

    @contextlib.asynccontextmanager
    async def open_adapter(self) -> AsyncIterator[Adapter]:
        """Open a mock."""
        yield Mock()


@pytest.mark.trio
async def test_mock_answers_what_was_canned() -> None:
    """Outputs are given by signature, as values or by a function of the inputs."""
    mock = Mock({"a -> b": {"b": "canned"}, SIGNATURE: lambda inputs: {"answer": inputs["question"][::-1]}})
    await mock.create_program("values", "a -> b")
    await mock.create_program("function", SIGNATURE)
    assert (await mock.execute_program("values", {"a": "x"}))["outputs"] == {"b": "canned"}
    answer = (await mock.execute_program("function", {**INPUTS, "question": "abc"}))["outputs"]["answer"]
    assert answer == "cba"


@pytest.mark.trio
async def test_mock_takes_its_time_and_keeps_to_the_timeout(autojump_clock: MockClock) -> None:
    """A delay passes on trio's clock; a shorter timeout ends the call as a worker's would."""
    mock = Mock(delays={"ping": 10.0})
    assert (await mock.ping())["status"] == "ok"
    assert trio.current_time() == pytest.approx(10.0)
    with pytest.raises(CallTimeoutError, match="within 2 s"):
        await mock.ping(timeout=2.0)
    assert trio.current_time() == pytest.approx(12.0)
    assert await mock.health_check(timeout=1.0) is False


@pytest.mark.trio
async def test_all_promises_can_run_on_one_adapter() -> None:
    """Where opening is dear, one adapter serves the whole contract; what it breaks is told by name."""
    await TestMock().keep_all(Mock())

    class Forgetful(Mock):
        async def health_check(self, *, timeout: float | None = None) -> bool:
            return False

        def session_adapter(self, session_id: str) -> Mock:
            return Forgetful(session_id=session_id, bridge=self._bridge)

    with pytest.raises(ExceptionGroup) as info:
        await TestMock().keep_all(Forgetful())
    assert [error.__notes__ for error in info.value.exceptions] == [
        ["promise: test_health_check_is_true_while_the_worker_answers"]
    ]
