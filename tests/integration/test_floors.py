"""Imports go down only: the map of the floors, as a table.

The same map is drawn in ``docs/design.md``; change both together. Imports inside functions and under
``TYPE_CHECKING`` count like all others, because they tie modules together just as well. Where the
moment of an import matters, the test says so.
"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]

#: Each row is a floor's number and the groups that stand on it side by side. A group imports from the
#: floors below it and from itself, never from its neighbours. Packages stand for all their modules.
FLOORS: dict[int, tuple[tuple[str, ...], ...]] = {
    0: (("dspex_pool.errors",), ("dspex_pool.logs",)),
    1: (
        ("dspex_pool.protocol",),
        ("dspex_pool.config",),
        ("dspex_pool.telemetry",),
        ("dspex_pool.lifecycle",),
        ("dspex_pool.background",),
    ),
    2: (
        ("dspex_pool.pool_state", "dspex_pool.core"),
        ("dspex_pool.session_store",),
        ("dspex_pool.transport",),
        ("dspex_pool.bridge",),
    ),
    3: (("dspex_pool.worker", "dspex_pool.lease", "dspex_pool.remote_failures"),),
    4: (
        (
            "dspex_pool.worker_pool",
            "dspex_pool.checkout",
            "dspex_pool.decision_runner",
            "dspex_pool.worker_life",
        ),
    ),
    5: (
        (
            "dspex_pool.session_pool",
            "dspex_pool.session_answers",
            "dspex_pool.session_books",
            "dspex_pool.session_table",
            "dspex_pool.session_lease",
            "dspex_pool.session_call",
            "dspex_pool.worker_memory",
            "dspex_pool.call_policy",
            "dspex_pool.monitor",
        ),
    ),
    6: (("dspex_pool.supervisor",),),
    7: (("dspex_pool.adapters", "dspex_pool.facades"),),
    8: (("dspex_pool.cli",),),
    9: (("dspex_testkit",),),
    10: (("dspex_testkit.plugin",), ("dspex_testkit.cli",)),
}

GROUPS = [group for groups in FLOORS.values() for group in groups]

#: What the child's program may load: another program, which shares the wire and the errors with us.
BRIDGE_MAY_IMPORT = ("dspex_pool.errors", "dspex_pool.protocol", "dspex_pool.bridge")
BRIDGE_LIBRARIES = {"msgspec", "dspy", "pydantic"}
#: The modules that know DSPy, and pydantic, which its types are made of.
DSPY_MODULES = {
    "dspex_pool.bridge.programs",
    "dspex_pool.bridge.factory_inputs",
    "dspex_pool.bridge.extractive",
}

#: What pytest loads in every run.
PLUGIN = ("dspex_testkit.plugin",)

#: Modules that take facts and give answers: no waiting, no clock, no I/O.
PURE = ("dspex_pool.protocol", "dspex_pool.pool_state", "dspex_pool.core", "dspex_pool.lifecycle")
IMPURE_LIBRARIES = {
    "trio", "outcome", "psutil", "asyncio", "threading", "multiprocessing", "subprocess", "socket", "select",
    "selectors", "signal", "os", "io", "pathlib", "tempfile", "shutil", "fcntl", "logging", "sqlite3",
}  # fmt: skip
#: The core is told the time; the protocol only stamps its messages with it.
CLOCKLESS = ("dspex_pool.pool_state", "dspex_pool.core", "dspex_pool.lifecycle")


class Import(NamedTuple):
    """One imported module and where it is imported."""

    #: Absolute dotted name; for ``from a import b`` it is ``a.b`` where that is a module of ours.
    name: str
    line: int
    #: Whether it runs when the importing module is imported.
    at_import_time: bool


def dotted(path: Path) -> str:
    """Return the module name of the file ``path``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    dotted(path): path
    for package in ("dspex_pool", "dspex_testkit")
    for path in sorted((ROOT / package).rglob("*.py"))
}
#: The two doors name what is public, and look it up when they are asked.
DOORS = {"dspex_pool", "dspex_testkit"}

INDOORS = sorted(FILES.keys() - DOORS)


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    """Tell whether ``module`` is one of ``packages`` or lies in one of them."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def standing(module: str) -> tuple[int, tuple[str, ...]] | None:
    """Return the floor and the group of ``module``, by the longest name of the map that covers it."""
    if module == "dspex_pool":
        # Its public names come from the adapters, so only what stands above them may go in by the door.
        return 8, ("dspex_pool",)
    found = [
        (len(name), floor, group)
        for floor, groups in FLOORS.items()
        for group in groups
        for name in group
        if is_within(module, (name,))
    ]
    return max(found)[1:] if found else None


def is_type_checking(test: ast.expr) -> bool:
    """Tell whether a condition is ``TYPE_CHECKING``."""
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def named_in(node: ast.AST, at_import_time: bool) -> list[Import]:
    """Return what one statement imports; nothing if it is no import."""
    if isinstance(node, ast.Import):
        return [Import(alias.name, node.lineno, at_import_time) for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = "." * node.level + (node.module or "")
    deeper = [f"{base}.{alias.name}" for alias in node.names]
    return [Import(name if name in FILES else base, node.lineno, at_import_time) for name in deeper]


def collect(node: ast.AST, at_import_time: bool = True) -> list[Import]:
    """Return the imports in ``node`` and everything below it."""
    found = named_in(node, at_import_time)
    later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    later = later or (isinstance(node, ast.If) and is_type_checking(node.test))
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, part, ()):
            found += collect(child, at_import_time and not (later and part == "body"))
    return found


class Facts(NamedTuple):
    """What is kept of a module. Keeping its tree would make every later garbage collection walk over it."""

    imports: list[Import]
    #: Lines that await or define a coroutine.
    waiting: list[int]


@functools.cache
def facts_of(module: str) -> Facts:
    """Read the source of ``module``, once."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    waiting = (
        [node.lineno for node in ast.walk(tree) if isinstance(node, kinds)] if is_within(module, PURE) else []
    )
    return Facts(collect(tree), waiting)


def imports_of(module: str) -> list[Import]:
    """Return the imports of ``module``."""
    return facts_of(module).imports


def libraries(module: str) -> set[str]:
    """Return the top-level names that ``module`` imports from elsewhere."""
    return {found.name.split(".")[0] for found in imports_of(module)} - DOORS


def is_upward(module: str, imported: str) -> bool:
    """Tell whether ``module`` must not import ``imported``."""
    here, there = standing(module), standing(imported)
    if here is None or there is None:
        return True
    return there[0] >= here[0] and there != here


def test_every_module_stands_on_a_floor() -> None:
    """The map covers all there is; a new module gets its place here and in the design document."""
    homeless = [module for module in FILES if module not in DOORS and standing(module) is None]
    assert not homeless


@pytest.mark.budget(0.5)
def test_imports_go_down() -> None:
    """Every module imports from lower floors or from its own group, by absolute names."""
    upward = [
        f"{module}:{found.line} imports {found.name}"
        for module in INDOORS
        for found in imports_of(module)
        if found.name.startswith((".", *DOORS)) and is_upward(module, found.name)
    ]
    assert not upward, "\n".join(upward)


def test_door_loads_nothing_when_the_package_is_imported() -> None:
    """Importing a package of ours loads none of its modules, so the child stays small."""
    eager = [
        f"{door} imports {found.name}"
        for door in sorted(DOORS & set(FILES))
        for found in imports_of(door)
        if found.at_import_time and found.name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not eager


def test_pool_never_imports_the_testkit() -> None:
    """The product does not know its test kit."""
    guilty = [
        f"{module}:{found.line}"
        for module in FILES
        if is_within(module, ("dspex_pool",))
        for found in imports_of(module)
        if is_within(found.name, ("dspex_testkit",))
    ]
    assert not guilty


def test_bridge_shares_protocol_and_errors_only() -> None:
    """The child's program imports the wire, the errors, itself, the codec, and DSPy."""
    bridge = [module for module in FILES if is_within(module, ("dspex_pool.bridge",))]
    foreign = [
        f"{module}:{found.line} {found.name}"
        for module in bridge
        for found in imports_of(module)
        if found.name.startswith(("dspex_",)) and not is_within(found.name, BRIDGE_MAY_IMPORT)
    ]
    strange = {
        module: unknown
        for module in bridge
        if (unknown := libraries(module) - BRIDGE_LIBRARIES - set(sys.stdlib_module_names))
    }
    assert not foreign
    assert not strange


def test_dspy_is_known_in_one_place() -> None:
    """In the pool only the bridge's own modules for it import DSPy and its pydantic; the test kit does so late."""
    guilty = [
        f"{module}:{found.line}"
        for module in FILES
        for found in imports_of(module)
        if found.name.split(".")[0] in ("dspy", "pydantic")
        if module not in DSPY_MODULES and (found.at_import_time or is_within(module, ("dspex_pool",)))
    ]
    assert not guilty


def test_pytest_is_imported_by_the_plugin_alone() -> None:
    """Only the plugin's package imports pytest at import time; others may, once it is loaded."""
    guilty = [
        module
        for module in FILES
        for found in imports_of(module)
        if found.at_import_time and found.name.split(".")[0] in {"pytest", "_pytest"}
    ]
    assert not [module for module in guilty if not is_within(module, PLUGIN)]


def test_plugin_imports_nothing_heavy_at_import_time() -> None:
    """Every pytest run of the environment pays for the plugin: the standard library and pytest, no more."""
    eager = {
        found.name.split(".")[0]
        for module in FILES
        if is_within(module, PLUGIN)
        for found in imports_of(module)
        if found.at_import_time
    }
    assert eager <= {*sys.stdlib_module_names, "pytest", *DOORS}


def test_pure_package_neither_waits_nor_touches_the_world() -> None:
    """Protocol and core await nothing and import nothing that could; the core reads no clock either."""
    found = []
    for package in PURE:
        forbidden = IMPURE_LIBRARIES | ({"time", "datetime"} if package in CLOCKLESS else set())
        for module in FILES:
            if is_within(module, (package,)):
                found += [f"{module} imports {name}" for name in libraries(module) & forbidden]
                found += [f"{module}:{line} waits" for line in facts_of(module).waiting]
    assert not found


def test_every_floor_is_drawn_in_the_design() -> None:
    """The drawing in the design document names every module of the table."""
    drawing = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    missing = [name for group in GROUPS for name in group if name.split(".")[-1] not in drawing]
    assert not missing


def test_map_tells_up_from_down() -> None:
    """The check itself: down and inside is allowed, up and sideways is not."""
    cases: list[tuple[str, str, bool]] = [
        ("dspex_pool.worker_pool", "dspex_pool.pool_state", False),
        ("dspex_pool.pool_state", "dspex_pool.core.books", False),
        ("dspex_pool.pool_state", "dspex_pool.transport.port", True),
        ("dspex_pool.errors", "dspex_pool.protocol", True),
        ("dspex_pool.adapters.base", "dspex_pool", True),
        ("dspex_testkit.mock_port", "dspex_pool.transport.port", False),
        ("dspex_testkit.mock_port", "dspex_testkit.plugin", True),
    ]
    for module, imported, upward in cases:
        assert is_upward(module, imported) is upward, (module, imported)
