"""The layers of testing: their names and budgets, which folder has which, and which a run selects."""

from __future__ import annotations

import ast
import itertools
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["LAYERS", "FolderLayers", "Layer", "dearest", "names_layers_only", "selected_layers"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of testing."""

    #: Name of its marker.
    name: str
    #: What it is for, and what it may not do.
    purpose: str
    #: Seconds that one test may take by default; zero for no limit.
    budget: float
    #: Whether processes, connections and real sleeps are refused.
    is_sealed: bool = False
    #: Modules that may not be imported.
    forbidden_modules: frozenset[str] = frozenset()
    #: Whether connections beyond this machine are refused.
    is_local: bool = True

    @property
    def forbids(self) -> bool:
        """Whether there is anything that its tests may not do."""
        return self.is_sealed or self.is_local or bool(self.forbidden_modules)

    @property
    def counts_cpu(self) -> bool:
        """Whether its budget is CPU time, so that a busy machine does no harm; else it is wall time."""
        return self.is_sealed


_DSPY = frozenset({"dspy"})

#: The layers, from the cheapest to the dearest.
LAYERS: Mapping[str, Layer] = {
    layer.name: layer
    for layer in (
        Layer("fast", "the code alone: no process, socket, real sleep or dspy.", 0.05, True, _DSPY),
        Layer("protocol", "bytes on real pipes, against the mock server; no dspy.", 0.5, False, _DSPY),
        Layer("integration", "real worker processes, DSPy, and servers on loopback.", 10.0),
        Layer("chaos", "seeded faults, on whatever they need to be real.", 30.0),
        Layer("stress", "load and time; minutes.", 0.0, is_local=False),
    )
}


@dataclass(frozen=True, slots=True)
class FolderLayers:
    """Which folder holds tests of which layer."""

    #: Layer by folder, relative to the root, as path parts.
    folders: Mapping[tuple[str, ...], str]

    @classmethod
    def parse(cls, lines: Iterable[str]) -> FolderLayers:
        """Read lines of the form ``tests/unit = fast``.

        Raises:
            ValueError: A line has another form, names an unknown layer, or a folder that is not below the root or has
                another layer already.
        """
        folders: dict[tuple[str, ...], str] = {}
        for line in lines:
            folder, equals, layer = (part.strip() for part in line.partition("="))
            if not folder or not equals or layer not in LAYERS:
                known = ", ".join(LAYERS)
                raise ValueError(
                    f"dspex_layers: {line!r} is not of the form 'folder = layer' (layers: {known})"
                )
            path = PurePath(folder)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(
                    f"dspex_layers: the folder of {line!r} is not below the root; name it as seen from there"
                )
            if folders.setdefault(path.parts, layer) != layer:
                raise ValueError(f"dspex_layers: {folder} has two layers: {folders[path.parts]}, {layer}")
        return cls(folders)

    def check_below(self, root: Path) -> None:
        """Check that every folder is there.

        Raises:
            ValueError: One is not below ``root``; its tests would have no layer, and nobody would hear of it.
        """
        for parts in self.folders:
            if not root.joinpath(*parts).exists():
                raise ValueError(f"dspex_layers: there is no {PurePath(*parts)} below {root}")

    def layer_of(self, path: PurePath) -> str | None:
        """Return the layer of the longest folder that holds ``path``, which is relative to the root."""
        parts = path.parts
        for length in range(len(parts), -1, -1):
            if (layer := self.folders.get(parts[:length])) is not None:
                return layer
        return None

    def has(self, layer: str) -> bool:
        """Tell whether any folder has ``layer``."""
        return layer in self.folders.values()

    def is_out_of(self, selected: Iterable[str], path: PurePath) -> bool:
        """Tell whether neither ``path`` nor anything below it has a layer among ``selected``.

        Says no where a selected layer has no folder, or ``path`` no layer: then its tests may be anywhere.
        """
        wanted = set(selected)
        if not wanted or self.layer_of(path) in {None, *wanted} or not all(map(self.has, wanted)):
            return False
        below = (layer for folder, layer in self.folders.items() if folder[: len(path.parts)] == path.parts)
        return wanted.isdisjoint(below)


def dearest(*names: str | None) -> str:
    """Return the dearest of some layers, which allows what the others do; ``None`` is none."""
    return max((name for name in names if name is not None), key=list(LAYERS).index)


def selected_layers(expression: str) -> list[str]:
    """Return the layers that a ``-m`` expression asks for.

    A layer is asked for if carrying its mark can be what makes a test match: by ``fast`` and by
    ``fast and not slow``, but not by ``not chaos``. What is no marker expression asks for nothing.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
        return [layer for layer in LAYERS if layer in names and _decides(layer, tree, names)]
    except (SyntaxError, ValueError):
        return []


def names_layers_only(expression: str) -> bool:
    """Tell whether a ``-m`` expression is about layers and no other marks."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        return False
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} <= LAYERS.keys()


def _decides(layer: str, tree: ast.expr, names: list[str]) -> bool:
    others = [name for name in names if name != layer]
    # No test carries two layers, so only the other marks vary.
    free = [name for name in others if name not in LAYERS][:8]
    return any(
        _matches(tree, {layer, *marks}) and not _matches(tree, set(marks))
        for count in range(len(free) + 1)
        for marks in itertools.combinations(free, count)
    )


def _matches(node: ast.expr, marks: set[str]) -> bool:
    match node:
        case ast.Name(name):
            return name in marks
        case ast.UnaryOp(ast.Not(), operand):
            return not _matches(operand, marks)
        case ast.BoolOp(ast.And(), values):
            return all(_matches(value, marks) for value in values)
        case ast.BoolOp(ast.Or(), values):
            return any(_matches(value, marks) for value in values)
        case ast.Call(ast.Name(name)):
            return name in marks
    raise ValueError(f"no marker expression: {ast.dump(node)}")
