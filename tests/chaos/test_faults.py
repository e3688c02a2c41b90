"""The catalogue of faults: each happens wherever it says so, and nothing proves what was not done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from dspex_testkit.chaos.catalogue import CATALOGUE
from dspex_testkit.chaos.fault import FaultDidNotHappenError
from tests.chaos.fault_cases import CASES, Case

if TYPE_CHECKING:
    from dspex_testkit.chaos.chaos import Chaos
    from dspex_testkit.ports.handle import PoolHandle

pytestmark = pytest.mark.chaos


def scaled(case: Case, unit: float) -> Any:
    """Return the fault with its durations in the unit of a port."""
    fault: Any = case.fault
    if "seconds" in fault.__struct_fields__:
        fault = msgspec.structs.replace(fault, seconds=fault.seconds * unit)
    if "bytes_per_second" in fault.__struct_fields__:
        fault = msgspec.structs.replace(fault, bytes_per_second=fault.bytes_per_second / unit)
    return fault


def cases_of(port: str) -> list[Case]:
    """Return the cases of the faults that can be on a kind of port."""
    return [case for case in CASES if port in case.fault.where]


#: Impatient, so that no test waits for what is not to come.
IMPATIENT = pytest.mark.pool_settings(pool_size=1, retries=0, cancel_grace=0.2, terminate_grace=0.2)


@pytest.mark.ports("all")
@IMPATIENT
async def test_every_fault_happens_where_it_says_so(
    pool: PoolHandle, chaos: Chaos, subtests: pytest.Subtests
) -> None:
    """Each fault of the catalogue leaves its proof on each kind of port that it claims, and the pool gets over it."""
    for case in cases_of(pool.port):
        with subtests.test(repr(case.fault)):
            with chaos(scaled(case, pool.unit)) as fault:
                await case.work(pool, fault)
                await fault.until_happened()
                fault.happened(case.times)
            await pool.steady()


@pytest.mark.ports("sim", "process")
@IMPATIENT
async def test_no_proof_comes_of_nothing(pool: PoolHandle, chaos: Chaos, subtests: pytest.Subtests) -> None:
    """With the injector disarmed and the same work going on, the proof of every fault fails."""
    # Where a simulated worker has shown it, a process has nothing to add.
    for case in cases_of(pool.port):
        if case.fault.where[0] != pool.port:
            continue
        with subtests.test(repr(case.fault)):
            fault = chaos.disarmed()(scaled(case, pool.unit))
            await case.idle_work(pool, fault)
            with pytest.raises(FaultDidNotHappenError, match="happened 0 times"):
                fault.happened()
            with pytest.raises(FaultDidNotHappenError):
                fault.__exit__(None, None, None)


def test_every_fault_of_a_pool_has_a_case() -> None:
    """No fault is in the catalogue that nobody has seen happen."""
    tried = [type(case.fault) for case in CASES]
    assert tried == [kind for kind in CATALOGUE if kind.where != ("lm",)]
    assert len(CATALOGUE) >= 35
