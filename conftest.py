"""What all tests share: the plugin that tests plugins."""

from __future__ import annotations

pytest_plugins = ["pytester"]
