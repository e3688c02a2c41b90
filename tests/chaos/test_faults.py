"""The catalogue of faults: each happens wherever it says so, and nothing proves what was not done."""

from __future__ import annotations

import errno
import math
import random
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from dspex_pool.errors import CallTimeoutError, ProgramError
from dspex_testkit.chaos import catalogue as of
from dspex_testkit.chaos.catalogue import CATALOGUE
from dspex_testkit.chaos.chaos import Chaos
from dspex_testkit.chaos.fault import Fault, FaultDidNotHappenError
from dspex_testkit.chaos.faults import cpu_starvation
from dspex_testkit.chaos.line_fault import LineFault
from dspex_testkit.chaos.ports import lined_ports_of
from dspex_testkit.chaos.system import end_burners, start_burner
from tests.chaos.fault_cases import CASES, Case

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable

    from dspex_pool.transport.port import Port, PortFactory
    from dspex_testkit.chaos.fault import Witness
    from dspex_testkit.chaos.injection import Injection
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
    """Each fault leaves its proof on each kind of port that it claims, and the pool gets over it.

    Faults of bytes on simulated lines; on all others at night, for a line is the same everywhere.
    """
    await let_happen(
        pool, chaos, subtests, (one for one in cases_of(pool.port) if not is_at_night(one, pool))
    )


@pytest.mark.ports("server", "process")
@IMPATIENT
async def test_faults_of_bytes_happen_on_real_lines_in_a_soak(
    pool: PoolHandle, chaos: Chaos, subtests: pytest.Subtests
) -> None:
    """The same proofs hold where the bytes are those of pipes."""
    await let_happen(pool, chaos, subtests, (one for one in cases_of(pool.port) if is_at_night(one, pool)))


async def let_happen(
    pool: PoolHandle, chaos: Chaos, subtests: pytest.Subtests, cases: Iterable[Case]
) -> None:
    """Inject each fault under its work, and see its proof and the pool whole again."""
    for case in cases:
        with subtests.test(repr(case.fault)):
            with chaos(scaled(case, pool.unit)) as fault:
                await case.work(pool, fault)
                await fault.until_happened()
                fault.happened(case.times)
            await pool.steady()


def is_at_night(case: Case, pool: PoolHandle) -> bool:
    """Tell whether a case is left to the soak: bytes on a line that is not simulated."""
    return pool.port != "sim" and isinstance(case.fault, LineFault)


@pytest.mark.ports("all")
@IMPATIENT
async def test_no_proof_comes_of_nothing(pool: PoolHandle, chaos: Chaos, subtests: pytest.Subtests) -> None:
    """With the injector disarmed and the same work going on, the proof of every fault fails."""
    for case in cases_of(pool.port):
        if is_at_night(case, pool):
            continue  # a line is the same everywhere
        with subtests.test(repr(case.fault)):
            fault = chaos.disarmed()(scaled(case, pool.unit))
            await case.idle_work(pool, fault)
            with pytest.raises(FaultDidNotHappenError, match="happened 0 times"):
                fault.happened()
            with pytest.raises(FaultDidNotHappenError):
                fault.__exit__(None, None, None)


def test_every_fault_of_a_pool_has_a_case() -> None:
    """No fault is in the catalogue that nobody has seen happen."""
    tried = list(dict.fromkeys(type(case.fault) for case in CASES))
    assert tried == [kind for kind in CATALOGUE if kind.where != ("lm",)]
    assert len(CATALOGUE) >= 35


# --- what holds for all of them ------------------------------------------------------------------------------


@pytest.mark.ports("sim")
async def test_block_fails_whose_fault_did_not_happen(pool: PoolHandle, chaos: Chaos) -> None:
    """Nobody need ask for the proof: the end of the block does."""
    with pytest.raises(FaultDidNotHappenError, match=r"Corrupt\(.*\): it was to happen"), chaos(of.Corrupt()):
        await pool.steady()


@pytest.mark.ports("sim")
@pytest.mark.parametrize("fault", [of.HangStart(seconds=1.0), of.SlowStart(seconds=1.0)])
async def test_start_that_takes_long_by_itself_proves_nothing(
    pool: PoolHandle, chaos: Chaos, fault: of.HangStart | of.SlowStart
) -> None:
    """Bug: a start that took as long on a busy machine as the fault would have made it counted as its work."""
    ports = lined_ports_of(pool)
    ports.factory = _Busy(ports.factory)
    disarmed = chaos.disarmed()(fault)
    pool.kill(0)
    await pool.steady()
    assert trio.current_time() > 1.5
    with pytest.raises(FaultDidNotHappenError, match="happened 0 times"):
        disarmed.happened()
    with pytest.raises(FaultDidNotHappenError):
        disarmed.__exit__(None, None, None)


class _Busy:
    """A machine on which each start takes long."""

    def __init__(self, factory: PortFactory) -> None:
        self._factory = factory

    async def open(self, *, worker_id: str, incarnation: int) -> Port:
        await trio.sleep(1.5)
        return await self._factory.open(worker_id=worker_id, incarnation=incarnation)


@pytest.mark.ports("sim")
async def test_fault_is_refused_where_it_cannot_be(pool: PoolHandle, chaos: Chaos) -> None:
    """A fault of processes is no fault of a simulated worker, and says so."""
    with pytest.raises(ValueError, match="can be on process; this pool is on sim"):
        chaos(of.DiskFull())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: of.Latency(seconds=-1), "Latency: seconds = -1 is refused: it is at least 0"),
        (lambda: of.Stop(seconds=math.nan), "Stop: seconds = nan is refused: it is at least 0"),
        (lambda: of.Stop(seconds="1"), "Stop: seconds = '1' is refused: it is a number"),  # type: ignore[arg-type] # that is tested
        (lambda: of.Bandwidth(bytes_per_second=0), "Bandwidth: bytes_per_second = 0 is refused"),
        (lambda: of.FailStart(times=0), "FailStart: times = 0 is refused: it is at least 1"),
        (lambda: of.Truncate(size=-1), "Truncate: size = -1 is refused: it is at least 0"),
        (lambda: of.Garbage(size=0), "Garbage: size = 0 is refused: it is at least 1"),
        (lambda: of.WrongLength(size=0), "WrongLength: size = 0 is refused: the length would be right"),
        (lambda: of.StdoutText(text=""), "StdoutText: text = '' is refused: nothing would be printed"),
        (lambda: of.Misspeak(how="lies"), "Misspeak: how = 'lies' is refused: it is one of garbage, "),  # type: ignore[arg-type] # that is tested
        (lambda: of.Kill(worker="w-1"), "the oldest worker has 0"),  # type: ignore[arg-type] # that is tested
    ],
)
def test_fault_that_could_not_happen_is_refused_where_it_is_made(
    make: Callable[[], Fault], said: str
) -> None:
    """It was taken, and did something else, nothing, or failed far from the line that made it."""
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        make()


@pytest.mark.ports("sim")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (of.Kill, "is no fault, such as Kill"),
        ("Kill", "'Kill' is no fault, such as Kill"),
        (of.Kill(worker=9), "there is no worker 9, counted from 0: 1 live"),
        (of.LmDown(), "needs the script of a language model"),
    ],
)
@IMPATIENT
async def test_fault_that_cannot_begin_is_told_once(
    pool: PoolHandle, chaos: Chaos, fault: Any, said: str
) -> None:
    """Words of the depth were followed by the error that nobody had asked for its proof."""
    with pytest.raises((TypeError, IndexError, AssertionError), match=said):
        chaos(fault)
    chaos.demand_proofs()


@pytest.mark.ports("sim")
async def test_same_seed_same_damage(pool: PoolHandle, chaos: Chaos) -> None:
    """What a fault draws comes from the test's seed alone."""
    damage = []
    for _ in range(2):
        again = Chaos(random.Random(7), pool=pool)
        with again(of.Slice()) as fault:
            await pool.call("echo", {"text": "x" * 60})
        damage.append(fault.evidence)
    assert damage[0] == damage[1]


@pytest.mark.ports("sim")
@pytest.mark.pool_settings(pool_size=1)
async def test_fault_without_a_block_must_be_proven_too(pool: PoolHandle) -> None:
    """What was injected is not forgotten: somebody asks for its proof, or the fixture fails the test."""
    injector = Chaos(random.Random(0), pool=pool)
    fault = injector(of.Kill())
    with pytest.raises(FaultDidNotHappenError, match=r"nobody asked whether this happened: Kill\(worker=0\)"):
        injector.demand_proofs()
    fault.happened(times=1)
    injector.demand_proofs()


def test_faults_travel_as_json() -> None:
    """What was written by one process is the same fault in another, and no other."""
    for case in CASES:
        assert of.decode(of.encode(case.fault)) == case.fault
    with pytest.raises(msgspec.ValidationError):
        of.decode(b'{"type": "Kill", "worker": "first"}')


@pytest.mark.ports("sim")
async def test_faults_add_up_on_one_line(pool: PoolHandle, chaos: Chaos) -> None:
    """Late and in pieces: each fault proves itself beside the other, and the answer is whole."""
    with chaos(of.Latency(seconds=0.5)) as late, chaos(of.Slice(size=3)) as sliced:
        reply = await pool.call("echo", {"n": 1})
        late.happened()
        sliced.happened()
    assert reply.result == {"n": 1}
    assert reply.duration_s >= 0.5


@pytest.mark.ports("all")
@pytest.mark.pool_settings(pool_size=1)
async def test_what_was_stopped_goes_on_when_the_test_is_cut_short(pool: PoolHandle, chaos: Chaos) -> None:
    """A block that is cancelled mends its fault, however long it was meant to last."""
    with trio.move_on_after(0.1 * pool.unit), chaos(of.Stop(seconds=1e6)) as fault:
        await trio.sleep_forever()
    fault.happened(times=1)
    assert (await pool.call("echo", {"n": 1}, timeout=100 * pool.unit)).result == {"n": 1}
    assert pool.statistics().counters.started == 1


@pytest.mark.ports("process")
@pytest.mark.pool_settings(pool_size=1)
async def test_limits_are_lifted(pool: PoolHandle, chaos: Chaos) -> None:
    """The same worker that had no memory left has it again when the block is over."""
    with chaos(of.MemoryExhaustion()):
        with pytest.raises(ProgramError, match="MemoryError"):
            await pool.call("hold_memory", {"bytes": 2**27})
    await pool.call("hold_memory", {"bytes": 2**27})
    assert pool.statistics().counters.started == 1


@pytest.mark.ports("sim")
@IMPATIENT
async def test_call_ends_in_its_time_although_its_request_is_held_back(
    pool: PoolHandle, chaos: Chaos
) -> None:
    """The port under the line was told that the time was over, and it was not that which waited."""
    began = trio.current_time()
    with pytest.raises(FaultDidNotHappenError), chaos(of.LateRequest(worker=0, seconds=10.0)):
        with pytest.raises(CallTimeoutError):
            await pool.call("echo", timeout=1.0)
    assert trio.current_time() - began == 1.0


class Mending(Fault, frozen=True):
    """A fault that notes when it is mended, and may fail in it."""

    notes: list[int]
    number: int
    fails: bool = False

    def inject(self, to: Injection) -> Witness:
        """Do nothing yet."""
        to.afterwards(self.mend)
        return list

    def mend(self) -> None:
        """Note it."""
        self.notes.append(self.number)
        if self.fails:
            raise OSError("cannot be mended")


@pytest.mark.ports("sim")
async def test_what_is_left_is_mended_the_last_first_whatever_fails(pool: PoolHandle) -> None:
    """A fault that could not be mended left the others; and of two on one thing, the first is how it was before."""
    chaos, notes = Chaos(random.Random(0), pool=pool), list[int]()
    for number in range(3):
        chaos(Mending(notes, number, fails=number == 1))
    with pytest.raises(OSError, match="cannot be mended"):
        chaos.leave()
    assert notes == [2, 1, 0]


@pytest.mark.ports("process")
@IMPATIENT
async def test_starvation_that_cannot_begin_leaves_nothing(
    pool: PoolHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the second burner could not be started, the first one went on for ever, and nobody knew of it."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(processor: int) -> subprocess.Popen[bytes]:
        if started:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        started.append(start_burner(processor))
        return started[0]

    monkeypatch.setattr(cpu_starvation, "start_burner", start_one)
    with pytest.raises(BlockingIOError):
        Chaos(random.Random(0), pool=pool)(of.CpuStarvation(worker=0, burners=2))
    (burner,) = started
    was_ended = burner.poll() is not None
    end_burners(started)
    assert was_ended
