"""What may be set of a pool on any kind of port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspex_pool.config import PoolConfig
from dspex_pool.config.settings import refuse_unknown, settings_of
from dspex_pool.errors import InvalidConfigError
from dspex_testkit.ports.names import FURTHER_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_further_settings", "check_names"]

# They say how processes are started, and a kind of port does that in its own way.
_OF_STARTS = frozenset({
    "allow", "command", "limit_address_space", "limit_cpu_seconds", "limit_open_files", "max_frame_bytes", "nice",
    "python", "start_method", "worker_cwd", "worker_env",
})  # fmt: skip


def check_names(names: Iterable[str], source: str) -> None:
    """See that all of ``names`` can be set of a pool on a kind of port.

    Args:
        names: Names of settings.
        source: Where they came from.

    Raises:
        InvalidConfigError: There is no such setting, or it would be of no effect.
    """
    names = list(names)
    refuse_unknown(names, (*settings_of(PoolConfig), *FURTHER_SETTINGS), source)
    for name in names:
        if name in _OF_STARTS:
            raise InvalidConfigError(
                f"{name} (from {source}) has no effect here: the kind of port starts the workers. Set handler, "
                "or open a PythonPool of your own.",
                key=name,
                source=source,
            )


def check_further_settings(given: Mapping[str, Any]) -> None:
    """Check what starts and what serves the workers of a body's pool.

    Raises:
        ValueError: The commands are no functions by name, or nothing can be started by the ports.
    """
    commands, ports = given.get("commands"), given.get("ports")
    is_table = isinstance(commands, Mapping) and all(map(callable, commands.values()))
    if commands is not None and not is_table:
        raise ValueError(
            f"commands = {commands!r} is refused: it must be functions of the arguments, by the name of the command"
        )
    if ports is not None and not hasattr(ports, "open"):
        raise ValueError(f"ports = {ports!r} is refused: it must start workers, such as MockPortFactory()")
