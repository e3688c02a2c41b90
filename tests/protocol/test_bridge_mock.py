"""The adapter contract over the wire, and what the wire adds to it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.errors import CallTimeoutError, ProgramError, WorkerDiedError
from dspex_testkit.adapters.bridge_mock import BridgeMock
from dspex_testkit.contracts.adapter import INPUTS, SIGNATURE, AdapterContract
from dspex_testkit.server_faults import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_pool.adapters.base import Adapter


@pytest.mark.trio
class TestBridgeMock(AdapterContract):
    """The contract on the mock server, in version 2, without a violation of the protocol."""

    version = 2

    @contextlib.asynccontextmanager
    async def open_adapter(self) -> AsyncIterator[Adapter]:
        """Open a mock server, and look at what it was sent afterwards."""
        async with BridgeMock.open(version=self.version) as adapter:
            yield adapter
        adapter.server.assert_clean()


@pytest.mark.trio
async def test_version_1_worker_keeps_the_promises_it_can_express() -> None:
    """A version 1 worker cannot say which kind of failure it is, except for programs; the rest holds."""
    contract = TestBridgeMock()
    contract.version = 1
    async with contract.open_adapter() as adapter:
        with pytest.raises(ExceptionGroup) as info:
            await contract.keep_all(adapter)
    broken = {error.__notes__[0] for error in info.value.exceptions}
    assert broken == {
        "promise: test_bad_signature_is_refused_and_creates_nothing",
        "promise: test_empty_program_id_is_refused",
        "promise: test_factory_that_is_not_allowed_is_named",
        "promise: test_load_refuses_a_bad_definition",
        "promise: test_missing_input_is_named",
        "promise: test_model_without_a_name_is_refused",
        "promise: test_refused_call_leaves_the_adapter_well",
        "promise: test_refused_model_leaves_the_one_before",
        "promise: test_unknown_input_is_named",
        "promise: test_unknown_program_type_is_named",
    }
    assert {type(error) for error in info.value.exceptions} == {ProgramError}


@pytest.mark.trio
async def test_adapter_serves_on_after_a_timeout() -> None:
    """The command that took too long is interrupted, its answer dropped, and the next call works."""
    async with BridgeMock.open(delays={"execute_program": 60.0}) as adapter:
        await adapter.create_program("p", SIGNATURE)
        with pytest.raises(CallTimeoutError):
            await adapter.execute_program("p", INPUTS, timeout=0.05)
        assert (await adapter.ping())["status"] == "ok"
    adapter.server.assert_clean()


@pytest.mark.trio
async def test_adapter_serves_on_after_a_caller_left() -> None:
    """A cancelled call is interrupted, its answer dropped, and the next call works."""
    async with BridgeMock.open(delays={"execute_program": 60.0}) as adapter:
        await adapter.create_program("p", SIGNATURE)
        with trio.move_on_after(0.05) as scope:
            await adapter.execute_program("p", INPUTS)
        assert scope.cancelled_caught
        assert await adapter.health_check()
        assert adapter.server.received == ["ping", "create_program", "execute_program", "ping"]


@pytest.mark.trio
async def test_death_of_the_worker_is_told_with_its_last_words() -> None:
    """A server that dies over a request looks like a worker that does."""
    async with BridgeMock.open(faults=(Fault("execute_program", "die"),)) as adapter:
        await adapter.create_program("p", SIGNATURE)
        with pytest.raises(WorkerDiedError, match=r"exit status 1.*dying, as ordered") as info:
            await adapter.execute_program("p", INPUTS)
        assert info.value.request_sent is True
        assert adapter.server.injected == [(2, "execute_program", "die")]
        assert await adapter.health_check() is False
