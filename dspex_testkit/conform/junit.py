"""The verdicts as JUnit XML, for the machines that show test results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.conform.bench import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from junitparser import TestCase

    from dspex_testkit.conform.bench import Verdict
    from dspex_testkit.conform.run import Findings

__all__ = ["write_junit"]


def write_junit(path: Path, findings: Findings, expected: Mapping[str, int]) -> None:
    """Write one suite for each subject, with a case for each clause.

    A clause that is broken as expected is skipped; one that is kept although it was expected to be broken fails;
    one that was not judged is an error.

    Raises:
        OSError: The file cannot be written.
    """
    from junitparser import JUnitXml, TestSuite

    suites: dict[str, TestSuite] = {}
    for verdict in findings.verdicts:
        suite = suites.setdefault(verdict.clause.subject, TestSuite(verdict.clause.subject))
        suite.add_testcase(_case(verdict, expected))
    report = JUnitXml("dspex-testkit conform")
    for suite in suites.values():
        suite.update_statistics()  # type: ignore[no-untyped-call] # the library left it out
        report.add_testsuite(suite)
    report.update_statistics()  # type: ignore[no-untyped-call] # the library left it out
    path.parent.mkdir(parents=True, exist_ok=True)
    report.write(str(path), pretty=True)


def _case(verdict: Verdict, expected: Mapping[str, int]) -> TestCase:
    from junitparser import Error, Failure, Skipped, TestCase

    clause = verdict.clause
    case = TestCase(f"{clause.id} {clause.promise}", classname=f"conform.{clause.id}", time=verdict.duration)
    text = f"{verdict.seen}\nprotocol: {clause.source}"
    is_expected = clause.id in expected
    if verdict.outcome is Outcome.FAILED:
        case.result = [
            Skipped(f"expected: {_clean(verdict.seen)}") if is_expected else Failure(_clean(verdict.seen))
        ]
        case.system_out = _clean(text)
    elif verdict.outcome is Outcome.PASSED and is_expected:
        case.result = [Failure(f"was expected to be broken (line {expected[clause.id]}), but is kept")]
    elif verdict.outcome is Outcome.NOT_APPLICABLE:
        case.result = [Skipped(_clean(verdict.seen))]
    elif verdict.outcome is Outcome.NOT_JUDGED:
        case.result = [Error(_clean(verdict.seen))]
    return case


def _clean(text: str) -> str:
    """Write out what XML cannot carry."""
    return "".join(
        letter
        if letter in "\t\n"
        or (
            ord(letter) >= 0x20
            and not 0xD800 <= ord(letter) <= 0xDFFF
            and ord(letter) not in (0xFFFE, 0xFFFF)
        )
        else f"\\x{ord(letter):02x}"
        for letter in text
    )
