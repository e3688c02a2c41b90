"""The pytest plugin: the layers of testing as markers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["LAYERS"]

#: The layers, from the cheapest to the dearest, with what each is for.
LAYERS = {
    "fast": "the code alone: no process, no socket, no real sleep, no dspy; time is simulated.",
    "protocol": "bytes on real pipes, against the mock server; no dspy.",
    "integration": "real worker processes, DSPy, servers on loopback.",
    "chaos": "seeded faults, on any of the layers below.",
    "stress": "load and time.",
}


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of the layers."""
    for name, purpose in LAYERS.items():
        config.addinivalue_line("markers", f"{name}: {purpose}")
