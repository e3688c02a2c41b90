"""What all tests share: the plugin that tests plugins, and the names of the profiles of searches."""

from __future__ import annotations

import importlib

import pytest

pytest_plugins = ["pytester"]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the profiles known before Hypothesis' plugin loads one; other runs need not import Hypothesis here."""
    if config.getoption("--hypothesis-profile", None):
        importlib.import_module("tests.search_profiles")
