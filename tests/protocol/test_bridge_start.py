"""How the bridge starts: what it loads, and what it says when it is started in a wrong way."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dspex_pool.protocol import encode_frame
from tests.bridge_process import ECHO, running_bridge

pytestmark = pytest.mark.protocol

PING = encode_frame(b'{"id": 0, "command": "ping", "args": {"protocol": 2}, "timestamp": ""}')


def loaded_by_first_ping(*words: str) -> set[str]:
    """Return the modules that a bridge has imported when it has answered its first ping."""
    command = [sys.executable, "-X", "importtime", "-m", "dspex_pool.bridge", *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(PING)
        process.stdin.flush()
        size = int.from_bytes(process.stdout.read(4), "big")
        assert b'"status":"ok"' in process.stdout.read(size)
        process.stdin.close()
        report = process.stderr.read().decode()
    return {
        line.rpartition("|")[2].strip() for line in report.splitlines() if line.startswith("import time:")
    }


def test_dspy_handler_loads_neither_dspy_nor_the_pool_for_its_first_answer() -> None:
    """The handshake costs the standard library and the codec, and the child stays another program."""
    loaded = loaded_by_first_ping("--mode", "pool-worker", "--worker-id", "w-1")
    assert "dspex_pool.bridge.signatures" in loaded
    top = {name.partition(".")[0] for name in loaded}
    assert not top & {
        "dspy",
        "trio",
        "outcome",
        "psutil",
        "typer",
        "rich",
        "pydantic",
        "asyncio",
        "dspex_testkit",
    }
    # Of the standard library, what is slow to import and serves people, archives or shells.
    assert not loaded & {"argparse", "gettext", "locale", "shutil", "subprocess", "importlib.metadata"}
    ours = {name for name in loaded if name.startswith("dspex_pool.")}
    allowed = ("dspex_pool.bridge", "dspex_pool.protocol", "dspex_pool.errors")
    assert {name for name in ours if not name.startswith(allowed)} == set()


def test_bridge_of_any_handler_loads_no_trio() -> None:
    """Seen from inside, after some commands."""
    with running_bridge() as bridge:
        bridge.ask("get_stats")
        loaded = set(bridge.ask("modules"))
    assert not loaded & {"trio", "dspy", "psutil", "dspex_pool.worker", "dspex_pool.transport"}


def run_to_its_end(*words: str) -> tuple[int, str, str]:
    """Run a bridge that is expected to end by itself; return its status, stdout and stderr."""
    command = [sys.executable, "-m", "dspex_pool.bridge", *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # Its stdin stays open meanwhile: the end of stdin is a reason to leave as well.
        status = process.wait(20)
        return status, process.stdout.read(), process.stderr.read()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--mode", "other"], "invalid choice: 'other'"),
        (["--max-frame-bytes", "10"], "10 is not between 1024 and 4294967295"),
        (["--max-frame-bytes", "many"], "invalid frame_limit value: 'many'"),
        (["--handler", "no colon"], "is not of the form package.module:name"),
        (["--handler", "dspex_testkit.children.nowhere:Class"], "cannot be imported"),
        (["--handler", "dspex_testkit.children.echo:Nobody"], "cannot be imported"),
        (["--handler", "builtins:dict"], "cannot be used"),
        (["--handler", "builtins:str"], "has no mapping named 'commands'"),
    ],
)
def test_wrong_start_is_refused_with_2_and_the_reason(words: list[str], problem: str) -> None:
    """Whoever starts the worker reads on stderr what to change (R87, R107)."""
    status, stdout, stderr = run_to_its_end(*words)
    assert status == 2
    assert problem in stderr
    assert "Traceback" not in stderr
    assert stdout == ""


def test_standalone_bridge_tells_its_mode_and_no_worker() -> None:
    """The mode is the command line's; a standalone worker has no name to tell."""
    with running_bridge("--mode", "standalone", handshake=False) as bridge:
        told = bridge.handshake()
        assert told["mode"] == "standalone"
        assert "worker_id" not in told


def test_numeric_libraries_get_one_thread_unless_the_environment_says_otherwise() -> None:
    """N workers do not start N times the cores in threads (R113)."""
    with running_bridge(env={"MKL_NUM_THREADS": "3"}) as bridge:
        assert bridge.ask("environment", name="BLIS_NUM_THREADS") == "1"
        assert bridge.ask("environment", name="MKL_NUM_THREADS") == "3"


def test_stand_in_for_stdout_is_made_once_unless_somebody_took_it_away() -> None:
    """A fork of a template goes on with the template's, which costs it no memory of its own."""
    code = (
        "import sys; from dspex_pool.bridge.process import claim_wires\n"
        "claim_wires(); first = sys.stdout; claim_wires(); assert sys.stdout is sys.__stdout__ is first\n"
        "sys.stdout = sys.__stdout__ = sys.stderr; claim_wires(); second = sys.stdout\n"
        "assert second is sys.__stdout__ and second is not first and second is not sys.stderr\n"
        "second.close(); claim_wires(); print('well')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.communicate(timeout=20) == (b"", b"well\n")


def test_help_is_for_people() -> None:
    """Whoever asks for help gets it on stdout, before that becomes the protocol."""
    status, stdout, _ = run_to_its_end("--help")
    assert status == 0
    assert "--worker-id" in stdout


def test_echo_handler_is_named_right() -> None:
    """The name by which others start it leads to it."""
    module, _, name = ECHO.partition(":")
    assert hasattr(__import__(module, fromlist=[name]), name)
