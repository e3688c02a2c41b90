"""What the parts of the pytest plugin declare: options, settings, markers and fixtures, as rows of tables."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, patch

from dspex_testkit import plugin
from dspex_testkit.plugin.late import LATE_PARTS
from dspex_testkit.settings import declare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["fixtures", "markers", "options", "settings"]

Row = tuple[str, ...]


def parts() -> list[ModuleType]:
    """Return the plugin and its parts."""
    return [
        plugin,
        *(importlib.import_module(f"{plugin.__name__}.{part}") for part in (*plugin.PARTS, *LATE_PARTS)),
    ]


class _Recorder:
    """Stands for pytest's parser and for its groups, and keeps what is declared."""

    def __init__(self) -> None:
        self.options: list[Row] = []
        self.settings: list[Row] = []
        self.defaults: dict[str, Any] = {}

    def getgroup(self, *_: str) -> _Recorder:
        return self

    def addoption(self, *names: str, help: str, **options: Any) -> None:  # noqa: A002 - pytest's name
        value = options.get("metavar", "")
        self.options.append((f"`{' '.join(filter(None, [*names, value]))}`".replace("|", "\\|"), help))

    def addini(self, name: str, help: str, type: str = "string", default: Any = None) -> None:  # noqa: A002 - as above
        self.settings.append((f"`{name}`", type, help))
        self.defaults[name] = default


def _declared() -> _Recorder:
    recorder = _Recorder()
    declare(recorder)  # type: ignore[arg-type] # stands for the parser
    for part in parts()[1:]:
        if hasattr(part, "pytest_addoption"):
            part.pytest_addoption(recorder)
    return recorder


def options() -> list[Row]:
    """Return the flags of the command line: how each is given, and what for."""
    return _declared().options


def settings() -> list[Row]:
    """Return the settings of the ini file: name, type and meaning."""
    return _declared().settings


def markers() -> list[Row]:
    """Return the markers: signature and purpose."""
    config = MagicMock()
    config.getini.side_effect = _declared().defaults.get
    # What else a part does with its configuration goes nowhere.
    with patch.dict(os.environ):
        for part in parts():
            if hasattr(part, "pytest_configure"):
                part.pytest_configure(config)
    lines = [call.args[1] for call in config.addinivalue_line.call_args_list if call.args[0] == "markers"]
    return [(f"`{name}`", text.strip()) for name, _, text in (line.partition(":") for line in lines)]


def fixtures() -> list[Row]:
    """Return the fixtures: name, scope, and the first line of what each says."""
    return [row for part in parts() for row in _fixtures_of(inspect.getsource(part))]


def _fixtures_of(source: str) -> Iterator[Row]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            for decorator in map(ast.unparse, node.decorator_list):
                if decorator.startswith("pytest.fixture"):
                    scope = re.search(r"scope='(\w+)'", decorator)
                    words = (ast.get_docstring(node) or "").split("\n\n")[0].replace("``", "`").split()
                    yield f"`{node.name}`", scope[1] if scope else "function", " ".join(words)
