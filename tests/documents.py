"""The documents as the tests read them: code blocks, links, named tests, and tables that are generated.

Run as a program (``python -m tests.documents``) it writes the generated tables into the documents.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspex_pool import errors
from dspex_pool.config import PoolConfig, settings_table
from dspex_pool.core.records import Counters, PoolStatistics
from dspex_pool.monitor import MonitorSnapshot
from dspex_pool.telemetry import events_table
from dspex_pool.telemetry.catalogue import MEASUREMENTS, METADATA
from dspex_testkit.chaos import catalogue
from dspex_testkit.scenarios import catalogue as scenarios
from tests import plugin_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "README",
    "ROOT",
    "Block",
    "anchors_of",
    "blocks_of",
    "documents",
    "links_of",
    "named_tests",
    "names_of_tests",
    "regenerated",
    "text_of",
]

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_TEST = re.compile(r"`((?:unit|pool|protocol|integration|chaos)/test_\w+\.py)::(\w+)`")
_GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIELD = re.compile(r"((?:^    #: .*\n)+)^    (\w+):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code in a document."""

    #: The document.
    path: Path
    #: Its line, counted from 1, of the fence.
    line: int
    #: What the fence calls it; empty if nothing.
    language: str
    #: The code.
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    """Return the README and all pages of ``docs/``."""
    return [README, *sorted((ROOT / "docs").rglob("*.md"))]


@functools.cache
def text_of(path: Path) -> str:
    """Read a document, once."""
    return path.read_text(encoding="utf-8")


def blocks_of(path: Path, language: str | None = None) -> list[Block]:
    """Return the blocks of code of a document, or those of one language."""
    text = text_of(path)
    found = [
        Block(path, text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2))
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if language in (None, block.language)]


def commands() -> list[list[str]]:
    """Return the commands that all documents show with a prompt, as words."""
    blocks = [block for path in documents() for block in blocks_of(path, "console")]
    lines = [line for block in blocks for line in block.text.splitlines()]
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]


def links_of(path: Path) -> list[str]:
    """Return where the links of a document lead, addresses of other sites left out."""
    text = _BLOCK.sub("", text_of(path))
    return [target for target in _LINK.findall(text) if not re.match(r"\w+:", target)]


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as its usual viewers make them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_tests(path: Path) -> list[tuple[str, str]]:
    """Return the tests that a document names: file below ``tests/``, and function."""
    return _TEST.findall(text_of(path))


@functools.cache
def names_of_tests(file: str) -> frozenset[str]:
    """Return the names of the tests in a file below ``tests/``; empty if there is no such file."""
    path = ROOT / "tests" / file
    if not path.exists():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in nodes if isinstance(node, kinds) and node.name.startswith("test_"))


# --- tables ----------------------------------------------------------------------------------------------------


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(columns)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _words(value: bool | None, when_open: str) -> str:
    return when_open if value is None else "yes" if value else "no"


def errors_table() -> str:
    """Return all errors that can be raised: whom they blame, and what they mean for worker and retry."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    rows = [
        (
            f"`{kind.__name__}`",
            ", ".join(f"`{base.__name__}`" for base in kind.__bases__),
            kind.blame,
            _words(kind.worker_survives, ""),
            _words(kind.retry_is_safe, "depends"),
            _first_paragraph(kind),
        )
        for kind in kinds
    ]
    return _table(("Error", "Is a", "Blames", "Worker lives on", "Retry is safe", "When"), rows)


def _first_paragraph(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].replace("``", "`").split())


def facts_table() -> str:
    """Return the facts that errors carry, with the class that brings each."""
    rows = [
        (f"`{kind.__name__}`", f"`{name}`", meaning)
        for kind in (getattr(errors, name) for name in errors.__all__)
        for name, meaning in _fields(kind).items()
        if name not in ("blame", "worker_survives", "retry_is_safe")
    ]
    return _table(("Error", "Fact", "Meaning"), rows)


def _fields(kind: type) -> dict[str, str]:
    """Return the fields of a class with the sentence above each."""
    # Taking the source of each class by ``inspect`` reads the whole module for each.
    body = re.search(
        rf"^class {kind.__name__}\b.*?(?=^\S)", _source(kind.__module__), re.MULTILINE | re.DOTALL
    )
    return {
        name: " ".join(comment.replace("#:", " ").replace("``", "`").split())
        for comment, name in _FIELD.findall(body[0] if body else "")
    }


@functools.cache
def _source(module: str) -> str:
    return inspect.getsource(sys.modules[module]) + "\nend"


def _fields_table(kind: type) -> str:
    return _table(("Name", "Meaning"), [(f"`{name}`", text) for name, text in _fields(kind).items()])


def _meanings_table(meanings: Mapping[str, str]) -> str:
    return _table(("Name", "Meaning"), [(f"`{name}`", text) for name, text in meanings.items()])


#: What stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``, by name.
GENERATORS: dict[str, Callable[[], str]] = {
    "settings": lambda: settings_table(PoolConfig),
    "events": events_table,
    "measurements": lambda: _meanings_table(MEASUREMENTS),
    "metadata": lambda: _meanings_table(METADATA),
    "errors": errors_table,
    "facts": facts_table,
    "snapshot": lambda: _fields_table(MonitorSnapshot),
    "statistics": lambda: _fields_table(PoolStatistics),
    "counters": lambda: _fields_table(Counters),
    "faults": lambda: catalogue.table() + "\n",
    "scenarios": scenarios.table,
    "plugin_options": lambda: _table(("Option", "Meaning"), plugin_tables.options()),
    "plugin_settings": lambda: _table(("Setting", "Type", "Meaning"), plugin_tables.settings()),
    "plugin_markers": lambda: _table(("Marker", "Meaning"), plugin_tables.markers()),
    "plugin_fixtures": lambda: _table(("Fixture", "Scope", "What it gives"), plugin_tables.fixtures()),
}


def regenerated(text: str) -> str:
    """Return a document's text with all its generated parts made anew."""
    return _GENERATED.sub(lambda match: f"{match[1]}{GENERATORS[match[2]]()}{match[3]}", text)


if __name__ == "__main__":
    for document in documents():
        document.write_text(regenerated(text_of(document)), encoding="utf-8")
