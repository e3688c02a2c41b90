"""The clauses of the protocol: our bridge keeps them all, and each fault is found by the clause that names it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from dspex_pool.transport.options import SubprocessOptions
from dspex_testkit.children.faulty import FAULTS
from dspex_testkit.conform.bench import Outcome
from dspex_testkit.conform.catalogue import CLAUSES, FOUNDATIONS, choose
from dspex_testkit.conform.profile import ECHO_PROFILE, KnownCommand, Profile
from dspex_testkit.conform.run import conform
from dspex_testkit.contracts.worker import WorkerContract
from tests.bridge_process import ECHO
from tests.documents import ROOT
from tests.faulty_workers import BLAMED, MORE_BLAMED, faulty_command, findings_of
from tests.forked_popen import template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspex_testkit.conform.clause import Clause

pytestmark = pytest.mark.integration

BRIDGE = [sys.executable, "-m", "dspex_pool.bridge"]
ECHO_BRIDGE = [*BRIDGE, "--handler", ECHO, "--max-frame-bytes", "65536"]


def flattened(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


# --- the catalogue -----------------------------------------------------------------------------------------


def test_clauses_are_many_and_each_has_an_id_of_its_own() -> None:
    """There are more than sixty clauses, and no id stands for two."""
    assert len(CLAUSES) == len({clause.id for clause in CLAUSES}) >= 60


def test_every_clause_is_taken_from_the_protocol_word_for_word() -> None:
    """Nobody is held to what the protocol does not say."""
    protocol = flattened((ROOT / "docs" / "protocol.md").read_text(encoding="utf-8"))
    assert [clause.id for clause in CLAUSES if flattened(clause.source) not in protocol] == []


def test_every_clause_states_its_promise() -> None:
    """The verdict on a clause can be read without its code."""
    assert [clause.id for clause in CLAUSES if not clause.promise.endswith(".")] == []


# --- our bridge --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["standalone", "pool-worker"])
def test_bridge_keeps_every_clause(mode: str) -> None:
    """Every single clause can be judged on the bridge, and is kept (B7)."""
    findings = conform([*ECHO_BRIDGE, "--mode", mode], ECHO_PROFILE)
    assert [(v.clause.id, v.seen) for v in findings.verdicts if v.outcome is not Outcome.PASSED] == []
    assert findings.version == 2


@pytest.mark.skipif(sys.platform != "linux", reason="templates take what Linux has")
def test_forked_bridge_keeps_every_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that a template has forked is no other than one that was started."""
    with template(SubprocessOptions(handler=ECHO, max_frame_bytes=65536)) as forking:
        monkeypatch.setattr("subprocess.Popen", forking.popen)
        findings = conform(["a fork of the template"], ECHO_PROFILE)
        assert forking.count > 20
    assert [(v.clause.id, v.seen) for v in findings.verdicts if v.outcome is not Outcome.PASSED] == []


def test_bridge_with_dspy_keeps_every_clause_that_concerns_it() -> None:
    """What the handler serves changes nothing of what a worker is (B7)."""
    failing = KnownCommand("get_program_info", {"program_id": "ghost", "session_id": "s"})
    findings = conform([*BRIDGE, "--mode", "pool-worker"], Profile(commands={"failing": failing}))
    assert [(v.clause.id, v.seen) for v in findings.of(Outcome.FAILED)] == []
    assert len(findings.of(Outcome.PASSED)) >= 85


# --- workers that are broken on purpose --------------------------------------------------------------------


@pytest.mark.parametrize("fault", BLAMED)
def test_fault_is_found_by_the_clauses_that_name_it_and_no_other(fault: str) -> None:
    """Each broken worker breaks exactly the clauses that its fault concerns; all others were judged (B7)."""
    blamed = set(BLAMED[fault].split())
    findings = findings_of(fault)
    assert findings.ids(Outcome.FAILED) == blamed
    # Without frames nothing can be told. Whatever else is broken, everything is judged.
    assert bool(findings.of(Outcome.NOT_JUDGED)) == bool(blamed & {clause.id for clause in FOUNDATIONS})
    assert not findings.of(Outcome.NOT_APPLICABLE) or blamed & {clause.id for clause in FOUNDATIONS}


def test_every_fault_is_in_the_table() -> None:
    """No fault of the broken worker goes without a clause."""
    assert FAULTS.keys() == BLAMED.keys() | MORE_BLAMED.keys()


#: Sends itself SIGTERM between the last look for signals and every wait of its worker: all of that is one step of C.
TERMINATED_AT_THE_DOOR = """
import collections, functools, operator, os, select, signal
from dspex_testkit.children import faulty

def struck(wait):
    def call(*args):
        signal_then_wait = functools.partial(os.killpg, 0, signal.SIGTERM), functools.partial(wait, *args)
        return collections.deque(map(operator.call, signal_then_wait))[-1]
    return call

os.read, select.select = struck(os.read), struck(select.select)
worker = faulty.Worker("none")
worker.install()
worker.serve()
"""


def test_signal_just_before_a_worker_waits_is_heeded() -> None:
    """SIGTERM a moment before the read was not heeded until bytes came: O06 failed now and then for no fault."""
    with subprocess.Popen(
        [sys.executable, "-c", TERMINATED_AT_THE_DOOR], stdin=subprocess.PIPE, start_new_session=True
    ) as worker:
        try:
            assert worker.wait(10) == 0
        finally:
            worker.kill()


# --- the contract ------------------------------------------------------------------------------------------


class TestFaultlessWorker(WorkerContract):
    """The contract as a third party writes it, here held to the clauses of three subjects."""

    profile = ECHO_PROFILE
    clauses = choose(["F1*", "V*", "L0*"])

    def command(self) -> list[str]:
        """Return a worker without a fault."""
        return faulty_command("none")


class UncancellableWorker(WorkerContract):
    """A worker that its author knows to have a fault."""

    profile = Profile(commands={"slow": KnownCommand("sleep", {"seconds": 60})}, timeout=0.5)
    expected_failures: ClassVar = {"G07": "it computes in one go", "F02": "nothing, it is kept"}

    def command(self) -> Sequence[str]:
        """Return a worker that ignores SIGINT."""
        return faulty_command("uncancellable")


def clause_of(name: str) -> Clause:
    """Return one clause."""
    return choose([name])[0]


def test_contract_tells_what_was_seen_and_what_the_protocol_says() -> None:
    """A broken clause is a failed test that needs no look into our code."""
    with pytest.raises(
        pytest.fail.Exception, match="went on with its command\nprotocol: SIGINT while a command runs"
    ):
        UncancellableWorker().test_worker_keeps(clause_of("G10"))


def test_contract_skips_what_it_cannot_judge() -> None:
    """A clause for which the profile names no command is skipped with that reason."""
    with pytest.raises(pytest.skip.Exception, match="role 'echo'"):
        UncancellableWorker().test_worker_keeps(clause_of("F15"))


def test_contract_lets_a_known_fault_pass_as_long_as_it_is_there() -> None:
    """A clause that is expected to be broken is an expected failure; one that is kept after all fails."""
    with pytest.raises(pytest.xfail.Exception, match="computes in one go"):
        UncancellableWorker().test_worker_keeps(clause_of("G07"))
    with pytest.raises(pytest.fail.Exception, match="F02 is kept, but expected to be broken"):
        UncancellableWorker().test_worker_keeps(clause_of("F02"))


def test_contract_names_what_its_author_gave_wrongly() -> None:
    """A text was taken for a list of letters, and a clause that there is not for one that is broken."""

    class Shell(WorkerContract):
        def command(self) -> Any:
            return "./my-worker --verbose"

    with pytest.raises(
        pytest.fail.Exception, match=r"a list of words, such as \['./my-worker', '--verbose'\]"
    ):
        Shell().test_worker_keeps(clause_of("F00"))
    metafunc = SimpleNamespace(fixturenames=["clause"], parametrize=lambda *_, **__: None)
    Shell().pytest_generate_tests(metafunc)
    Shell.expected_failures = {"F99": "it is old"}
    with pytest.raises(ValueError, match="expected_failures: there is no clause F99"):
        Shell().pytest_generate_tests(metafunc)
    Shell.clauses, Shell.expected_failures = ["F00"], {}  # type: ignore[list-item] # that is what is tested
    with pytest.raises(TypeError, match="'F00' is no clause; clauses = choose"):
        Shell().pytest_generate_tests(metafunc)
