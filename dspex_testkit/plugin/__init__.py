"""The pytest plugin: layers of testing as markers, held to their promises.

Every pytest run of the environment loads this package, so its modules import the standard library, pytest and small
modules of ours when they are imported, and whatever else when a test asks for it. A project opts in by marking tests
or by the setting ``dspex_layers``; tests without a layer are left alone. All state is in ``config.stash``.
"""

from __future__ import annotations

import gc
import importlib

import pytest

from dspex_testkit.layers import LAYERS, selected_layers
from dspex_testkit.plugin.late import load_late_parts
from dspex_testkit.plugin.stash import STATE
from dspex_testkit.settings import State, declare

__all__: list[str] = []

#: The parts of the plugin, each a plugin of its own; one a line.
PARTS = (
    "seeds",
    "replay",
    "assignment",
    "ports",
    "lm",
    "chaos",
    "scenarios",
    "hangs",
    "report",
    "load",
)

pytest.register_assert_rewrite("dspex_testkit.contracts", "dspex_testkit.invariants")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the settings, and register the parts, whose own then follow."""
    declare(parser)
    # For each name in pytest_plugins pytest reads the metadata of everything that is installed: 3 ms for a part.
    for part in PARTS:
        pluginmanager.register(importlib.import_module(f"{__name__}.{part}"), f"{__name__}.{part}")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and read the settings."""
    # For those who run pytest inside a process of their own. First in, last out: pytest looks for garbage
    # once more at the end, and need not look at what was frozen.
    config.add_cleanup(gc.unfreeze)
    for layer in LAYERS.values():
        config.addinivalue_line("markers", f"{layer.name}: layer of {layer.purpose}")
    config.addinivalue_line("markers", "budget(seconds): this test's own budget, instead of its layer's.")
    try:
        config.stash[STATE] = State.of(config)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    # All options travel to xdist's workers, so they take this seed and draw none.
    config.option.dspex_seed = config.stash[STATE].seed
    # Reports of xdist's workers may have layers though nothing here says so.
    is_controller = bool(config.getoption("tx", None))
    if config.stash[STATE].is_used or is_controller or selected_layers(config.option.markexpr):
        load_late_parts(config)
