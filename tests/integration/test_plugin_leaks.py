"""The leak gate on leaks that were planted, some of each kind: it names each, and the line that opened it."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from textwrap import dedent

import pytest

from tests.cases import case

pytestmark = pytest.mark.integration

#: What is planted: the name of the test, its line, and how the gate names what is left.
LEAKS = {
    "child": ("KEPT.append(subprocess.Popen(['sleep', '60']))", "child process *: sleep 60"),
    "zombie": (
        "KEPT.append(subprocess.Popen(['true'])); time.sleep(0.1)",
        "zombie *: true, which has ended*",
    ),
    "fork": ("os.fork() or os.execvp('sleep', ['sleep', '61'])", "child process *: sleep 61"),
    "orphan": ("os.system('sleep 62 >/dev/null 2>&1 &')", "process of a process *: sleep 62"),
    "orphan_with_its_own_session": (
        "subprocess.run(['setsid', '-f', 'sleep', '63'], **MUTE)",
        "process of a process *: sleep 63",
    ),
    "orphan_without_environment": (
        "subprocess.run(['sh', '-c', 'sleep 64 & :'], env={}, start_new_session=True, **MUTE)",
        "process of a process *: sleep 64",
    ),
    "file": ("KEPT.append(open('/dev/null'))", "descriptor *: /dev/null"),
    "pipe": ("KEPT.append(os.pipe())", "descriptor *: pipe:*"),
    "socket": ("KEPT.append(socket.socketpair())", "descriptor *: socket:*"),
    "thread": (
        "threading.Thread(target=END.wait, name='forgotten', daemon=True).start()",
        "thread 'forgotten'",
    ),
    "temporary_file": ("os.close(tempfile.mkstemp(prefix='planted')[0])", "temporary file *planted*"),
    "temporary_folder": ("tempfile.mkdtemp(prefix='planted')", "temporary folder *planted*"),
    "file_of_a_name": (
        "(pathlib.Path(tempfile.gettempdir()) / 'named').touch()",
        "temporary file */named",
    ),
    "task": ("trio.run(spawn)", "task trio.sleep_forever, which outlived the run's own task"),
    "frame": ("trio.run(leave_unread)", "1 unread frames of worker w-7, whose port was not closed"),
    # The last: no other run can begin in its thread.
    "run": ("begin_a_run()", "a trio run that has not ended"),
}

PROJECT = """
    import os, pathlib, socket, subprocess, tempfile, threading, time
    import pytest, trio
    from dspex_pool.protocol.framing import encode_frame
    from dspex_testkit.mock_port import MockPort
    pytestmark = pytest.mark.integration
    KEPT, END = [], threading.Event()
    MUTE = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    async def spawn(): trio.lowlevel.spawn_system_task(trio_sleep_forever, name="trio.sleep_forever")
    async def trio_sleep_forever(): await trio.sleep_forever()
    async def leave_unread(): MockPort("w-7").inject(encode_frame(b"{}"))
    def begin_a_run():
        trio.lowlevel.start_guest_run(
            trio_sleep_forever, run_sync_soon_threadsafe=KEPT.append, done_callback=KEPT.append,
            host_uses_signal_set_wakeup_fd=True,
        )
"""


def test_every_planted_leak_is_named_with_its_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leak fails the test that left it, by what it is and where it was opened; no other test is accused."""
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("temporary")))
    tests = [
        f"def test_{name}():\n    {line}\ndef test_after_{name}(): pass\n"
        for name, (line, _) in LEAKS.items()
    ]
    pytester.makepyfile(test_planted=dedent(PROJECT) + "\n".join(tests))
    result = pytester.runpytest_subprocess("-p", "no:faker", "-p", "no:randomly", "-q", timeout=60)
    result.assert_outcomes(passed=2 * len(LEAKS), errors=len(LEAKS))
    told = dict(
        re.findall(r"LeakError: \S+::test_(\w+) left behind:\n((?:E {7,}.*\n)+)", result.stdout.str())
    )
    for name, (line, what) in LEAKS.items():
        with case(name):
            texts = [text.removeprefix("E").strip() for text in told[name].splitlines()]
            assert any(fnmatch(text, what) for text in texts), texts
            opened = [text for text in texts if re.match(r"(opened at|from) test_planted\.py:\d+ ", text)]
            assert any(text.endswith(f" in test_{name}: {line}") for text in opened), texts


def test_project_in_the_temporary_folder_may_write_its_own_files(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a library caches beside the tests was called a leak where the project itself was a temporary folder."""
    monkeypatch.setenv("TMPDIR", str(pytester.path.parent))
    pytester.makepyfile("""
        import os, pytest
        @pytest.mark.fast
        def test_caches(): os.mkdir("cache"); open("note", "w").close()
    """)
    pytester.runpytest_subprocess("-p", "no:faker").assert_outcomes(passed=1)
