"""Where settings come from: arguments, the environment, TOML, a profile; in this order of precedence."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_pool.config.settings import ARGUMENT, DEFAULT, refuse_unknown, settings_of
from dspex_pool.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import msgspec

    from dspex_pool.config.settings import Setting

__all__ = ["ENVIRONMENT_PREFIX", "PROFILES", "gather", "usable_cores"]

#: Start of the name of each environment variable that is read.
ENVIRONMENT_PREFIX = "DSPEX_POOL_"

#: Name of the setting that chooses a profile, in TOML and, after the prefix, in the environment.
_PROFILE = "profile"

# RUN marks the worker processes of one pool, so a pool inside a worker meets it. The others are set by
# Kubernetes in every container of a namespace that has a service called "dspex-pool", or "dspex-pool-" and more.
_NOT_OURS = re.compile(r"RUN|(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)")


def usable_cores() -> int:
    """Return the number of processor cores that this process may run on, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


#: Settings of each profile, by its name; made when asked, because the cores are those of the machine.
PROFILES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "dev": lambda: {"pool_size": 2, "lazy": True},
    "test": lambda: {"pool_size": 4, "lazy": False},
    "prod": lambda: {"pool_size": usable_cores(), "lazy": False},
}


@dataclass(slots=True)
class _Layer:
    """What one source says."""

    #: Values by the name of the setting.
    values: dict[str, Any] = field(default_factory=dict)
    #: Where each value came from, the profile's name included.
    sources: dict[str, str] = field(default_factory=dict)
    #: Name of the profile that it chooses, unchecked.
    profile: object = None

    def add(self, name: str, value: object, source: str) -> None:
        self.values[name] = value
        self.sources[name] = source


def gather(
    kind: type[msgspec.Struct],
    *,
    profile: str | None,
    file: str | os.PathLike[str] | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a value and its source for every setting of ``kind``; values of TOML are not checked yet.

    Args:
        kind: The configuration class.
        profile: Name of a profile, before what the environment or TOML says.
        file: TOML file that must exist; ``None`` reads ``pyproject.toml`` of the working directory, if there.
        environ: Environment variables by name.
        overrides: Values that precede all others.

    Raises:
        InvalidConfigError: A name is unknown, a text cannot be parsed or a file cannot be read.
    """
    settings = settings_of(kind)
    refuse_unknown(overrides, settings, ARGUMENT)
    layers = [
        _Layer(dict(overrides), dict.fromkeys(overrides, ARGUMENT), profile),
        _read_environment(settings, environ),
        _read_toml(settings, file),
    ]
    if profile is not None:
        layers[0].sources[_PROFILE] = ARGUMENT
    layers.append(_chosen_profile(layers))
    values = {name: setting.default for name, setting in settings.items()}
    sources = dict.fromkeys(settings, DEFAULT)
    for layer in reversed(layers):
        values.update(layer.values)
        sources.update(layer.sources)
    sources.pop(_PROFILE, None)
    return values, sources


def _chosen_profile(layers: list[_Layer]) -> _Layer:
    chooser = next((layer for layer in layers if layer.profile is not None), None)
    if chooser is None:
        return _Layer()
    name = chooser.profile
    if not isinstance(name, str) or name not in PROFILES:
        source, allowed = chooser.sources[_PROFILE], "one of " + ", ".join(PROFILES)
        raise InvalidConfigError(
            f"profile = {name!r} (from {source}) is refused: it must be {allowed}",
            key=_PROFILE,
            value=name,
            allowed=allowed,
            source=source,
        )
    values = PROFILES[name]()
    return _Layer(values, dict.fromkeys(values, f"profile {name}"))


# --- environment -------------------------------------------------------------------------------------


def _read_environment(settings: Mapping[str, Setting], environ: Mapping[str, str]) -> _Layer:
    layer = _Layer()
    by_variable = {setting.variable: setting for setting in settings.values()}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        rest = variable.removeprefix(ENVIRONMENT_PREFIX)
        if variable in by_variable:
            setting = by_variable[variable]
            layer.add(setting.name, setting.parse(text, variable), variable)
        elif rest == _PROFILE.upper():
            layer.profile, layer.sources[_PROFILE] = text.strip() or None, variable
        elif not _NOT_OURS.fullmatch(rest):
            known = [name.upper() for name in (*settings, _PROFILE)]
            refuse_unknown([rest], known, "environment", prefix=ENVIRONMENT_PREFIX)
    return layer


# --- TOML --------------------------------------------------------------------------------------------


def _read_toml(settings: Mapping[str, Setting], file: str | os.PathLike[str] | None) -> _Layer:
    path = Path("pyproject.toml" if file is None else file)
    if file is None and not _is_there(path):
        return _Layer()
    document = _parse_file(path)
    name, table = _find_table(document, path, must_exist=file is not None)
    source = f"{path}:{name}"
    layer = _Layer(profile=table.get(_PROFILE), sources={_PROFILE: source})
    refuse_unknown(table, (*settings, _PROFILE), source)
    for key, value in table.items():
        if key != _PROFILE:
            # TOML has no null.
            is_none = settings[key].is_optional and value == "none"
            layer.add(key, None if is_none else value, source)
    return layer


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        # A service may have been started in a folder that its user may not enter.
        return False


def _parse_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as exc:
        raise _bad_file(path, f"cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise _bad_file(path, f"is no TOML: {exc}") from exc
    except RecursionError as exc:
        raise _bad_file(path, "is nested too deeply") from exc


def _bad_file(path: Path, problem: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"the configuration file {path} {problem}",
        key="file",
        value=str(path),
        allowed="a readable TOML file with settings",
        source=str(path),
    )


def _find_table(document: dict[str, Any], path: Path, *, must_exist: bool) -> tuple[str, dict[str, Any]]:
    """Return the table that holds the settings, with its name.

    A file for many tools has ``[tool.dspex_pool]``, one for a service ``[dspex_pool]``; a file without
    either, given by name, is ours as a whole.
    """
    tools = document.get("tool")
    found = {}
    if isinstance(tools, dict) and "dspex_pool" in tools:
        found["tool.dspex_pool"] = tools["dspex_pool"]
    if "dspex_pool" in document and must_exist:
        found["dspex_pool"] = document["dspex_pool"]
    if len(found) > 1:
        raise _bad_file(path, "has both [tool.dspex_pool] and [dspex_pool]: keep one")
    for name, table in found.items():
        if not isinstance(table, dict):
            raise _bad_file(path, f"has {name} as a value; it must be a table")
        return name, table
    if must_exist and (tools is not None or path.name == "pyproject.toml"):
        raise _bad_file(path, "has no table [tool.dspex_pool]")
    return "top level", document if must_exist else {}
