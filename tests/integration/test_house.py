"""The house rules that no linter knows, held against every file of the project."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import re
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dspex_pool import errors
from tests.cases import case

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("dspex_pool", "dspex_testkit", "tests", "benchmarks", "examples")
TEXT_FOLDERS = ("docs", "changes", ".github", ".ci", "examples")
TEXT_SUFFIXES = {".md", ".toml", ".yml", ".jsonl", ".json", ".csv", ".txt", ""}

MAX_MODULE_LINES = 400
# A table of promises may run longer than code; none is read from end to end.
MAX_TEST_MODULE_LINES = 700
MAX_FUNCTION_LINES = 40
MAX_MEDIAN_FUNCTION_LINES = 8

#: Modules, and functions as ``module:name``, that may be longer, each with the reason. Empty is the aim.
LONG: dict[str, str] = {}

#: Modules that may catch everything, each with the reason.
CATCHING_ALL = {
    "dspex_pool/bridge/failures.py": "what a command raised may end itself where it is looked at, as in loop.py",
    "dspex_pool/bridge/loop.py": "a command may end itself, by SystemExit too, but not its worker; no trio is there",
}

#: Errors of the pool that are not in ``errors.py``, each with the reason.
ERRORS_ELSEWHERE = {
    "dspex_pool/core/refusals.py: WouldWaitError": "never leaves the pool, which makes trio's WouldBlock of it",
}

# Written in pieces, so that this file does not accuse itself. Each begins with plain letters, by which a search
# of all files takes milliseconds.
FORBIDDEN = {
    "a path of one machine": re.compile("/" + r"(?:work|root|home/\w+|Users/\w+)/|/tmp/" + "venv"),
    "a package registry's host": re.compile("pypi" + r"\.org|python" + "hosted"),
    "a note to come back later": re.compile("TO" + r"DO\b|FIX" + r"ME\b|XX" + r"X\b"),
    "a stub": re.compile("raise NotImplemented" + "Error"),
    "a ticket's number instead of the reason": re.compile("issue" + r" #?\d"),
    "milliseconds in a name": re.compile("_m" + r"s\b"),
    "a lint exception without its code": re.compile("# no" + "qa(?!:)|# type: ig" + r"nore(?!\[)"),
    "a lint exception without its reason": re.compile(
        r"# (?:noqa" + r": [A-Z0-9, ]+|type: ignore" + r"\[[\w, -]+\]|pragma" + r": no \w+) *$", re.MULTILINE
    ),
    "a tab": re.compile("\t"),
}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def files_under(folders: tuple[str, ...], suffixes: set[str]) -> list[str]:
    """Return the project's files in ``folders``, relative to its root."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    kept = [
        path
        for path in found
        if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts
    ]
    return sorted(str(path.relative_to(ROOT)) for path in kept)


MODULES = files_under(CODE_FOLDERS, {".py"})
PRODUCT = [name for name in MODULES if name.startswith(("dspex_pool/", "dspex_testkit/"))]
TOP_FILES = sorted(path.name for path in ROOT.iterdir() if path.is_file() and path.suffix in {".md", ".toml"})
TEXTS = [*files_under(TEXT_FOLDERS, TEXT_SUFFIXES), *TOP_FILES]


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements and handlers below ``node``; looking into expressions would take four times as long."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield child
            yield from statements(child)


class Source:
    """One module: its text, and what one walk over its syntax tree finds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (ROOT / name).read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.functions: list[Function] = []
        self.classes: list[ast.ClassDef] = []
        self.handlers: list[ast.ExceptHandler] = []
        for node in statements(self.tree):
            if isinstance(node, Function):
                self.functions.append(node)
            elif isinstance(node, ast.ClassDef):
                self.classes.append(node)
            elif isinstance(node, ast.ExceptHandler):
                self.handlers.append(node)


class Facts(NamedTuple):
    """What is kept of a module. Keeping its tree would make every later garbage collection walk over it."""

    #: Lines of each function, docstrings left out.
    lengths: list[int]
    #: What is too long to be read in one sitting.
    long: list[str]
    #: Classes that derive from one of our errors.
    errors: list[str]
    #: Everything else that is against the rules of the house.
    complaints: list[str]


@functools.cache
def facts_of(name: str) -> Facts:
    """Read a module of the project, once."""
    module = Source(name)
    complaints = [*misplaced_text(module.text), *badly_introduced(module)]
    if name in PRODUCT:
        complaints += [*swallowed(module), *broken_promises(module)]
    lengths = [length(function) for function in module.functions]
    return Facts(lengths, list(too_long(module)), list(our_errors(module)), complaints)


def misplaced_text(text: str) -> Iterator[str]:
    """Yield what does not belong into any file of the project."""
    for what, pattern in FORBIDDEN.items():
        for match in pattern.finditer(text):
            yield f"line {text.count(chr(10), 0, match.start()) + 1}: {what}: {match.group()!r}"


def length(function: Function) -> int:
    """Count a function's lines from ``def`` to its end, its docstring left out."""
    first = function.body[0]
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def too_long(module: Source) -> Iterator[str]:
    """Yield what cannot be read in one sitting."""
    lines = module.text.count("\n")
    if lines > (MAX_TEST_MODULE_LINES if module.name.startswith("tests/") else MAX_MODULE_LINES):
        yield f"{module.name}: {lines} lines"
    for function in module.functions:
        if length(function) > MAX_FUNCTION_LINES:
            yield f"{module.name}:{function.name}: {length(function)} lines"


def our_errors(module: Source) -> Iterator[str]:
    """Yield the classes that derive from an error of ``errors.py``."""
    for node in module.classes:
        if {ast.unparse(base).rpartition(".")[2] for base in node.bases} & {*errors.__all__}:
            yield f"{module.name}: {node.name}"


def badly_introduced(module: Source) -> Iterator[str]:
    """Yield what does not say what it is for: vague names, modules and tests without a docstring."""
    if Path(module.name).stem in VAGUE_NAMES:
        yield "a vague name"
    if module.tree.body and not ast.get_docstring(module.tree):
        yield "no module docstring"
    if Path(module.name).name.startswith("test_"):
        for function in module.functions:
            if function.name.startswith("test_") and not ast.get_docstring(function):
                yield f"{function.name} states no promise"


def swallowed(module: Source) -> Iterator[str]:
    """Yield the handlers that catch everything and never raise it again."""
    if module.name in CATCHING_ALL:
        return
    for handler in module.handlers:
        is_broad = handler.type is None or ast.unparse(handler.type) == "BaseException"
        if is_broad and not any(isinstance(node, ast.Raise) for node in ast.walk(handler)):
            yield f"line {handler.lineno}: swallows a cancellation"


def raised_names(docstring: str) -> list[str]:
    """Return the names under ``Raises:`` of a Google docstring."""
    section = re.search(r"^Raises:\n((?:[ ]+.*\n?|\n)+)", docstring, re.MULTILINE)
    entries = re.findall(r"^    ([A-Za-z_][\w., ]*):", section.group(1) if section else "", re.MULTILINE)
    return [name for entry in entries for name in entry.split(", ")]


@functools.cache
def classes_of_our_own() -> frozenset[str]:
    """Return the names of all classes: the command line and the test kit have errors of their own."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in PRODUCT]
    return frozenset(found for text in texts for found in re.findall(r"^class (\w+)", text, re.MULTILINE))


def is_an_error(name: str) -> bool:
    """Tell whether ``name`` can be raised; names of libraries too heavy to load here are trusted."""
    module, _, attribute = name.rpartition(".")
    if not module:
        return hasattr(builtins, name) or name in classes_of_our_own()
    if module.split(".")[0] in sys.stdlib_module_names:
        return hasattr(importlib.import_module(module), attribute)
    return module not in sys.modules or hasattr(sys.modules[module], attribute)


def silent_coroutines(body: list[ast.stmt], said: str = "") -> Iterator[str]:
    """Yield the public coroutines that do not say what a cancellation leaves behind.

    The docstring of a class speaks for its methods. An override without a docstring keeps the promise
    of what it overrides.
    """
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        docstring = ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            yield from silent_coroutines(node.body, docstring or "")
        elif isinstance(node, ast.AsyncFunctionDef) and docstring and "Cancellation:" not in said + docstring:
            yield f"line {node.lineno}: {node.name} has no Cancellation: section"


def broken_promises(module: Source) -> Iterator[str]:
    """Yield what the docstrings of a product's module promise wrongly, or should promise."""
    for node in (*module.functions, *module.classes):
        for name in raised_names(ast.get_docstring(node) or ""):
            if not is_an_error(name):
                yield f"line {node.lineno}: Raises: names {name}, which does not exist"
    # The bodies of a contract are tests, which nobody cancels.
    if "/contracts/" not in module.name:
        yield from silent_coroutines(module.tree.body)


def test_modules_keep_the_house_rules() -> None:
    """A module is short, introduces itself, keeps its docstrings' word, and hides nothing."""
    found = [f"{name}: {what}" for name in MODULES for what in facts_of(name).complaints]
    found += [
        what for name in MODULES for what in facts_of(name).long if what.rpartition(": ")[0] not in LONG
    ]
    assert not found, "\n".join(found)


def test_texts_have_nothing_that_does_not_belong() -> None:
    """No document carries a path of one machine, a registry's host, or a note for later."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in TEXTS}
    assert not [f"{name}: {what}" for name, text in texts.items() for what in misplaced_text(text)]


@pytest.mark.parametrize("package", ["dspex_pool", "dspex_testkit"])
def test_functions_are_short_on_the_whole(package: str) -> None:
    """Half of the functions have eight lines or fewer."""
    lengths = [lines for name in PRODUCT if name.startswith(package) for lines in facts_of(name).lengths]
    assert statistics.median(lengths or [0]) <= MAX_MEDIAN_FUNCTION_LINES


def test_every_error_says_whom_it_blames() -> None:
    """Each error names, in words and as an attribute, who has to change something."""
    parties = {"caller", "configuration", "worker", "program", "load", "pool"}
    kinds = [getattr(errors, name) for name in errors.__all__]
    mute = [
        kind.__name__ for kind in kinds if not re.search("Blames|Never raised itself", kind.__doc__ or "")
    ]
    assert not mute
    assert not [kind.__name__ for kind in kinds if kind.blame not in parties]


def test_errors_of_the_pool_are_all_in_one_place() -> None:
    """Nobody but ``errors.py`` derives from the base class, so that a reader finds all of them there."""
    pool = [name for name in PRODUCT if name.startswith("dspex_pool/") and name != "dspex_pool/errors.py"]
    assert not [what for name in pool for what in facts_of(name).errors if what not in ERRORS_ELSEWHERE]


def test_news_for_users_are_one_sentence_each() -> None:
    """A fragment in ``changes/`` has a name with a topic and a kind, and holds one paragraph that ends."""
    fragments = [path for path in (ROOT / "changes").iterdir() if path.name != "README.md"]
    misnamed = [
        path.name
        for path in fragments
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.(added|changed|fixed|removed)\.md", path.name)
    ]
    texts = {path.name: path.read_text(encoding="utf-8").strip() for path in fragments}
    assert not misnamed
    assert not [
        name for name, text in texts.items() if "\n\n" in text or not re.match(r"(?s)[A-Z`].*\.$", text)
    ]


def test_exceptions_of_the_length_rule_are_still_needed() -> None:
    """The table of long modules and functions names only what is too long, each with a reason."""
    needed = {what.rpartition(": ")[0] for name in MODULES for what in facts_of(name).long}
    assert set(LONG) <= needed
    assert all(LONG.values())


def test_house_rules_tell_right_from_wrong() -> None:
    """The check itself accuses what it should and nothing else."""
    cases: list[tuple[str, str]] = [
        ("x = 1  # no" + "qa", "without its code"),
        ("x = 1  # no" + "qa: E501", "without its reason"),
        ("x = 1  # no" + "qa: E501 - a table reads better", ""),
        ("cd /wo" + "rk/main", "one machine"),
        ("wait_m" + "s = 5", "milliseconds"),
        ("# TO" + "DO: later", "come back later"),
        ("an issue with 2 workers", ""),
    ]
    for text, accused in cases:
        with case(text):
            found = " ".join(misplaced_text(text))
            assert (accused in found) if accused else not found


def test_raises_section_is_read_as_written() -> None:
    """Names under ``Raises:`` are found, also several in one entry, and no word of the prose."""
    docstring = (
        "Do it.\n\nRaises:\n    ValueError, KeyError: One: a.\n        And: b.\n\nReturns:\n    Other: c.\n"
    )
    assert raised_names(docstring) == ["ValueError", "KeyError"]
