"""The README and the pages of ``docs/`` say what is so: links, named tests, commands, settings and tables."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from typing import TYPE_CHECKING

import pytest

import dspex_pool
from dspex_pool.config import PoolConfig
from tests.documents import (
    README,
    ROOT,
    anchors_of,
    blocks_of,
    commands,
    documents,
    links_of,
    named_tests,
    names_of_tests,
    regenerated,
    text_of,
)
from tests.layers import LAYERS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

#: Every kind of block, and where it is checked.
KINDS = {"python", "console", "toml", "bash", "mermaid", "text"}


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    """No code hides behind a fence that no test looks at."""
    assert {block.language for block in blocks_of(README)} <= KINDS
    assert len(blocks_of(README, "python")) >= 4


def broken_links(path: Path) -> list[str]:
    """Return the links of a document that lead nowhere."""
    broken = []
    for link in links_of(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(f"{path.name}: {link}")
    return broken


def test_links_lead_somewhere() -> None:
    """Every relative link of a document names a file, and a heading where it says so."""
    assert sum(len(links_of(path)) for path in documents()) > 10
    assert not [link for path in documents() for link in broken_links(path)]


def test_generated_tables_are_up_to_date() -> None:
    """Tables of settings, events, errors and figures are what the code says."""
    stale = [path.name for path in documents() if regenerated(text_of(path)) != text_of(path)]
    assert not stale, "run: python -m tests.documents"


def test_tests_that_are_named_exist() -> None:
    """The proof of every outage is there."""
    named = named_tests(README)
    assert len(named) >= 40
    assert not [f"{file}::{name}" for file, name in named if name not in names_of_tests(file)]


def test_every_outage_has_its_row_once() -> None:
    """No two rows tell the same outage, and each names its test."""
    rows = [line for line in text_of(README).splitlines() if line.startswith("| ") and "::test_" in line]
    happenings = [row.split(" | ")[0] for row in rows]
    assert len(set(happenings)) == len(happenings) == len(named_tests(README))


def test_verbs_exist() -> None:
    """Every ``make`` verb that is named is one."""
    verbs = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", text_of(README)))
    named |= {words[1] for words in commands() if words[0] == "make"}
    assert named
    assert named <= verbs


def test_output_of_the_tests_names_the_layers_that_run() -> None:
    """What is shown of ``make test`` has a line for each layer, and all of them passed."""
    block = next(block for block in blocks_of(README, "console") if block.text.startswith("$ make test\n"))
    results = {
        line.split()[0]: line.split()[-1] for line in block.text.splitlines() if line.endswith("passed")
    }
    assert results.keys() == LAYERS.keys() - {"stress"}


def test_toml_is_a_configuration() -> None:
    """The settings that are shown are accepted, under the table that is read."""
    for block in blocks_of(README, "toml"):
        settings = tomllib.loads(block.text)["tool"]["dspex_pool"]
        assert PoolConfig.load(environ={}, **settings).pool_size == settings["pool_size"]


def test_environment_is_a_configuration() -> None:
    """The variables that are shown are accepted."""
    for block in blocks_of(README, "bash"):
        environ = dict(word.split("=", 1) for word in shlex.split(block.text) if "=" in word)
        assert PoolConfig.load(environ=environ).checkout_timeout == 5.0
        assert len(environ) == 3


def test_picture_shows_what_exists() -> None:
    """Every class in the picture is a class of the package."""
    (block,) = blocks_of(README, "mermaid")
    names = set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+", block.text)) - {"DSPy"}
    sources = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "dspex_pool").rglob("*.py"))
    assert {"PythonPool", "SessionPool", "WorkerPool"} <= names
    assert not [name for name in names if f"class {name}" not in sources]
    assert block.text.count("subgraph") == block.text.count(" end\n")


def test_names_that_are_imported_are_public() -> None:
    """What examples import from the front door is in ``__all__``."""
    imported = {
        alias.name
        for path in documents()
        for block in blocks_of(path, "python")
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom) and node.module == "dspex_pool"
        for alias in node.names
    }
    assert imported
    assert imported <= set(dspex_pool.__all__)


def test_numbers_in_the_text_are_right() -> None:
    """The questions and the properties are as many as the text says."""
    questions = len((ROOT / "examples" / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    properties = re.findall(
        r"^\| \d+ \| (?:model|tick|clock|proc)", text_of(ROOT / "docs/rules.md"), re.MULTILINE
    )
    assert f"the {questions} questions" in text_of(README)
    assert f"the {len(properties)} properties" in text_of(README)


def test_smallest_program_has_at_most_ten_lines() -> None:
    """The first block is all that it takes."""
    assert len(blocks_of(README, "python")[0].text.splitlines()) <= 10


def test_index_of_the_test_kit_leads_to_every_page() -> None:
    """Each tool's page is found from the index, and none is told twice."""
    index = ROOT / "docs" / "testkit" / "README.md"
    pages = {path.name for path in index.parent.glob("*.md")} - {index.name}
    rows = [target for target in links_of(index) if target in pages]
    assert set(rows) == pages
