"""Starting one worker process, in a thread. Either all of it succeeds, or nothing is left behind.

``preexec_fn`` is not used: it runs Python between fork and exec, which can deadlock when the parent has
threads, and ours has. The session is made by Popen in C. The nice value and the limits are set from
outside, by process id, right after the start: no command can reach the worker before, because its port is
not given out before. A wrapper program that sets them and then executes the command was refused: the error
of a command that cannot be executed would then be the wrapper's exit status.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dspex_pool.errors import WorkerStartError
from dspex_pool.protocol.environment import LIFELINE_VARIABLE
from dspex_pool.protocol.forking import PROCESS_ADVICE
from dspex_pool.transport.host_forks import hold, no_fork, release
from dspex_pool.transport.pipes import grow_pipe
from dspex_pool.transport.process import WorkerProcess, open_exit_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dspex_pool.transport.options import SubprocessOptions
    from dspex_pool.transport.template_fork import ForkedProcess

__all__ = [
    "ADVICE",
    "Launched",
    "LaunchedTemplate",
    "Wires",
    "explained",
    "launch",
    "launch_template",
    "open_wires",
    "restrict",
]


@dataclass(frozen=True, slots=True)
class Launched:
    """A worker process that was started, and the parent's ends of its pipes."""

    #: The process.
    process: WorkerProcess | ForkedProcess
    #: Descriptor to write the worker's stdin.
    stdin: int
    #: Descriptor to read the worker's stdout.
    stdout: int
    #: Descriptor to read the worker's stderr.
    stderr: int
    #: Descriptor that is held as long as the worker may live; see ``bridge/lifeline.py``.
    lifeline: int


@dataclass(frozen=True, slots=True)
class LaunchedTemplate:
    """A template process that was started, and the parent's ends to it."""

    #: The process.
    process: WorkerProcess
    #: The socket on which it is asked for workers.
    channel: socket.socket
    #: Descriptor to read its stderr.
    stderr: int


@dataclass(frozen=True, slots=True)
class Wires:
    """The pipes of one worker: stdin, stdout, stderr and its lifeline, in this order."""

    #: The parent's ends.
    near: tuple[int, int, int, int]
    #: The worker's ends.
    far: tuple[int, int, int, int]


#: What to do about an error of the system.
ADVICE: dict[int | None, str] = {
    **PROCESS_ADVICE,
    errno.EMFILE: "Raise the limit on open files (ulimit -n) or start fewer workers: each takes 5 descriptors.",
    errno.ENFILE: "The whole system has no descriptor left (fs.file-max).",
    errno.E2BIG: "Shorten the environment or the arguments.",
    errno.ENOEXEC: "It has no '#!' line and no format that this machine runs; name its interpreter in command.",
    errno.EACCES: "Make it an executable file (chmod +x), or name its interpreter in command.",
    errno.ENOENT: "Set command or python to a program that exists, and see that its '#!' line names one.",
}


def launch(options: SubprocessOptions, worker_id: str) -> Launched:
    """Start the process of ``worker_id``. Blocks for some milliseconds, so run it in a thread.

    Raises:
        WorkerStartError: It could not be started, or not with these options. Names what to change.
    """
    with explained(f"worker {worker_id}", worker_id), open_wires() as wires:
        command, environment = options.command_for(worker_id), options.environment() | options.places()
        *streams, lifeline = wires.far
        passed = []
        if options.command is None:  # another program would not know what it is for
            passed.append(lifeline)
            environment[LIFELINE_VARIABLE] = str(lifeline)
        process = _start(command, options, environment, streams, passed, with_limits=True)
        return Launched(process, *wires.near)


def launch_template(options: SubprocessOptions, environment: Mapping[str, str]) -> LaunchedTemplate:
    """Start a template, with a socket as its stdin and stdout. Blocks for some milliseconds: run it in a thread.

    Args:
        options: How its workers are to be started.
        environment: Its whole environment.

    Raises:
        WorkerStartError: It could not be started. Names what to change.
    """
    with (
        explained("the template", None),
        contextlib.ExitStack() as on_failure,
        contextlib.ExitStack() as far_ends,
    ):
        channel, far_channel = _open_sockets()
        _close_later(far_ends, far_channel.fileno(), on_failure, channel.fileno())
        stderr, far_stderr = _open_pipe()
        _close_later(far_ends, far_stderr, on_failure, stderr)
        streams = (far_channel.fileno(), far_channel.fileno(), far_stderr)
        # Limits are for workers; the processor time of an import is not theirs.
        environment = {**environment, **options.places()}
        process = _start(options.template_command(), options, environment, streams, (), with_limits=False)
        on_failure.pop_all()
    return LaunchedTemplate(process, channel, stderr)


@contextlib.contextmanager
def explained(what: str, worker_id: str | None) -> Iterator[None]:
    """Have what goes wrong in the block raise ``WorkerStartError``, which says that ``what`` could not be started."""
    try:
        yield
    except _CannotStartError as exc:
        raise WorkerStartError(f"{what} could not be started: {exc}", worker_id=worker_id) from exc.__cause__


class _CannotStartError(Exception):
    """What is wrong and what to change, in words; its cause is the system's error."""


@contextlib.contextmanager
def open_wires() -> Iterator[Wires]:
    """Open the pipes of a worker. The far ends are closed with the block; the near ends too, if it fails."""
    with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as far_ends:
        far_stdin, stdin = _open_pipe()
        _close_later(far_ends, far_stdin, on_failure, stdin)
        stdout, far_stdout = _open_pipe()
        _close_later(far_ends, far_stdout, on_failure, stdout)
        stderr, far_stderr = _open_pipe()
        _close_later(far_ends, far_stderr, on_failure, stderr)
        far_lifeline, lifeline = _open_pipe()
        _close_later(far_ends, far_lifeline, on_failure, lifeline)
        grow_pipe(stdin)
        grow_pipe(stdout)
        yield Wires((stdin, stdout, stderr, lifeline), (far_stdin, far_stdout, far_stderr, far_lifeline))
        on_failure.pop_all()


def _open_pipe() -> tuple[int, int]:
    with _opening("pipe"):
        ends = os.pipe()
        for end in ends:
            hold(end, functools.partial(os.close, end))
    return ends


def _open_sockets() -> tuple[socket.socket, socket.socket]:
    with _opening("socket"):
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ends:
            hold(end.fileno(), end.close)
    return ends


@contextlib.contextmanager
def _opening(what: str) -> Iterator[None]:
    """Open something in the block, and have it held there; if it cannot be opened, say what to change."""
    with no_fork:
        try:
            yield
        except OSError as exc:
            advice = ADVICE.get(exc.errno, "")
            raise _CannotStartError(f"no {what} can be opened ({exc.strerror}). {advice}") from exc


def _close_later(
    far_ends: contextlib.ExitStack, far_end: int, on_failure: contextlib.ExitStack, near_end: int
) -> None:
    far_ends.callback(release, far_end)
    on_failure.callback(release, near_end)


def _start(
    command: Sequence[str],
    options: SubprocessOptions,
    environment: Mapping[str, str],
    streams: Sequence[int],
    passed: Sequence[int],
    *,
    with_limits: bool,
) -> WorkerProcess:
    popen = _popen(command, options.cwd, environment, streams, passed)
    try:
        restrict(popen.pid, options, with_limits=with_limits)
        return WorkerProcess(popen, open_exit_descriptor(popen.pid))
    except BaseException:
        _destroy(popen)
        raise


def restrict(pid: int, options: SubprocessOptions, *, with_limits: bool = True) -> None:
    """Give a process that was just started its nice value and its limits."""
    _set_nice(pid, options.nice)
    if with_limits:
        _set_limits(pid, options)


def _popen(
    command: Sequence[str],
    cwd: str | None,
    environment: Mapping[str, str],
    streams: Sequence[int],
    passed: Sequence[int],
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    try:
        # Popen waits for the end of a pipe of its own, which a fork in between would hold as long as it runs.
        with no_fork:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=environment,
                close_fds=True,
                pass_fds=passed,
                start_new_session=True,
            )
    except OSError as exc:
        raise _CannotStartError(_explain(exc, command[0], cwd)) from exc
    except (TypeError, ValueError) as exc:
        raise _CannotStartError(f"its command, cwd or environment cannot be passed on ({exc})") from exc


def _explain(exc: OSError, program: str, cwd: str | None) -> str:
    if cwd is not None and exc.filename == cwd:
        return f"its working directory {cwd!r} cannot be entered ({exc.strerror}). Set worker_cwd to a directory."
    advice = ADVICE.get(exc.errno, "")
    return f"{program!r} cannot be executed ({exc.strerror}). {advice}"


def _destroy(popen: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()


def _set_nice(pid: int, nice: int | None) -> None:
    if nice is None:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    except OSError as exc:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        raise _CannotStartError(
            f"nice={nice} is refused ({exc.strerror}). Without privileges it must be {own} or more, "
            "as this process has."
        ) from exc


def _set_limits(pid: int, options: SubprocessOptions) -> None:
    for key, value in _wanted_limits(options).items():
        _set_limit(pid, key, value)


def _wanted_limits(options: SubprocessOptions) -> dict[str, int]:
    keys = ("limit_address_space", "limit_cpu_seconds", "limit_open_files")
    limits = {key: getattr(options, key) for key in keys}
    return {key: value for key, value in limits.items() if value is not None}


def _set_limit(pid: int, key: str, value: int) -> None:
    if sys.platform == "linux":
        kind = {
            "limit_address_space": resource.RLIMIT_AS,
            "limit_cpu_seconds": resource.RLIMIT_CPU,
            "limit_open_files": resource.RLIMIT_NOFILE,
        }[key]
        allowed = resource.getrlimit(kind)[1]
        # One second apart, if there is room: SIGXCPU tells the cause in the exit status, SIGKILL comes if
        # the worker ignores it.
        apart = kind == resource.RLIMIT_CPU and allowed != value
        try:
            resource.prlimit(pid, kind, (value, value + apart))
        except (OSError, ValueError, OverflowError) as exc:
            raise _CannotStartError(
                f"{key}={value} is refused ({exc}). Ask for no more than {allowed}, this process's hard limit."
            ) from exc
    else:  # pragma: no cover - other systems have no prlimit
        raise _CannotStartError(f"{key} works on Linux only. Leave it out, or set the limit in this process.")
