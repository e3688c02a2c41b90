"""How worker processes are to be started: command, environment, directory and limits."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspex_pool.errors import InvalidConfigError
from dspex_pool.protocol.environment import PATH_VARIABLE
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES
from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE, own_run_tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["WORKER_ENVIRONMENT", "WORKER_ID_PLACEHOLDER", "SubprocessOptions", "default_worker_command"]

#: Replaced in every word of ``SubprocessOptions.command`` by the worker's id.
WORKER_ID_PLACEHOLDER = "{worker_id}"

#: Set in a worker unless the parent's environment or the options say otherwise.
WORKER_ENVIRONMENT: Mapping[str, str] = {
    # N workers with one thread per core each would make N times the cores in threads.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Without it, importing litellm fetches a price list from the network.
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
}

_BRIDGE = "dspex_pool.bridge"

#: Bytes of a variable that the system passes on, with room for its name: Linux takes 128 KiB, whatever else there is.
_LONGEST_TOLD = 126 * 1024


def default_worker_command(
    worker_id: str,
    *,
    python: str | None = None,
    handler: str | None = None,
    allow: Sequence[str] = (),
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
) -> list[str]:
    """Return the words of the command that runs the bridge as a pool worker.

    Args:
        worker_id: Name of the worker.
        python: Interpreter that has ``dspex_pool`` installed. Default: the one that runs this.
        handler: ``package.module:Class`` that serves the commands, instead of DSPy's.
        allow: Prefixes of ``module:factory`` names that programs may be built with.
        max_frame_bytes: Largest payload that the worker sends or takes, in bytes.
    """
    words = ["--mode", "pool-worker", "--worker-id", worker_id]
    if handler is not None:
        words += ["--handler", handler]
    for prefix in allow:
        words += ["--allow", prefix]
    if max_frame_bytes != DEFAULT_MAX_FRAME_BYTES:
        words += ["--max-frame-bytes", str(max_frame_bytes)]
    return [python or sys.executable, "-m", _BRIDGE, *words]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubprocessOptions:
    """How worker processes are started. Validated at construction (``InvalidConfigError``)."""

    #: Words of the command, in which ``{worker_id}`` is replaced; ``None`` for the bridge.
    command: Sequence[str] | None = None
    #: Interpreter of the bridge; ``None`` for the one that runs this.
    python: str | None = None
    #: Handler of the bridge, ``package.module:Class``; ``None`` for DSPy's.
    handler: str | None = None
    #: Prefixes of the factories that the bridge may call.
    allow: tuple[str, ...] = ()
    #: Variables added to the parent's environment, over the defaults.
    env: Mapping[str, str] | None = None
    #: Working directory; ``None`` for the parent's.
    cwd: str | None = None
    #: Nice value of the worker, -20 to 19; ``None`` for the parent's.
    nice: int | None = None
    #: Largest address space, in bytes (Linux).
    limit_address_space: int | None = None
    #: Most processor time of a worker's life, in seconds; SIGXCPU ends it there (Linux).
    limit_cpu_seconds: int | None = None
    #: Most open descriptors (Linux).
    limit_open_files: int | None = None
    #: Largest payload of a frame, in bytes, in either direction.
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    #: Bytes kept of a worker's stderr.
    stderr_tail_bytes: int = 65536

    def __post_init__(self) -> None:
        if self.command is not None and not _is_words(self.command):
            allowed = "a list of words, the program first, such as ['python3', 'worker.py']"
            raise _refuse("command", self.command, allowed)
        if self.command is None and self.python is None and not sys.executable:
            allowed = "the path of an interpreter, since this program does not know its own (sys.executable)"
            raise _refuse("python", self.python, allowed)
        if self.nice is not None and not -20 <= self.nice <= 19:
            raise _refuse("nice", self.nice, "-20 to 19")
        for key in ("limit_address_space", "limit_cpu_seconds", "limit_open_files", "max_frame_bytes"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise _refuse(key, value, "1 or more")
        if self.stderr_tail_bytes < 0:
            raise _refuse("stderr_tail_bytes", self.stderr_tail_bytes, "0 or more")

    def command_for(self, worker_id: str) -> list[str]:
        """Return the words of the command that starts ``worker_id``."""
        if self.command is not None:
            return [word.replace(WORKER_ID_PLACEHOLDER, worker_id) for word in self.command]
        return default_worker_command(
            worker_id,
            python=self.python,
            handler=self.handler,
            allow=self.allow,
            max_frame_bytes=self.max_frame_bytes,
        )

    def template_command(self) -> list[str]:
        """Return the words of the command that starts a template of the bridge's workers."""
        template = f"{_BRIDGE}.template"
        return [template if word == _BRIDGE else word for word in self.command_for("template")]

    def environment(self) -> dict[str, str]:
        """Return the whole environment of a worker: defaults, under the parent's, under ``env``."""
        # A worker may run a pool itself: the tag names the nearest parent, never an inherited one.
        tag = {RUN_TAG_VARIABLE: own_run_tag()}
        return {**WORKER_ENVIRONMENT, **os.environ, **tag, **(self.env or {})}

    def places(self) -> dict[str, str]:
        """Return the variable that tells a bridge where this program finds modules; none if its Python is another."""
        if self.command is not None or self.python is not None:
            return {}
        # The working directory is among the bridge's own.
        told = os.pathsep.join(filter(_can_be_told, sys.path))
        return {PATH_VARIABLE: told} if len(os.fsencode(told)) <= _LONGEST_TOLD else {}


def _can_be_told(place: object) -> bool:
    # Programs put anything there, which imports ignore: a Path is frequent.
    if not isinstance(place, str) or not Path(place).is_absolute() or os.pathsep in place or "\0" in place:
        return False
    with contextlib.suppress(UnicodeEncodeError):
        return bool(os.fsencode(place))
    return False


def _is_words(command: object) -> bool:
    # A single string is a sequence of strings too, but hardly what was meant.
    return (
        isinstance(command, (list, tuple))
        and bool(command)
        and all(isinstance(word, str) for word in command)
    )


def _refuse(key: str, value: object, allowed: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"{key} is {value!r}; allowed: {allowed}", key=key, value=value, allowed=allowed, source="argument"
    )
