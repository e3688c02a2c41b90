"""The pool's settings as the command line gives them: a file, a profile, and ``--set``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.cli.problems import CliError
from dspex_pool.config import PoolConfig
from dspex_pool.config.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["config_for_run", "load_config", "row_timeout"]

#: Seconds that a row waits for a worker: a week. A run hands out few rows at a time and has no other callers,
#: so waiting means that workers are busy; if none can be started, the breaker ends the run.
PATIENCE = 7 * 86400.0


def load_config(
    *, file: str | None = None, profile: str | None = None, settings: Sequence[str] = ()
) -> PoolConfig:
    """Gather the settings: ``--set`` before environment, TOML, profile and defaults.

    Args:
        file: TOML file.
        profile: ``dev``, ``test`` or ``prod``.
        settings: ``KEY=VALUE`` texts; values are written as in environment variables.

    Raises:
        CliError: A text has no ``=``.
        InvalidConfigError: A setting is unknown or its value is refused.
    """
    known = settings_of(PoolConfig)
    given: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise CliError(f"--set {text!r}: write KEY=VALUE, such as --set pool_size=8")
        setting = known.get(key.strip())
        given[key.strip()] = value if setting is None else setting.parse(value, f"--set {key.strip()}")
    return PoolConfig.load(profile, file, **given)


def row_timeout(config: PoolConfig, given: float | None) -> float | None:
    """Return the seconds that a row has: as ``given`` by --timeout, else as configured.

    Raises:
        InvalidConfigError: It is no duration.
    """
    if given is None:
        return config.call_timeout
    checked: float = settings_of(PoolConfig)["call_timeout"].check(given, "--timeout")
    return checked


def config_for_run(
    config: PoolConfig,
    *,
    rows: int,
    sessions: int,
    timeout: float | None,
    workers: int | None = None,
    retries: int | None = None,
    allow: Sequence[str] = (),
) -> PoolConfig:
    """Fit the settings to a run: one caller that bounds its own work and has a pool for itself.

    What guards a shared pool would turn this run's own rows away, so it is off: the length of the line, load
    shedding, the deadline of checkouts, the idle time of sessions. Sessions move freely between workers and
    live in memory, so that a run can neither meet nor delete the sessions of a service.

    Args:
        config: The settings as loaded.
        rows: Rows to run; a pool larger than that would idle.
        sessions: Different sessions among them.
        workers: Worker processes; as configured if not given.
        timeout: Seconds that a row has, or ``None``. Whatever else is asked of a worker has at least the time
            of a start: it may have to import DSPy first.
        retries: Further attempts a row; as configured if not given.
        allow: Further prefixes of the modules that factories may come from.

    Raises:
        InvalidConfigError: A value is out of its range.
    """
    return config.replace(
        pool_size=max(1, min(workers or config.pool_size, rows)),
        min_idle=None,
        max_overflow=0,
        lazy=False,
        checkout_timeout=PATIENCE,
        max_waiting=None,
        codel_target=None,
        affinity="hint",
        session_ttl=None,
        session_store="memory",
        max_sessions=max(config.max_sessions, sessions + 1),
        call_timeout=max(config.spawn_timeout, timeout or 0.0),
        retries=config.retries if retries is None else retries,
        allow=(*config.allow, *allow),
    )
