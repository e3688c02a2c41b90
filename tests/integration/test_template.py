"""Workers that are forked from a template: each is a process of its own, and the template is no burden to them."""

from __future__ import annotations

import errno
import functools
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio
import trio.testing

from dspex_pool import PoolConfig, WorkerPool, worker_life
from dspex_pool.errors import InvalidConfigError, WorkerDiedError, WorkerStartError
from dspex_pool.supervisor import ports_for
from dspex_pool.transport import template as template_module
from dspex_pool.transport import template_fork, template_process
from dspex_pool.transport.port import ExitStatus
from dspex_pool.transport.subprocess import SubprocessOptions
from dspex_pool.transport.template import TemplatePortFactory
from tests.bounded_waits import has_ended, until
from tests.integration import worker_pools
from tests.integration.worker_pools import ECHO, patience
from tests.subprocess_children import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sys.platform != "linux", reason="templates take pidfd and SOCK_SEQPACKET, which Linux has"
    ),
]

CALM: dict[str, Any] = {
    "health_check_interval": None,
    "backoff_min": 0.05,
    "backoff_max": 0.2,
    "max_starting": 8,
}

#: A handler that tells what a fork might share with others.
FACTS = """
import os, random, sys, tempfile, threading
from dspex_pool.bridge.handler import Handler, command
print("imported", os.getpid(), file=sys.stderr)
print("half a line", end="")
print("half a line", end="", file=sys.stderr)
class Facts(Handler):
    @command
    def facts(self, args):
        return {
            "random": random.random(),
            "session": os.getsid(0) == os.getpid(),
            "parent": os.getppid(),
            "descriptors": [os.readlink(f"/proc/self/fd/{fd}") for fd in sorted(os.listdir("/proc/self/fd"))[:-1]],
            "environment": os.environ.get("GIVEN_LATER"),
            "worker_id": self.context.worker_id,
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
        }
    @command
    def say(self, args):
        print(args["text"], file=sys.stderr)
        print(args["text"], flush=True)
        return {}
"""


def options_for(source: str, folder: Path, **options: Any) -> SubprocessOptions:
    """Return options for workers whose handler is the last class of ``source``."""
    (folder / "forked_handler.py").write_text(source)
    name = source.rpartition("class ")[2].partition("(")[0]
    return SubprocessOptions(handler=f"forked_handler:{name}", cwd=str(folder), **options)


async def refused(source: str, folder: Path, *, match: str) -> None:
    """See that a template of ``source`` gives no worker, and that the error says why."""
    with patience():
        async with TemplatePortFactory(options_for(source, folder)) as ports:
            with pytest.raises(WorkerStartError, match=match):
                await ports.open(worker_id="w-1", incarnation=1)


@asynccontextmanager
async def forked(options: SubprocessOptions | None = None, **settings: Any) -> AsyncIterator[WorkerPool]:
    """Open a pool of forked echo workers, or of others, and see in the end that no process is left."""
    ports = TemplatePortFactory(options or SubprocessOptions(handler=ECHO))
    with patience():
        async with WorkerPool(ports, **(CALM | {"pool_size": 1} | settings)) as pool:
            yield pool
    assert not psutil.Process().children(recursive=True)


async def ask(pool: WorkerPool, command: str, args: dict[str, Any] | None = None) -> Any:
    """Run one command on any worker."""
    async with pool.checkout() as lease:
        return await lease.request(command, args)


def has_said(port: Any, text: str) -> bool:
    """Tell whether this, and nothing else, has come from the stderr of a worker."""
    return bool(port.stderr_tail == text)


def template_of(pool: WorkerPool) -> psutil.Process:
    """Return the one child of this process."""
    (child,) = psutil.Process().children()
    assert child.pid not in [worker.port.pid for worker in pool.workers()]
    return child


@pytest.mark.trio
async def test_patience_that_ends_fails_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the block and no more, so that a test that hung in it passed after 15 s."""
    monkeypatch.setattr(worker_pools, "PATIENCE", 0.0)
    with pytest.raises(trio.TooSlowError), patience():
        await trio.sleep_forever()


# --- a process of its own -------------------------------------------------------------------------------


@pytest.mark.trio
async def test_forks_share_nothing_but_their_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own session, random numbers, descriptors, stderr and name, and the environment of its start."""
    async with forked(options_for(FACTS, tmp_path, nice=5), pool_size=2) as pool:
        await pool.wait_ready(2)
        monkeypatch.setenv("GIVEN_LATER", "yes")
        pool.resize(3)
        await pool.wait_ready(3)
        found = []
        for worker in pool.workers():
            await worker.request("say", {"text": f"I am {worker.worker_id}"})
            found.append(await worker.request("facts", {}))
            said = f"I am {worker.worker_id}\n" * 2
            await until(
                functools.partial(has_said, worker.port, said), "its stderr came, and nothing of before"
            )
        assert len({facts["random"] for facts in found}) == 3
        assert {facts["parent"] for facts in found} == {template_of(pool).pid}
        assert [facts["worker_id"] for facts in found] == [worker.worker_id for worker in pool.workers()]
        assert [facts["environment"] for facts in found] == [None, None, "yes"]
        assert all(facts["session"] and facts["nice"] == 5 for facts in found)
        pipes = [name for facts in found for name in set(facts["descriptors"]) if name.startswith("pipe:")]
        assert len(pipes) == len(set(pipes)), "two workers have the same pipe"
        assert not [name for facts in found for name in facts["descriptors"] if name.startswith("socket:")]


@pytest.mark.trio
async def test_exit_status_of_a_fork_is_told_by_its_template() -> None:
    """The pool is not the parent of its workers, and knows all the same how they ended."""
    async with forked() as pool:
        await pool.wait_ready()
        first = pool.workers()[0]
        with pytest.raises(WorkerDiedError):
            await ask(pool, "exit", {"code": 3})
        await first.exited.wait()
        assert first.port.exit_status == ExitStatus(code=3)
        await pool.wait_ready()
        second = pool.workers()[0]
        assert second.port.pid is not None
        os.kill(second.port.pid, signal.SIGKILL)
        await second.exited.wait()
        assert second.port.exit_status == ExitStatus(signal=signal.SIGKILL)


@pytest.mark.trio
@pytest.mark.parametrize(
    "flag", [template_fork._SIGNAL_PROCESS_GROUP, 1 << 30], ids=["kernel 6.9", "older kernel"]
)
async def test_grandchildren_end_with_a_fork(flag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a forked worker has started does not outlive it, with or without signals to the group of a pidfd."""
    monkeypatch.setattr(template_fork, "_SIGNAL_PROCESS_GROUP", flag)
    async with forked() as pool:
        grandchild = (await ask(pool, "spawn_grandchild", {"ignore_sigterm": True}))["pid"]
        worker = pool.workers()[0]
        assert not has_ended(grandchild)
        worker.port.kill()
        await worker.exited.wait()
        await until(lambda: has_ended(grandchild), "the grandchild is gone")


@pytest.mark.trio
async def test_fork_has_little_memory_of_its_own() -> None:
    """After a prediction, under 12 MiB are the worker's alone, where a worker that imports DSPy itself has 40."""
    lm, question = {"model": "dspex/extractive"}, {"question": "Who?", "context": "Ann is here."}
    async with forked(SubprocessOptions()) as pool, pool.checkout() as lease:
        for command, args in (
            ("configure_lm", lm),
            ("create_program", {"id": "p", "signature": "question, context -> answer"}),
            ("execute_program", {"program_id": "p", "inputs": question}),
        ):
            answer = await lease.request(command, {**args, "session_id": "s"})
        assert answer["outputs"]["answer"]
        own = psutil.Process(lease.worker.port.pid).memory_full_info().uss
        assert own < 12 * 2**20, f"{own / 2**20:.1f} MiB"


@pytest.mark.trio
async def test_group_of_a_fork_is_killed_before_it_is_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The template keeps the zombie until then, so that its number can belong to nobody else."""
    states = []
    real = signal.pidfd_send_signal

    def note(descriptor: int, *details: Any) -> None:
        states.append((psutil.Process(port.pid).status(), *details))
        real(descriptor, *details)

    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            port = await ports.open(worker_id="w-1", incarnation=1)
            monkeypatch.setattr(signal, "pidfd_send_signal", note)
            port.send_eof()
            assert await port.attend() == ExitStatus(code=0)
            port.kill()
            port.interrupt()
    flag = template_fork._SIGNAL_PROCESS_GROUP
    assert states[0] == (psutil.STATUS_ZOMBIE, signal.SIGKILL, None, flag)
    # The second, where no group is left, goes to the zombie itself. After the reaping there is none.
    assert len(states) <= 2


@pytest.mark.trio
async def test_fifty_forks_leave_nothing() -> None:
    """Neither descriptors here or in the template, nor processes."""
    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-0", incarnation=0))
            template = psutil.Process(ports.template_pid)
            before = psutil.Process().num_fds(), template.num_fds()
            for number in range(50):
                await end(await ports.open(worker_id=f"w-{number}", incarnation=number))
            assert (psutil.Process().num_fds(), template.num_fds()) == before
            assert not template.children()


# --- the template's own end -------------------------------------------------------------------------------


@pytest.mark.trio
async def test_template_that_dies_is_replaced_and_its_workers_live_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Their pool keeps them; of how they end, only that is known which the system still tells."""
    async with forked() as pool:
        await pool.wait_ready()
        worker, template = pool.workers()[0], template_of(pool)
        template.kill()
        await until(lambda: psutil.Process().children() not in ([], [template]), "there is another template")
        assert (await ask(pool, "process"))["pid"] == worker.port.pid
        pool.resize(2)
        await pool.wait_ready(2)
        worker.port.kill()
        await worker.exited.wait()
        assert worker.port.exit_status == ExitStatus()
        assert str(worker.port.exit_status) == "exit status unknown: the template that forked it has ended"
        await pool.wait_ready(2)
    assert f"the template (pid {template.pid}) has ended" in caplog.text


@pytest.mark.trio
async def test_template_that_died_unused_is_replaced_when_a_worker_is_wanted() -> None:
    """Templates that die as soon as they are ready followed each other without a pause, and without any need."""
    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            used = ports._template
            assert used is not None
            assert used.pid is not None
            os.kill(used.pid, signal.SIGKILL)
            await until(
                lambda: ports._template not in (None, used), "the one that was used is replaced at once"
            )
            unused = ports._template
            assert unused is not None
            await until(lambda: unused.was_ready, "the next is ready")
            assert unused.pid is not None
            os.kill(unused.pid, signal.SIGKILL)
            await unused.ended.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert ports._running == set()
            await end(await ports.open(worker_id="w-2", incarnation=2))


@pytest.mark.trio
async def test_pool_that_is_cancelled_ends_its_template() -> None:
    """Trio found its nurseries in disorder, because that of the factory was never left."""
    with trio.CancelScope() as scope:
        async with forked() as pool:
            await pool.wait_ready()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not psutil.Process().children(recursive=True)


@pytest.mark.trio
async def test_template_that_cannot_be_replaced_at_once_costs_no_pool(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that removed a variable, just as they were read for a new template, cancelled the pool's block."""

    def race(_: SubprocessOptions) -> dict[str, str]:
        raise KeyError("REMOVED_BY_A_THREAD")

    async with forked() as pool:
        await pool.wait_ready()
        with monkeypatch.context() as patch:
            patch.setattr(SubprocessOptions, "environment", race)
            template_of(pool).kill()
            await until(lambda: "REMOVED_BY_A_THREAD" in caplog.text, "it could not be replaced")
        assert await ask(pool, "echo", {"n": 1}) == {"n": 1}
        pool.resize(2)
        await pool.wait_ready(2)


@pytest.mark.trio
async def test_template_is_replaced_when_the_options_change(tmp_path: Path) -> None:
    """Workers of then and of now live side by side; the old template ends with the last of its own."""
    ports = TemplatePortFactory(SubprocessOptions(handler=ECHO))
    with patience():
        async with WorkerPool(ports, **CALM, pool_size=1) as pool:
            await pool.wait_ready()
            first, old = pool.workers()[0], template_of(pool)
            ports.options = options_for(FACTS, tmp_path)
            pool.resize(2)
            await pool.wait_ready(2)
            assert (await pool.workers()[1].request("facts", {}))["parent"] == ports.template_pid != old.pid
            assert await first.request("echo", {"n": 1}) == {"n": 1}
            first.port.kill()
            await first.exited.wait()
            assert first.port.exit_status == ExitStatus(signal=signal.SIGKILL)
            await until(lambda: has_ended(old.pid), "the old template is gone")


@pytest.mark.trio
async def test_drained_pool_imports_anew(tmp_path: Path) -> None:
    """New code is what the next generation runs, as with workers that are started one by one."""
    async with forked(options_for(FACTS, tmp_path)) as pool:
        assert (await ask(pool, "facts"))["worker_id"]
        (tmp_path / "forked_handler.py").write_text(
            FACTS.replace('"random": random.random()', '"random": "new"')
        )
        pool.drain()
        await until(lambda: pool.statistics().idle == 1, "the next generation is there")
        assert (await ask(pool, "facts"))["random"] == "new"


@pytest.mark.trio
async def test_template_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks a stopped template is told so within a bound, and the next worker comes from another one."""
    monkeypatch.setattr(template_process, "_ANSWER_TIMEOUT", 0.2)
    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            port = await ports.open(worker_id="w-1", incarnation=1)
            assert ports.template_pid is not None
            os.kill(ports.template_pid, signal.SIGSTOP)
            with pytest.raises(WorkerStartError, match=r"has not answered within 0\.2 s"):
                await ports.open(worker_id="w-2", incarnation=2)
            port.kill()
            await port.attend()
            monkeypatch.undo()
            await end(await ports.open(worker_id="w-3", incarnation=3))


@pytest.mark.trio
async def test_pool_closes_in_time_and_whole_beside_a_template_that_is_stopped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked again to reap, with the pool's last patience, it was given all of its time anew: nothing was reaped."""
    assert template_process._ANSWER_TIMEOUT < worker_life.REAP_TIMEOUT
    monkeypatch.setattr(template_process, "_ANSWER_TIMEOUT", 0.8)
    monkeypatch.setattr(worker_life, "REAP_TIMEOUT", 0.8)
    before = psutil.Process().num_fds()
    async with forked(terminate_grace=0.1, close_timeout=0.4) as pool:
        await pool.wait_ready()
        template_of(pool).suspend()
        begun = trio.current_time()
    assert trio.current_time() - begun < 1.5
    assert "could not be reaped" not in caplog.text
    assert psutil.Process().num_fds() == before


# --- refusals ------------------------------------------------------------------------------------------------

HANDLER = """
from dspex_pool.bridge.handler import Handler
class Opened(Handler):
    pass
"""

HAZARDS = {
    "thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='t-9', daemon=True).start()",
        "1 thread beside the main one .'t-9'",
    ),
    "sqlite": (
        "import sqlite3\nc = sqlite3.connect('cache.db')\nc.execute('create table t (a)')",
        "a cache or another file that is open for writing .*cache.db",
    ),
    "sqlite, read only": (
        "import sqlite3\nsqlite3.connect('a.db').execute('create table t (a)')\n"
        "c = sqlite3.connect('file:a.db?mode=ro', uri=True)\nc.execute('select * from t')",
        "an open database .*a.db",
    ),
    "event loop": (
        "import asyncio\nloop = asyncio.new_event_loop()",
        "an open pipe or event loop .*; an open socket",
    ),
    "error": (
        "raise ValueError('no luck')",
        "handler forked_handler:Opened cannot be used: ValueError.'no luck'",
    ),
    "end": ("import os; os._exit(7)", "ended while it warmed up .exit status 7"),
}


@pytest.mark.trio
@pytest.mark.parametrize("hazard", HAZARDS)
async def test_template_refuses_what_cannot_be_forked(hazard: str, tmp_path: Path) -> None:
    """With a thread, an open cache or an event loop no worker is forked; the error says what it was."""
    statement, words = HAZARDS[hazard]
    async with TemplatePortFactory(options_for(statement + HANDLER, tmp_path)) as ports:
        with patience(), pytest.raises(WorkerStartError, match=words) as caught:
            await ports.open(worker_id="w-7", incarnation=1)
    assert str(caught.value).startswith("worker w-7 could not be started: its template")
    assert ("forked_handler.py" in caught.value.stderr_tail) == (hazard == "error"), "where it is, too"
    assert not psutil.Process().children()


SPOILT_LATER = """
import signal, threading, time
from dspex_pool.bridge.handler import Handler
class Opened(Handler):
    @classmethod
    def warm_up(cls):
        begin = lambda *_: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        signal.signal(signal.SIGUSR1, begin)
"""


@pytest.mark.trio
async def test_template_that_is_spoilt_later_is_replaced(tmp_path: Path) -> None:
    """A thread that begins after the first fork is seen before the next; then another template is asked."""
    with patience():
        async with TemplatePortFactory(options_for(SPOILT_LATER, tmp_path)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            template = psutil.Process(ports.template_pid)
            template.send_signal(signal.SIGUSR1)
            await until(lambda: template.num_threads() > 1, "the thread runs")
            with pytest.raises(WorkerStartError, match="did not fork: it has 1 thread beside the main one"):
                await ports.open(worker_id="w-2", incarnation=2)
            await end(await ports.open(worker_id="w-3", incarnation=3))
            await until(lambda: has_ended(template.pid), "the spoilt template is gone")


@pytest.mark.trio
async def test_start_that_is_refused_leaves_the_template_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that nobody may set, or an environment too long for a packet: told, undone, and the next one starts."""
    wanted = SubprocessOptions(handler=ECHO, limit_open_files=64)
    with patience():
        async with TemplatePortFactory(wanted) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            template = psutil.Process(ports.template_pid)
            with monkeypatch.context() as patch:
                patch.setattr(resource, "prlimit", refuse)
                with pytest.raises(
                    WorkerStartError, match=r"worker w-2 could not .* limit_open_files=64 is refused"
                ):
                    await ports.open(worker_id="w-2", incarnation=2)
            with monkeypatch.context() as patch:
                patch.setenv("LONG", "x" * 1_000_000)
                with pytest.raises(WorkerStartError, match="bytes of environment have changed"):
                    await ports.open(worker_id="w-3", incarnation=3)
            with monkeypatch.context() as patch:
                # Bytes that are no UTF-8 left as UnicodeEncodeError.
                patch.setenv("ODD", "\udcff")
                with pytest.raises(WorkerStartError, match=r"environment .* no UTF-8.* Renew the template"):
                    await ports.open(worker_id="w-3", incarnation=3)
            assert not template.children()
            port = await ports.open(worker_id="w-4", incarnation=4)
            assert resource.prlimit(port.pid, resource.RLIMIT_NOFILE)[0] == 64
            await end(port)
            assert ports.template_pid == template.pid


@pytest.mark.trio
@pytest.mark.parametrize("left", range(5))
async def test_template_without_descriptors_says_so_and_stays(left: int) -> None:
    """At its own limit on open files a template died, or forked workers whose streams were mixed up."""
    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            template = psutil.Process(ports.template_pid)
            before = template.rlimit(psutil.RLIMIT_NOFILE)
            highest = max(int(entry.name) for entry in Path(f"/proc/{template.pid}/fd").iterdir())
            template.rlimit(psutil.RLIMIT_NOFILE, (highest + 1 + left, before[1]))
            with pytest.raises(WorkerStartError, match=r"worker w-2 .* limit on open files"):
                await ports.open(worker_id="w-2", incarnation=2)
            template.rlimit(psutil.RLIMIT_NOFILE, before)
            await end(await ports.open(worker_id="w-3", incarnation=3))
            assert ports.template_pid == template.pid


@pytest.mark.trio
async def test_template_that_ends_by_itself_is_told_with_its_own_status(tmp_path: Path) -> None:
    """It was killed while it ended, so that a handler that exits at import was told as killed by signal 9."""
    source = "import atexit, sys, time\natexit.register(time.sleep, 0.05)\nsys.exit(3)\nclass Exiting():\n    pass\n"
    await refused(source, tmp_path, match=r"while it warmed up \(exit status 3\)")


@pytest.mark.trio
async def test_template_whose_import_hangs_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was kept as long as the pool, which never healed, although what the import had waited for was back."""
    (tmp_path / "hang").touch()
    source = (
        "import pathlib, time\nfrom dspex_testkit.children.echo import EchoHandler\n"
        "time.sleep(600 * pathlib.Path('hang').exists())\nclass Slow(EchoHandler):\n    pass\n"
    )
    with patience():
        async with TemplatePortFactory(options_for(source, tmp_path), warm_up_timeout=0.2) as ports:
            with pytest.raises(
                WorkerStartError, match=r"worker w-1 .* not imported the handler within 0\.2 s"
            ):
                await ports.open(worker_id="w-1", incarnation=1)
            assert "its template has not imported the handler within 0.2 s (pid " in caplog.text
            (tmp_path / "hang").unlink()
            ports.warm_up_timeout = 60
            await end(await ports.open(worker_id="w-2", incarnation=2))


def test_template_has_the_time_of_several_starts_to_import() -> None:
    """A pool's template had any time."""
    ports = ports_for(PoolConfig(start_method="template", spawn_timeout=5))
    assert isinstance(ports, TemplatePortFactory)
    assert ports.warm_up_timeout == 20


@pytest.mark.trio
async def test_template_that_cannot_look_at_itself_says_what_to_do(tmp_path: Path) -> None:
    """Without ``/proc`` it ended with a stack trace, and nothing told of the start method that needs none."""
    source = (
        "import os\nfrom dspex_testkit.children.echo import EchoHandler\n"
        "def missing(folder):\n    raise FileNotFoundError(2, 'No such file or directory', folder)\n"
        "os.listdir = missing\nclass Blind(EchoHandler):\n    pass\n"
    )
    await refused(source, tmp_path, match=r"refuses .*/proc/self/task.* start_method to spawn")


@pytest.mark.trio
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("fork", errno.EAGAIN, r"refused: .*pids\.max"),
        ("fork", errno.EPERM, r"refused: Operation not permitted\.$"),
        ("pidfd_open", errno.EMFILE, r"no descriptor .* limit on open files"),
    ],
)
async def test_refused_fork_is_told_with_the_cure(call: str, error: int, words: str, tmp_path: Path) -> None:
    """At the limit on processes a template said only that the resource is temporarily unavailable.

    A fork that nobody could watch is undone.
    """
    source = (
        "import os\nfrom dspex_testkit.children.echo import EchoHandler\n"
        f"def refuse(*_):\n    raise OSError({error}, os.strerror({error}))\n"
        f"os.{call} = refuse\nclass Refusing(EchoHandler):\n    pass\n"
    )
    with patience():
        async with TemplatePortFactory(options_for(source, tmp_path)) as ports:
            with pytest.raises(WorkerStartError, match=f"worker w-1 .*{words}"):
                await ports.open(worker_id="w-1", incarnation=1)
            assert not psutil.Process(ports.template_pid).children()


@pytest.mark.trio
async def test_template_forks_whatever_its_imports_did_to_the_standard_streams(tmp_path: Path) -> None:
    """An import that took stdout away, or closed stderr, ended each template at its first fork, without a word."""
    async with forked(options_for(FACTS + "sys.stdout = None\nsys.stderr.close()\n", tmp_path)) as pool:
        assert (await ask(pool, "facts"))["worker_id"] == "w-1"


@pytest.mark.trio
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), r"start new thread.*ulimit -u"),
        (LookupError("odd"), r"its template failed: LookupError\('odd'\)"),
    ],
    ids=["no thread", "odd"],
)
async def test_template_that_cannot_be_started_is_a_failed_start(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody expected in the start of a template cancelled the pool's block, and its end never came."""

    def refuse_start(*_: object) -> None:
        raise error

    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            with monkeypatch.context() as patch:
                patch.setattr(template_process, "launch_template", refuse_start)
                with pytest.raises(WorkerStartError, match=f"worker w-1 .* {words}"):
                    await ports.open(worker_id="w-1", incarnation=1)
            await end(await ports.open(worker_id="w-2", incarnation=2))


def refuse(*_: object) -> None:
    """Refuse as the system does."""
    raise PermissionError("no")


def test_template_leaves_also_a_pool_that_did_not_read_its_last_answer(tmp_path: Path) -> None:
    """As one that was killed. The system then reports a reset instead of an end.

    The template ended by an error, with a traceback, and without ending what its imports had started.
    """
    (tmp_path / "starting.py").write_text(
        "import subprocess\nfrom dspex_testkit.children.echo import EchoHandler\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
    )
    pool, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = ["-m", "dspex_pool.bridge.template", "--handler", "starting:EchoHandler"]
    variables = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    with (tmp_path / "stderr").open("w+") as stderr, channel:
        template = subprocess.Popen(
            [sys.executable, *words],
            stdin=channel.fileno(), stdout=channel.fileno(), stderr=stderr, env=variables, start_new_session=True,
        )  # fmt: skip
        channel.close()
        poll = select.poll()
        poll.register(pool, select.POLLIN)
        assert poll.poll(30_000), "the template is not ready"
        (child,) = psutil.Process(template.pid).children()
        pool.close()
        assert template.wait(30) == 0
        assert child.wait(30) is None
        stderr.seek(0)
        assert stderr.read() == ""


def test_command_of_ones_own_is_no_template() -> None:
    """A template forks the bridge; another command is refused when the factory is made."""
    with pytest.raises(InvalidConfigError, match="command does not go with a template") as caught:
        TemplatePortFactory(SubprocessOptions(command=["worker"]))
    assert caught.value.key == "command"


def test_system_without_pidfd_has_no_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, with the way out."""
    monkeypatch.setattr(template_module, "_NEEDED", ((os, "fork"), (signal, "pidfd_open_of_tomorrow")))
    with pytest.raises(InvalidConfigError, match=r"no pidfd_open_of_tomorrow.* set start_method to spawn"):
        TemplatePortFactory()
