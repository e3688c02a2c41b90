"""Every property of ``docs/rules.md`` has a test that names it.

A test names the properties it proves in its docstring, as ``[property N]`` or ``[property N, M]``; a step
or an invariant of a state machine may do the same. Run as a program, this module writes the names of the
tests into the page: ``make rules``.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "rules.md"

#: How many tests the page names for one property before it only counts them.
NAMED = 2

MARK = re.compile(r"\[property ([\d, ]+)\]")
DEFINITION = re.compile(r"^\s*(?:async def|def|class) (\w+)")
#: A property's row: number, how it is tested, what holds, the tests.
ROW = re.compile(r"^\| (\d+) \| ([a-z, ]+) \| (.+?) \| ?(.*?) ?\|$")


def marks_in(text: str, where: str) -> list[tuple[int, str]]:
    """Return the properties that a module's text names, each with the place in it that names it."""
    place, found = where, []
    for line in text.splitlines():
        if definition := DEFINITION.match(line):
            place = f"{where}::{definition.group(1)}"
        for mark in MARK.finditer(line):
            found += [(int(number), place) for number in mark.group(1).split(",")]
    return found


@functools.cache
def proofs() -> dict[int, list[str]]:
    """Return the tests of each property that any test names."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if path != Path(__file__).resolve():
            where = path.relative_to(TESTS).as_posix()
            for number, place in marks_in(path.read_text(encoding="utf-8"), where):
                found.setdefault(number, []).append(place)
    return {number: list(dict.fromkeys(places)) for number, places in found.items()}


def rows() -> dict[int, re.Match[str]]:
    """Return the rows of the page that state a property, by number."""
    matches = (ROW.match(line) for line in PAGE.read_text(encoding="utf-8").splitlines())
    return {int(match.group(1)): match for match in matches if match}


def cell(places: list[str]) -> str:
    """Return what the page says about the tests of one property."""
    named = ", ".join(f"`{place}`" for place in places[:NAMED])
    more = len(places) - NAMED
    return f"{named} and {more} more" if more > 0 else named


def written_page() -> str:
    """Return the page with its last column filled."""
    lines = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if match := ROW.match(line):
            places = proofs().get(int(match.group(1)), [])
            line = f"| {match.group(1)} | {match.group(2)} | {match.group(3)} | {cell(places)} |"
        lines.append(line.replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def test_every_property_has_a_test() -> None:
    """No property is only a promise."""
    assert len(rows()) == 87
    missing = sorted(rows().keys() - proofs().keys())
    assert not missing


def test_no_test_names_an_unknown_property() -> None:
    """A mistyped number is found."""
    unknown = {number: proofs()[number] for number in proofs().keys() - rows().keys()}
    assert not unknown


def test_page_names_only_tests_that_exist() -> None:
    """What the page names as the proof of a property is there and names the property."""
    stale = {
        number: place
        for number, row in rows().items()
        for place in re.findall(r"`([^`]+)`", row.group(4))
        if place not in proofs().get(number, [])
    }
    assert not stale, "run make rules"


def test_marks_are_found_where_they_stand() -> None:
    """A mark belongs to the function or class above it, and one mark may name several properties."""
    text = (
        'async def test_a() -> None:\n    """Holds. [prop'
        + 'erty 27, 35]"""\n\nclass B:\n    """[prop'
        + 'erty 1]"""\n'
    )
    assert marks_in(text, "unit/test_x.py") == [
        (27, "unit/test_x.py::test_a"),
        (35, "unit/test_x.py::test_a"),
        (1, "unit/test_x.py::B"),
    ]


if __name__ == "__main__":
    PAGE.write_text(written_page(), encoding="utf-8")
