"""How many of the pool's own test bodies run on every kind of port: ``make bodies`` prints the list and the share.

A body is a test function that opens a pool in its own trio run: it makes a ``WorkerPool``, ``SessionPool``,
``PoolSupervisor`` or ``PythonPool``, itself or by a function of the tests that it names, or it asks for the fixture
``pool`` or ``make_pool``. Tests of the facades and of the command line have another subject and open none themselves.
The layer chaos is left out, as its bodies bring faults of their own, and so are tests of the testkit's tools.
"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["WANTED_SHARE", "Body", "bodies", "report"]

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tests/pool", "tests/unit", "tests/protocol", "tests/integration")
#: What must run on all kinds of port.
WANTED_SHARE: Final = 0.7

POOLS = frozenset({"WorkerPool", "SessionPool", "PoolSupervisor", "PythonPool"})
FIXTURES = frozenset({"pool", "make_pool"})

#: Modules whose bodies open a pool to test something else, each with what.
OTHER_SUBJECTS: Final = {
    "tests/pool/test_handle.py": "the fixtures themselves",
    "tests/unit/test_recordings.py": "recordings",
    "tests/integration/test_recordings.py": "recordings",
    "tests/integration/test_template.py": "how processes are started",
    "tests/integration/test_outages.py": "what DSPy says of a provider that is down",
}

#: Why modules keep bodies that run on one kind of port alone.
REASONS: Final = {
    "tests/unit/test_care.py": "needs hours",
    "tests/unit/test_catalogue.py": "provokes every event, with scripted ports",
    "tests/unit/test_decision_runner.py": "a worker that even SIGKILL does not end",
    "tests/unit/test_monitor.py": "figures of exact simulated durations",
    "tests/unit/test_pool_care.py": "a worker that hears its end of stdin and lives on",
    "tests/unit/test_pool_checkin.py": "a pipe that takes a certain number of bytes",
    "tests/unit/test_pool_events.py": "a day with stray bytes at certain moments",
    "tests/unit/test_pool_line.py": "a stray byte between a grant and its caller",
    "tests/unit/test_pool_overload.py": "a stray byte between a grant and its caller",
    "tests/unit/test_pool_shutdown.py": "a worker that even SIGKILL does not end at once",
    "tests/unit/test_session_ends.py": "needs hours",
    "tests/unit/test_supervisor.py": "needs hours, or is cancelled at each of many steps",
    "tests/unit/test_worker_pool.py": "interrupts the trio run itself",
    "tests/integration/test_adapter_contract.py": "what only DSPy's programs do",
    "tests/integration/test_pool_processes.py": "descriptors, memory, zombies and output of real processes",
    "tests/integration/test_pool_processes_edges.py": "descriptors, memory, grandchildren of real processes",
    "tests/integration/test_pool_processes_life.py": "process ids and commands that are no worker",
    "tests/integration/test_sessions.py": "what only DSPy's programs do",
}


class Body(NamedTuple):
    """One test function that opens a pool."""

    module: str
    name: str
    #: Whether it runs on every kind of port.
    is_on_all: bool


Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class _Module:
    """What one module of the tests defines, and what it takes from others."""

    def __init__(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self.defined = {node.name: node for node in tree.body if isinstance(node, Function)}
        self.taken = {
            alias.asname or alias.name: (str(node.module), alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests.")
            for alias in node.names
        }
        marks = [node for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in _names(node)]
        self.is_on_all = any(_is_for_all(node) for node in marks)


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _is_for_all(node: ast.AST) -> bool:
    """Tell whether a mark ``ports("all")`` is in it."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "ports"
        and [argument.value for argument in call.args if isinstance(argument, ast.Constant)] == ["all"]
        for call in calls
    )


@functools.cache
def _module(name: str) -> _Module | None:
    path = ROOT / Path(*name.split(".")).with_suffix(".py")
    return _Module(path) if path.exists() else None


@functools.cache
def _opens(module_name: str, name: str) -> bool:
    """Tell whether a function of the tests opens a pool, itself or by one that it names."""
    seen: set[tuple[str, str]] = set()
    left = [(module_name, name)]
    while left:
        where, what = left.pop()
        module = _module(where)
        if module is None or (where, what) in seen:
            continue
        seen.add((where, what))
        if what in module.taken:
            left.append(module.taken[what])
        elif (node := module.defined.get(what)) is not None:
            if _made_pools(node):
                return True
            left += [(where, other) for other in _names(node)]
    return False


def _made_pools(node: ast.AST) -> bool:
    """Tell whether a pool is made in it; a class method other than ``open`` makes none."""
    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue
        if isinstance(call.func, ast.Name) and call.func.id in POOLS:
            return True
        if isinstance(call.func, ast.Attribute) and call.func.attr == "open" and _names(call.func) & POOLS:
            return True
    return False


def bodies() -> list[Body]:
    """Return the pool's own test bodies."""
    found = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("test_*.py")):
        where = path.relative_to(ROOT).as_posix()
        if where in OTHER_SUBJECTS:
            continue
        name = where.removesuffix(".py").replace("/", ".")
        module = _module(name)
        assert module is not None
        for test, node in module.defined.items():
            if test.startswith("test_") and not isinstance(node, ast.ClassDef):
                asks = bool(FIXTURES & {argument.arg for argument in node.args.args})
                if asks or _opens(name, test):
                    is_on_all = asks and (
                        module.is_on_all or any(_is_for_all(mark) for mark in node.decorator_list)
                    )
                    found.append(Body(where, test, is_on_all))
    return found


def share(found: list[Body]) -> float:
    """Return how much of them runs on every kind of port."""
    return sum(body.is_on_all for body in found) / len(found)


def report() -> str:
    """Return the list, by module, with the reason of those that run on one kind alone, and the share."""
    found, lines = bodies(), []
    for module in sorted({body.module for body in found}):
        own = [body for body in found if body.module == module]
        on_all = sum(body.is_on_all for body in own)
        lines.append(f"{module}: {on_all} of {len(own)} on all ports")
        for body in own:
            where = "all" if body.is_on_all else f"one: {REASONS.get(module, 'no reason is given')}"
            lines.append(f"    {body.name}  [{where}]")
    on_all = sum(body.is_on_all for body in found)
    lines.append(f"{on_all} of {len(found)} bodies run on sim, server and process: {share(found):.0%}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{report()}\n")
