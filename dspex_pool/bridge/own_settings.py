"""What programs tell ``dspy.configure``, kept apart: DSPy keeps it for the whole process. Imports DSPy."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["own_settings"]

# Where DSPy keeps what ``dspy.configure`` changes. As an attribute of its package it is hidden by the settings. With
# a DSPy that keeps it elsewhere programs run all the same, and their settings are everybody's.
try:
    _global: Any = importlib.import_module("dspy.dsp.utils.settings")
    # What is there before any program was made.
    _untouched = dict(_global.main_thread_config)
except (ImportError, AttributeError):  # pragma: no cover - no DSPy so far
    _global, _untouched = None, {}


@contextlib.contextmanager
def own_settings(own: dict[str, Any]) -> Iterator[None]:
    """Put what a program has told ``dspy.configure`` in force, and note in ``own`` what it tells it in the block.

    What others told it is undone first and not when they are done, which a cancellation could prevent.
    """
    if _global is None:  # pragma: no cover - no DSPy so far
        yield
        return
    _global.config_owner_thread_id = _global.config_owner_async_task = None
    settings = _global.main_thread_config
    for name in settings.keys() - _untouched.keys():
        del settings[name]
    settings.update(
        {name: [*value] if isinstance(value, list) else value for name, value in _untouched.items()}
    )
    settings.update(own)
    before = dict(settings)
    try:
        yield
    finally:
        own |= {name: value for name, value in settings.items() if value is not before.get(name)}
