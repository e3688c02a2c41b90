"""Which lines of a stack are the project's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dspex_testkit.sites import Sites

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def call_from(name: str, function: Any) -> Any:
    """Return what ``function`` returns, called by a line of a file called ``name``."""
    space: dict[str, Any] = {"function": function}
    exec(compile("answer = function()", name, "exec"), space)
    return space["answer"]


def test_scripts_of_an_environment_within_the_project_are_no_lines_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``.venv/bin/pytest`` is on every stack, and was told as the line where it all began."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    sites = Sites(tmp_path)

    def seen() -> list[str]:
        return [name for name, _, _ in sites.of(sys._getframe())]

    test = str(tmp_path / "tests" / "test_x.py")
    script = str(tmp_path / ".venv" / "bin" / "pytest")
    assert call_from(script, lambda: call_from(test, seen)) == [test]


def test_project_within_an_environment_keeps_its_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Some install everything below one prefix, the project too."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path.parent))
    test = str(tmp_path / "test_x.py")
    sites = Sites(tmp_path)
    assert [name for name, _, _ in call_from(test, lambda: sites.of(sys._getframe()))] == [test]
