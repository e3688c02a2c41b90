"""Settings for people: the effective values with their sources, and the table of all settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dspex_pool.config.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SettingRow", "rows_of", "settings_table", "text_of"]


class SettingRow(msgspec.Struct, frozen=True):
    """One setting with its effective value, ready for JSON."""

    #: Name of the setting.
    key: str
    #: Its value; texts that may be secret are replaced by ``(hidden)``.
    value: Any
    #: Where the value came from.
    source: str
    #: One sentence, with the unit.
    doc: str


def rows_of(config: msgspec.Struct, sources: Mapping[str, str]) -> list[SettingRow]:
    """Return one row for each setting of ``config``, in the order of their definition."""
    return [
        SettingRow(name, _shown(getattr(config, name)), sources[name], setting.doc)
        for name, setting in settings_of(type(config)).items()
    ]


def _shown(value: Any) -> Any:
    return dict.fromkeys(value, "(hidden)") if isinstance(value, dict) else value


def text_of(config: msgspec.Struct) -> str:
    """Return ``config`` as text: only what differs from the defaults, and no secrets."""
    changed = (
        f"{name}={_shown(getattr(config, name))!r}"
        for name, setting in settings_of(type(config)).items()
        if getattr(config, name) != setting.default
    )
    return f"{type(config).__name__}({', '.join(changed)})"


def settings_table(kind: type[msgspec.Struct]) -> str:
    """Return all settings of ``kind`` as a table in Markdown, with a final newline."""
    lines = ["| Setting | Default | Meaning | Must be |", "| --- | --- | --- | --- |"]
    for name, setting in settings_of(kind).items():
        default = "none" if setting.default is None else msgspec.json.encode(setting.default).decode()
        lines.append(f"| `{name}` | `{default}` | {setting.doc} | {setting.allowed} |")
    return "\n".join(lines) + "\n"
