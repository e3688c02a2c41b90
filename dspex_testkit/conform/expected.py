"""Expected failures: a file of clause ids that a worker is known to break."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.conform.bench import Outcome
from dspex_testkit.conform.catalogue import CLAUSES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dspex_testkit.conform.run import Findings

__all__ = ["complaints", "load_expected", "unexpected_passes"]


def load_expected(path: Path) -> dict[str, int]:
    """Read the ids of a file, one a line, each with its line's number; ``#`` begins a comment.

    Raises:
        InvalidArgumentError: A line is no id of a clause, or repeats one; or the file is no text.
        OSError: The file cannot be read.
    """
    known = {clause.id for clause in CLAUSES}
    expected: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}: {error}", argument="expected-failures") from error
    for number, line in enumerate(lines, start=1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        if name not in known or name in expected:
            what = (
                f"stands in line {expected[name]} already"
                if name in expected
                else "is no clause; one id a line, as --list shows them"
            )
            raise InvalidArgumentError(f"{path}:{number}: {name!r} {what}", argument="expected-failures")
        expected[name] = number
    return expected


def complaints(findings: Findings, expected: Mapping[str, int]) -> set[str]:
    """Return the ids of the clauses that are broken and not expected to be."""
    return findings.ids(Outcome.FAILED) - expected.keys()


def unexpected_passes(findings: Findings, expected: Mapping[str, int]) -> dict[str, int]:
    """Return the ids that are expected to be broken but were kept, each with its line."""
    kept = findings.ids(Outcome.PASSED)
    return {name: line for name, line in expected.items() if name in kept}
