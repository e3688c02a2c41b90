"""The settings of a pool, as two frozen and validated records."""

# The annotations are read at run time, for the rules in them: they must not become strings.

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import msgspec

from dspex_pool.config.display import SettingRow, rows_of, text_of
from dspex_pool.config.rules import Choice, Flag, Pairs, Seconds, SecondsRange, Text, Whole, Words
from dspex_pool.config.settings import ARGUMENT, check_all, presumed_sources, refuse_unknown
from dspex_pool.config.sources import gather

__all__ = ["PoolConfig", "PoolOptions"]

#: The largest number that the system takes as a limit of a process.
MOST_OF_A_LIMIT = 2**63 - 1


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the pool's own decisions depend on.

    Raises:
        InvalidConfigError: A value is of another type, out of its range, or contradicts another.
        TypeError: There is no setting of that name.
    """

    pool_size: Annotated[int, Whole("Workers kept for normal load.", low=1)] = 4
    max_overflow: Annotated[int, Whole("Workers started beyond pool_size under load.", low=0)] = 0
    overflow_ttl: Annotated[float, Seconds("Seconds that an idle worker beyond pool_size is kept.")] = 30.0
    lazy: Annotated[bool, Flag("Whether workers are started by the first callers instead of at once.")] = (
        False
    )
    min_idle: Annotated[
        int | None,
        Whole("Live workers kept without load; none: pool_size, or 0 when lazy.", low=0),
    ] = None
    max_starting: Annotated[int, Whole("Workers that may be starting at the same time.", low=1)] = 2
    spawn_timeout: Annotated[float, Seconds("Seconds from a worker's start to the end of its handshake.")] = (
        60.0
    )
    backoff_min: Annotated[float, Seconds("Shortest delay after a failed start, in seconds.")] = 1.0
    backoff_max: Annotated[float, Seconds("Longest delay after failed starts, in seconds.")] = 30.0
    breaker_after: Annotated[
        float,
        Seconds(
            "Seconds of failing starts, with no worker alive, after which checkouts are refused at once."
        ),
    ] = 60.0
    checkout_timeout: Annotated[float, Seconds("Seconds that a caller waits for a worker.")] = 30.0
    max_waiting: Annotated[
        int | None, Whole("Callers that may wait at the same time; none: no bound.", low=0)
    ] = None
    codel_target: Annotated[
        float | None, Seconds("Waiting time in seconds above which load is shed; none: never shed.")
    ] = None
    codel_interval: Annotated[
        float, Seconds("Seconds that waits must have been above codel_target before load is shed.")
    ] = 1.0
    idle_order: Annotated[
        Literal["lifo", "fifo"],
        Choice(
            "Which idle worker is lent first: lifo, the last used; fifo, the longest idle.", "lifo", "fifo"
        ),
    ] = "lifo"
    health_check_interval: Annotated[
        float | None, Seconds("Seconds between two pings of an idle worker; none: no pings.")
    ] = 30.0
    ping_timeout: Annotated[float, Seconds("Seconds that a worker has to answer a ping.")] = 5.0
    max_idle_pings: Annotated[
        int | None, Whole("Workers whose health may be checked at the same time; none: no bound.", low=1)
    ] = None
    idle_timeout: Annotated[
        float | None,
        Seconds("Seconds of idleness after which a worker above the floor is retired; none: never."),
    ] = None
    max_lifetime: Annotated[
        tuple[float, float] | None,
        SecondsRange("Shortest and longest age in seconds at which a worker is replaced; none: never."),
    ] = None
    max_uses: Annotated[int | None, Whole("Leases after which a worker is replaced; none: never.", low=1)] = (
        None
    )
    max_rss_bytes: Annotated[
        int | None, Whole("Resident memory in bytes above which a worker is replaced; none: never.", low=1)
    ] = None
    lease_timeout: Annotated[
        float | None, Seconds("Seconds after which a lease is ended by force; none: never.")
    ] = None
    leak_warning_after: Annotated[
        float | None, Seconds("Seconds after which a lease is reported as a likely leak; none: never.")
    ] = None
    cancel_grace: Annotated[
        float, Seconds("Seconds that an abandoned command has to stop before its worker is ended.")
    ] = 2.0
    terminate_grace: Annotated[
        float, Seconds("Seconds that workers have to leave by themselves before they are killed.")
    ] = 5.0
    close_timeout: Annotated[float, Seconds("Seconds within which closing the pool ends everything.")] = 30.0
    max_sessions: Annotated[int, Whole("Sessions that may live at the same time.", low=1)] = 10_000
    session_ttl: Annotated[
        float | None, Seconds("Seconds of idleness after which a session is forgotten; none: never.")
    ] = 3600.0

    def __post_init__(self) -> None:
        given = msgspec.structs.asdict(self)
        for name, value in check_all(type(self), given, presumed_sources(type(self), given)).items():
            # A list became a tuple, an int of seconds a float, a dict a copy.
            msgspec.structs.force_setattr(self, name, value)

    @property
    def floor(self) -> int:
        """Live workers that the pool keeps without any load."""
        if self.min_idle is not None:
            return self.min_idle
        return 0 if self.lazy else self.pool_size


class PoolConfig(PoolOptions, frozen=True, kw_only=True, dict=True):
    """Everything that can be set about a pool: its options, its calls, its sessions and its workers.

    Two configurations are equal if their values are, wherever the values came from.

    Raises:
        InvalidConfigError: A value is of another type, out of its range, or contradicts another.
        TypeError: There is no setting of that name; ``load`` says which is nearest.
    """

    call_timeout: Annotated[
        float | None, Seconds("Seconds that a call has to be answered once it is sent; none: no bound.")
    ] = None
    retries: Annotated[
        int, Whole("Further tries of a call on another worker, where that cannot repeat side effects.", low=0)
    ] = 0
    affinity: Annotated[
        Literal["hint", "strict", "strict_nowait"],
        Choice(
            "How firmly a session keeps to its worker: hint, by preference; strict, always; "
            "strict_nowait, always and refused when that worker is busy.",
            "hint",
            "strict",
            "strict_nowait",
        ),
    ] = "hint"
    session_store: Annotated[
        str,
        Text("Where sessions outlive workers: memory, or sqlite:PATH to outlive the pool too.", form="store"),
    ] = "memory"
    start_method: Annotated[
        Literal["spawn", "template"],
        Choice(
            "How workers are started: spawn, each by itself; template, forked from a process that has imported "
            "everything (Linux).",
            "spawn",
            "template",
        ),
    ] = "spawn"
    python: Annotated[str | None, Text("Python that runs the workers; none: the one that runs the pool.")] = (
        None
    )
    command: Annotated[
        tuple[str, ...] | None, Words("Command of a worker with its arguments; none: the bridge.", least=1)
    ] = None
    handler: Annotated[
        str | None, Text("Class that serves the commands, as package.module:Class; none: DSPy.", form="class")
    ] = None
    allow: Annotated[
        tuple[str, ...], Words("Prefixes of the modules that program factories may come from.")
    ] = ()
    worker_env: Annotated[
        dict[str, str], Pairs("Environment variables of the workers, added to those of the pool.")
    ] = {}
    worker_cwd: Annotated[str | None, Text("Working directory of the workers; none: that of the pool.")] = (
        None
    )
    nice: Annotated[
        int | None,
        Whole("Scheduling priority of the workers, 19 being the lowest; none: as it is.", low=-20, high=19),
    ] = None
    limit_address_space: Annotated[
        int | None, Whole("Address space of a worker in bytes; none: no limit.", low=1, high=MOST_OF_A_LIMIT)
    ] = None
    limit_cpu_seconds: Annotated[
        int | None,
        Whole("Processor time of a worker in seconds; none: no limit.", low=1, high=MOST_OF_A_LIMIT),
    ] = None
    limit_open_files: Annotated[
        int | None,
        Whole(
            "Files that a worker may have open at the same time; none: no limit.",
            low=16,
            high=MOST_OF_A_LIMIT,
        ),
    ] = None
    max_frame_bytes: Annotated[
        int, Whole("Largest message in either direction, in bytes.", low=1, high=2**32 - 1)
    ] = 64 * 1024 * 1024
    monitor_interval: Annotated[float, Seconds("Seconds between two rounds of the monitor.")] = 5.0
    max_restarts: Annotated[
        int, Whole("Restarts of a service of the pool within restart_window before the pool gives up.", low=0)
    ] = 3
    restart_window: Annotated[float, Seconds("Seconds over which restarts are counted.")] = 60.0

    @classmethod
    def load(
        cls,
        profile: str | None = None,
        file: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Self:
        """Gather the settings: arguments, then ``DSPEX_POOL_…`` variables, TOML, the profile, the defaults.

        Args:
            profile: ``dev``, ``test`` or ``prod``; ``None`` takes ``DSPEX_POOL_PROFILE`` or TOML's ``profile``.
            file: TOML file with the settings at its top level, in ``[dspex_pool]`` or in ``[tool.dspex_pool]``;
                ``None`` reads ``[tool.dspex_pool]`` of ``pyproject.toml`` in the working directory, if there.
            environ: Environment variables by name; ``None`` takes those of the process.
            overrides: Settings by name.

        Raises:
            InvalidConfigError: A value is refused, a name is unknown, or a file cannot be read.
        """
        values, sources = gather(
            cls,
            profile=profile,
            file=file,
            environ=os.environ if environ is None else environ,
            overrides=overrides,
        )
        return cls._of(values, sources)

    @classmethod
    def _of(cls, values: Mapping[str, Any], sources: Mapping[str, str]) -> Self:
        # Checked before construction too, because only here the sources are known to the error.
        config = cls(**check_all(cls, values, sources))
        msgspec.structs.force_setattr(config, "_sources", MappingProxyType(dict(sources)))
        return config

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed, which then count as arguments.

        Raises:
            InvalidConfigError: A value is refused or a name is unknown.
        """
        refuse_unknown(changes, self.__struct_fields__, ARGUMENT)
        values = msgspec.structs.asdict(self) | changes
        return self._of(values, dict(self.sources) | dict.fromkeys(changes, ARGUMENT))

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each value came from: ``argument``, a variable, ``file:table``, ``profile …``, ``default``."""
        known: Mapping[str, str] | None = self.__dict__.get("_sources")
        return known or presumed_sources(type(self), msgspec.structs.asdict(self))

    def describe(self) -> list[SettingRow]:
        """Return every setting with its effective value, its source and its sentence."""
        return rows_of(self, self.sources)

    def __repr__(self) -> str:
        # Logs print configurations; the environment of the workers may hold keys.
        return text_of(self)
