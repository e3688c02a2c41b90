"""Starting a worker process: with the options asked for, or not at all."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio

from dspex_pool.errors import WorkerStartError
from dspex_pool.transport.launch import launch
from dspex_pool.transport.options import SubprocessOptions
from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE, own_run_tag
from dspex_pool.transport.subprocess import SubprocessPortFactory
from tests.subprocess_children import child_command, running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.protocol

LINUX_LIMITS = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux sets the limits of another process"
)

#: Waits for one byte of stdin, so that what is set after the start is set, then sends what it finds.
REPORT = """
import json, os, resource
os.read(0, 5)
found = {
    "cwd": os.getcwd(),
    "env": dict(os.environ),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "limits": [
        resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)
    ],
}
payload = json.dumps(found).encode()
os.write(1, len(payload).to_bytes(4, "big") + payload)
"""


async def report(**options: Any) -> dict[str, Any]:
    """Start a worker with ``options`` and return what it finds itself in."""
    async with running(REPORT, **options) as port:
        await port.send(b"x")
        found: dict[str, Any] = json.loads(await port.receive())
    return found


def refusal(**options: Any) -> WorkerStartError:
    """Try to start a worker with ``options``, prove that nothing is left of it, and return the error."""
    options.setdefault("command", child_command("import time; time.sleep(600)"))
    process = psutil.Process()
    before = (process.num_fds(), process.children())
    with pytest.raises(WorkerStartError) as caught:
        launch(SubprocessOptions(**options), "w-7")
    assert (process.num_fds(), process.children()) == before
    assert caught.value.worker_id == "w-7"
    assert str(caught.value).startswith("worker w-7 could not be started: ")
    return caught.value


@pytest.mark.trio
async def test_worker_gets_directory_environment_and_session(tmp_path: Path) -> None:
    """A worker runs where and with what it was told, as the leader of its own session and group."""
    found = await report(cwd=str(tmp_path), env={"COLOUR": "blue", "OMP_NUM_THREADS": "2"})
    assert found["cwd"] == str(tmp_path.resolve())
    assert found["session"]
    assert found["env"]["COLOUR"] == "blue"
    assert found["env"]["OMP_NUM_THREADS"] == "2"
    assert found["env"]["LITELLM_LOCAL_MODEL_COST_MAP"] == "true"
    assert found["env"][RUN_TAG_VARIABLE] == own_run_tag()


@pytest.mark.trio
async def test_worker_gets_its_nice_value() -> None:
    """The worker yields to others as much as asked."""
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
    assert (await report(nice=nice))["nice"] == nice


@LINUX_LIMITS
@pytest.mark.trio
async def test_worker_gets_its_limits() -> None:
    """Limits hold before the first command can arrive; of CPU time the soft one comes a second earlier."""
    found = await report(limit_address_space=1 << 32, limit_cpu_seconds=77, limit_open_files=55)
    assert found["limits"] == [[1 << 32, 1 << 32], [77, 78], [55, 55]]


@pytest.mark.trio
async def test_worker_without_limits_has_those_of_the_parent() -> None:
    """What was not asked for is not changed."""
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)
    assert (await report())["limits"] == [list(resource.getrlimit(kind)) for kind in kinds]


def test_missing_program_is_named() -> None:
    """The error says which program is missing and which options choose it."""
    error = refusal(command=["no-such-program", "x"])
    assert "'no-such-program' cannot be executed" in str(error)
    assert "command or python" in str(error)
    assert isinstance(error.__cause__, FileNotFoundError)


def test_missing_interpreter_is_named() -> None:
    """The bridge's interpreter is chosen by ``python``; a wrong one is named."""
    assert "'/no/python' cannot be executed" in str(refusal(command=None, python="/no/python"))


def test_missing_directory_is_named(tmp_path: Path) -> None:
    """A wrong directory is not mistaken for a wrong program."""
    missing = str(tmp_path / "missing")
    said = str(refusal(cwd=missing))
    assert f"working directory '{missing}' cannot be entered" in said
    assert "Set worker_cwd" in said, "it named no setting of a pool"


def test_file_that_is_not_executable_is_named(tmp_path: Path) -> None:
    """The error says how a file is made a program."""
    script = tmp_path / "worker.py"
    script.write_text("print()")
    message = str(refusal(command=[str(script)]))
    assert "chmod +x" in message
    script.chmod(0o755)
    assert "'#!' line" in str(refusal(command=[str(script)]))


@pytest.mark.parametrize("options", [{"command": ["a\0b"]}, {"env": {"A=": "b"}}, {"cwd": "a\0b"}])
def test_what_no_process_can_be_given_is_refused(options: dict[str, Any]) -> None:
    """A null byte, or an equals sign in a variable's name: an error of ours, not a crash."""
    assert "cannot be passed on" in str(refusal(**options))


def test_refused_nice_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without privileges nobody becomes less nice; the worker that was started is ended."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refuse)
    assert "nice=-5 is refused (Permission denied)" in str(refusal(nice=-5))


@LINUX_LIMITS
@pytest.mark.parametrize(
    "error", [ValueError("not allowed to raise maximum limit"), PermissionError(errno.EPERM, "no")]
)
def test_refused_limit_is_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit above the parent's hard one is refused with its value; the worker is ended."""

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(resource, "prlimit", refuse)
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    message = str(refusal(limit_open_files=5))
    assert "limit_open_files=5 is refused" in message
    assert f"no more than {allowed}" in message


@LINUX_LIMITS
def test_limit_equal_to_the_parents_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second between the soft and the hard limit of CPU time is given up where there is no room."""
    asked = []

    def note(pid: int, kind: int, limits: tuple[int, int]) -> None:
        asked.append((kind, limits))
        raise ValueError("seen enough")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (90, 90))
    monkeypatch.setattr(resource, "prlimit", note)
    refusal(limit_cpu_seconds=90)
    refusal(limit_cpu_seconds=89)
    assert asked == [(resource.RLIMIT_CPU, (90, 90)), (resource.RLIMIT_CPU, (89, 90))]


@LINUX_LIMITS
def test_limit_no_system_knows_is_named() -> None:
    """A number too large for the system's interface is a clear error as well."""
    assert "limit_address_space=" in str(refusal(limit_address_space=1 << 70))


@pytest.mark.parametrize("opened", [0, 1, 2])
def test_exhausted_descriptors_are_told_with_the_cure(opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever pipe is the one too many, those before it are closed."""
    real, left = os.pipe, [opened]

    def pipe() -> tuple[int, int]:
        if not left[0]:
            raise OSError(errno.EMFILE, "Too many open files")
        left[0] -= 1
        return real()

    monkeypatch.setattr(os, "pipe", pipe)
    assert "ulimit -n" in str(refusal())


def test_exhausted_processes_are_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's refusal of another process says which limits to look at."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert "pids.max" in str(refusal())


@pytest.mark.trio
async def test_missing_thread_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit on processes a start failed with a bare RuntimeError, a stack trace in the log and no cure."""

    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    with pytest.raises(WorkerStartError, match=r"worker w-7 could not be started: can't .* pids\.max"):
        await SubprocessPortFactory().open(worker_id="w-7", incarnation=1)


def test_failure_after_the_start_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even an error that nobody foresaw leaves neither process nor descriptor behind."""

    def fail(pid: int) -> int:
        raise MemoryError

    monkeypatch.setattr("dspex_pool.transport.launch.open_exit_descriptor", fail)
    process = psutil.Process()
    before = (process.num_fds(), process.children())
    with pytest.raises(MemoryError):
        launch(SubprocessOptions(command=child_command("import time; time.sleep(600)")), "w-7")
    assert (process.num_fds(), process.children()) == before


#: A fork that is interrupted while it waits for a start in another thread.
INTERRUPTED_FORK = """
import os, threading, time
from dspex_pool.transport import host_forks
class Turn:
    def __init__(self):
        self.lock, self.interrupts = host_forks.no_fork, 1
    def acquire(self):
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return self.lock.acquire()
    def release(self):
        self.lock.release()
host_forks.no_fork = turn = Turn()
child = 0
try:
    child = os.fork()
    if not child:
        taken = []
        thread = threading.Thread(target=lambda: taken.append(turn.lock.acquire(timeout=5)))
        thread.start()
        thread.join()
        os._exit(0 if taken == [True] else 1)
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted, child", os.waitpid(-1, 0)[1])
"""


def test_interrupt_of_a_fork_that_waits_for_a_start_comes_after_it() -> None:
    """It was printed and gone, and the child could open no pool: it waited for ever for a start it had copied."""
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_FORK], capture_output=True, text=True, timeout=60, check=True
    )
    assert (ended.stdout, ended.stderr) == ("interrupted, child 0\n", "")
