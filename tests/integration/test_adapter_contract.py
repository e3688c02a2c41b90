"""The adapter contract on real DSPy workers: one process alone, and a pool of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from dspex_pool.adapters import PythonPool, PythonPort
from dspex_pool.config import PoolConfig
from dspex_testkit.contracts.adapter import AdapterContract
from dspex_testkit.contracts.adapter_base import MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_pool.adapters import Adapter


class PortContract(AdapterContract):
    """The contract on one process; the model that its anonymous adapter sets is everybody's."""

    @contextlib.asynccontextmanager
    async def open_adapter(self) -> AsyncIterator[Adapter]:
        """Start the process."""
        async with PythonPort.open(PoolConfig()) as port:
            await port.configure_lm(**MODEL)
            yield port


class PoolContract(AdapterContract):
    """The contract on a pool of two processes."""

    @contextlib.asynccontextmanager
    async def open_adapter(self) -> AsyncIterator[Adapter]:
        """Open the pool."""
        async with PythonPool.open(PoolConfig(pool_size=2)) as pool:
            await pool.configure_lm(**MODEL)
            yield pool


# Opening is dear, so all promises are kept on one open adapter, each in a session of its own.
@pytest.mark.trio
@pytest.mark.parametrize("contract", [PortContract(), PoolContract()], ids=["port", "pool"])
async def test_real_workers_keep_the_adapter_contract(contract: AdapterContract) -> None:
    """What the mocks promise, real programs keep: the same answers, the same errors for the same mistakes."""
    async with contract.open_adapter() as adapter:
        await contract.keep_all(adapter)
