"""The contract of all workers, in any language: every clause of the protocol as a test.

A test module runs it by a class of its own; pytest shows each clause as one test::

    class TestMyWorker(WorkerContract):
        profile = Profile(commands={"slow": KnownCommand("sleep", {"seconds": 60})})

        def command(self):
            return ["./my-worker", "--verbose"]

A clause that cannot be judged, because the profile names no command for it or because the worker speaks version 1, is
skipped. The same clauses are behind ``dspex-testkit conform``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from dspex_testkit.conform.bench import Bench, Outcome
from dspex_testkit.conform.catalogue import CLAUSES
from dspex_testkit.conform.clause import Clause
from dspex_testkit.conform.profile import KnownCommand, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["KnownCommand", "Profile", "WorkerContract"]


class WorkerContract(ABC):
    """The clauses. A subclass gives ``command``, and says by ``profile`` what is known of its worker."""

    #: What is known of the worker.
    profile: ClassVar[Profile] = Profile()
    #: The version that it is meant to speak.
    version: ClassVar[int] = 2
    #: What it is held to.
    clauses: ClassVar[Sequence[Clause]] = CLAUSES
    #: Ids of clauses that it is known to break, each with the reason. One that is kept after all fails.
    expected_failures: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return what starts the worker."""

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Make a test of each clause.

        Raises:
            TypeError: Something else is among the clauses.
            ValueError: A clause is expected to be broken that there is not.
        """
        if wrong := [clause for clause in self.clauses if not isinstance(clause, Clause)]:
            raise TypeError(
                f"{wrong[0]!r} is no clause; clauses = choose(['F*', 'H01']) takes them by their ids"
            )
        if unknown := self.expected_failures.keys() - {clause.id for clause in CLAUSES}:
            raise ValueError(f"expected_failures: there is no clause {', '.join(sorted(unknown))}")
        if "clause" in metafunc.fixturenames:
            metafunc.parametrize("clause", self.clauses, ids=[clause.id for clause in self.clauses])

    def test_worker_keeps(self, clause: Clause) -> None:
        """A worker of its own keeps the clause."""
        import pytest

        command = self.command()
        if isinstance(command, str):
            pytest.fail(
                f"command() gives a list of words, such as {command.split()}, and not a text", pytrace=False
            )
        bench = Bench(command, self.profile, version=self.version, is_sharing=False)
        try:
            verdict = bench.judge(clause)
        finally:
            bench.close()
        if verdict.outcome is Outcome.NOT_APPLICABLE:
            pytest.skip(verdict.seen)
        reason = self.expected_failures.get(clause.id)
        if verdict.outcome is Outcome.FAILED and reason is not None:
            pytest.xfail(f"{reason}: {verdict.seen}")
        if verdict.outcome is Outcome.FAILED:
            text = f"{clause.id} {clause.promise}\n{verdict.seen}\nprotocol: {clause.source}"
            pytest.fail(text, pytrace=False)
        if reason is not None:
            pytest.fail(f"{clause.id} is kept, but expected to be broken: {reason}", pytrace=False)
