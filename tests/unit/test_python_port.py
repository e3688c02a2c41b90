"""The public API on one mock worker, without a pool."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.adapters import PythonPort
from dspex_pool.config import PoolConfig
from dspex_pool.errors import (
    CallTimeoutError,
    InvalidArgumentError,
    RemoteProtocolError,
    WorkerDiedError,
    WorkerStartError,
)
from dspex_testkit.contracts.adapter import INPUTS, SIGNATURE, AdapterContract
from dspex_testkit.plan import Plan
from tests.session_workers import CannedWorkers, instead_of, slow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from dspex_pool.adapters import Adapter


class PortContract(AdapterContract):
    """The adapter contract on one mock worker."""

    @contextlib.asynccontextmanager
    async def open_adapter(self) -> AsyncIterator[Adapter]:
        """Start the worker."""
        async with PythonPort.open(ports=CannedWorkers()) as port:
            yield port


@pytest.mark.trio
async def test_port_keeps_the_adapter_contract(autojump_clock: MockClock) -> None:
    """What every adapter promises holds on one process, with canned programs."""
    contract = PortContract()
    async with contract.open_adapter() as port:
        await contract.keep_all(port)


@pytest.mark.trio
async def test_port_stops_what_was_left_before_the_next_call(autojump_clock: MockClock) -> None:
    """A call that timed out or was cancelled is interrupted; if it will not stop, the next call can be bounded."""
    workers = CannedWorkers()
    async with PythonPort.open(ports=workers) as port:
        await port.create_program("p", SIGNATURE)
        workers.intercept = slow("execute_program", 60.0)
        with pytest.raises(CallTimeoutError):
            await port.execute_program("p", INPUTS, timeout=1.0)
        with trio.move_on_after(1):
            await port.execute_program("p", INPUTS)
        assert (await port.list_programs(timeout=math.inf))["total_count"] == 1
        assert trio.current_time() == pytest.approx(2.0, abs=0.1)
        workers.intercept = instead_of("execute_program", Plan().after(60, deaf=True).reply({}))
        with trio.move_on_after(1):
            await port.execute_program("p", INPUTS)
        with pytest.raises(CallTimeoutError, match=r"still busy.*'ping' was not sent") as info:
            await port.ping(timeout=2.0)
        assert info.value.request_sent is False
        assert await port.health_check()
        assert trio.current_time() == pytest.approx(62.0, abs=1.0)
        with pytest.raises(InvalidArgumentError, match="timeout"):
            await port.ping(timeout=-1.0)
        assert workers.started == 1


@pytest.mark.trio
async def test_port_whose_worker_died_says_so_every_time(autojump_clock: MockClock) -> None:
    """Whether it died over a command, after one that was left, or idle, each further call tells of the death."""
    for plan, leaves in ((Plan().die(signal=9), False), (Plan().after(5, deaf=True).die(signal=9), True)):
        workers = CannedWorkers()
        workers.intercept = instead_of("execute_program", plan)
        async with PythonPort.open(ports=workers) as port:
            tenant = port.session_adapter("tenant")
            await tenant.create_program("p", SIGNATURE)
            with trio.move_on_after(1 if leaves else 9) as scope:
                with pytest.raises(WorkerDiedError, match="signal 9"):
                    await tenant.execute_program("p", INPUTS)
            assert scope.cancelled_caught is leaves
            for _ in range(2):
                with pytest.raises(WorkerDiedError, match="signal 9") as info:
                    await tenant.list_programs()
                assert info.value.request_sent is False
            assert await port.health_check() is False
        assert (workers.started, workers.live) == (1, [])


async def check_it_was_ended(port: PythonPort, reason: str, workers: CannedWorkers) -> None:
    """Check that every call says why the process was ended, and that none is left."""
    for _ in range(2):
        with trio.fail_after(60), pytest.raises(WorkerDiedError, match=rf"{reason}.*'list_programs'") as info:
            await port.list_programs()
        assert info.value.request_sent is False
    assert workers.live == []


@pytest.mark.trio
async def test_port_whose_worker_has_half_a_request_ends_it(autojump_clock: MockClock) -> None:
    """A call left while its request was written had every later one wait for ever for the worker's answer to it."""
    workers = CannedWorkers()
    async with PythonPort.open(ports=workers) as port:
        await port.create_program("p", SIGNATURE)
        workers.port("w-1").accept_only(10)
        with trio.move_on_after(1):
            await port.execute_program("p", INPUTS)
        await check_it_was_ended(port, "torn_frame", workers)
    assert workers.started == 1


@pytest.mark.trio
async def test_port_whose_worker_broke_the_protocol_ends_it(autojump_clock: MockClock) -> None:
    """Every call after that blamed the caller's arguments for it."""
    workers = CannedWorkers()
    workers.intercept = instead_of("execute_program", Plan().garbage(b"\0\0\0\2no"))
    async with PythonPort.open(ports=workers) as port:
        await port.create_program("p", SIGNATURE)
        with pytest.raises(RemoteProtocolError):
            await port.execute_program("p", INPUTS)
        await check_it_was_ended(port, "protocol_error", workers)
    assert workers.started == 1


@pytest.mark.trio
async def test_port_that_cannot_start_says_why_and_leaves_nothing(autojump_clock: MockClock) -> None:
    """A start that fails, hangs, or is cancelled ends the process and tells the reason."""
    workers = CannedWorkers()
    workers.fail_starts = 1
    with pytest.raises(WorkerStartError, match="ordered by the test"):
        async with PythonPort.open(ports=workers):
            raise AssertionError("opened")
    workers.hang_starts = 1
    with pytest.raises(WorkerStartError, match="within 7 s"):
        async with PythonPort.open(PoolConfig(), ports=workers, spawn_timeout=7.0):
            raise AssertionError("opened")
    workers.hang_starts = 1
    with trio.move_on_after(1):
        async with PythonPort.open(ports=workers):
            raise AssertionError("opened")
    with pytest.raises(KeyError, match="mine"):
        async with PythonPort.open(PoolConfig(), ports=workers):
            raise KeyError("mine")
    assert (workers.started, workers.live, workers.starting) == (1, [], 0)
