"""The named profiles on real pools, and payloads of every size that fits into a frame."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import pytest

from dspex_pool import PythonPool
from dspex_pool.errors import LocalFrameTooLargeError
from dspex_testkit.load.profile import PROFILES, Closed, Profile
from tests.stress.loads import ECHO

if TYPE_CHECKING:
    from tests.stress.loads import PutLoad

pytestmark = pytest.mark.stress

#: Seconds of a profile that would last for minutes.
SHORT: Final = 10.0

MEBIBYTE: Final = 1024 * 1024
LIMIT: Final = 16 * MEBIBYTE
#: Around every length at which a frame, a pipe or a buffer has an edge.
SIZES: Final = (0, 1, 255, 256, 4096, 65_535, 65_536, 65_537, MEBIBYTE, 4 * MEBIBYTE, LIMIT - 1024)


@pytest.mark.trio
@pytest.mark.parametrize(
    "name",
    ["single_operation_latency", "concurrent_throughput", "sustained_load", "session_affinity_performance"],
)
async def test_standard_benchmark_is_met_without_a_lost_call(name: str, load: PutLoad) -> None:
    """The ancestor's benchmarks: its bounds of p95 and throughput, and no call may fail."""
    profile = dataclasses.replace(PROFILES[name], seconds=min(SHORT, PROFILES[name].seconds))
    async with PythonPool.open(**profile.settings) as pool:
        result = await load(pool, profile)
    print(f"\n{result.answered} calls, {result.per_second:.0f} a second, {result.latency.percentiles()}")
    result.check()


@pytest.mark.trio
@pytest.mark.parametrize("size", SIZES)
async def test_payload_comes_back_whole(size: int, load: PutLoad) -> None:
    """From nothing up to the largest frame, what is sent is what is answered."""
    calls = 8 if size > MEBIBYTE else 200
    profile = Profile(name=f"bytes-{size}", load=Closed(4, calls=calls), seconds=60.0, payload_bytes=size)
    async with PythonPool.open(handler=ECHO, pool_size=2, max_frame_bytes=LIMIT) as pool:
        result = await load(pool, dataclasses.replace(profile, warmup_calls=2))
        reply = await pool.call("s", "echo", {"payload": "x" * size})
        assert reply.result["payload"] == "x" * size
    result.check()


@pytest.mark.trio
async def test_payload_beyond_the_frame_limit_costs_its_caller_alone() -> None:
    """A request that fits into no frame is refused here, and the worker serves the next."""
    async with PythonPool.open(handler=ECHO, pool_size=1, max_frame_bytes=LIMIT) as pool:
        with pytest.raises(LocalFrameTooLargeError):
            await pool.call("s", "echo", {"payload": "x" * LIMIT})
        assert (await pool.call("s", "echo", {"still": "well"})).result["still"] == "well"
        assert pool.statistics().counters.starts == 1
