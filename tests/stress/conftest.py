"""The order of the stress tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the soak first: memory that tests before it have freed would be filled, unseen, by what it leaks."""
    items.sort(key=lambda item: item.path.stem != "test_soak")
