"""A handler for the real bridge without DSPy: one command for each thing that a worker may do.

Start it as ``python -m dspex_pool.bridge --handler dspex_testkit.children.echo:EchoHandler``.
"""

from __future__ import annotations

import builtins
import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dspex_pool.bridge.handler import Answer, Handler, command

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EchoHandler"]

_LIBC = ctypes.CDLL(None)
#: The same functions, called without letting go of the interpreter's lock.
_LIBC_WITH_GIL = ctypes.PyDLL(None)

Args = dict[str, Any]


class EchoHandler(Handler):
    """Serves commands that echo, wait, print, fail and misbehave. Durations are in seconds."""

    capabilities: ClassVar[tuple[str, ...]] = ("echo",)

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._grandchildren: list[subprocess.Popen[bytes]] = []
        self._held: list[bytearray] = []

    def error_facts(self, error: BaseException) -> Mapping[str, Any]:
        """Return the facts that ``raise_error`` was told to give."""
        facts: Mapping[str, Any] = getattr(error, "told_facts", {})
        return facts

    # --- answers -------------------------------------------------------------------------------------

    @command
    def echo(self, args: Args) -> Args:
        """Return the args."""
        return args

    @command
    def big(self, args: Args) -> Args:
        """Return a text of ``bytes`` bytes: ``{data}``."""
        return {"data": "x" * int(args["bytes"])}

    @command
    def usage(self, args: Args) -> Answer:
        """Return the args as result and as usage."""
        return Answer(args, usage=args)

    @command
    def nan(self, args: Args) -> Args:
        """Return NaN in ``value``."""
        return {"value": float("nan")}

    @command
    def unencodable(self, args: Args) -> Args:
        """Return what JSON cannot carry in ``value``: ``kind`` is set, object, key, surrogate or deep."""
        deep: Any = None
        for _ in range(100_000 if args["kind"] == "deep" else 0):
            deep = [deep]
        values = {"set": {1}, "object": object(), "key": {1: 2}, "surrogate": "\udc80", "deep": deep}
        return {"value": values[args["kind"]]}

    @command
    def modules(self, args: Args) -> list[str]:
        """Return the names of all modules that are loaded."""
        return sorted(sys.modules)

    @command
    def process(self, args: Args) -> Args:
        """Return ``{pid, ppid, pgid, sid, descriptors, threads}``."""
        names = [thread.name for thread in threading.enumerate()]
        files = Path("/proc/self/fd")
        descriptors = {fd: str((files / fd).readlink()) for fd in "012"} if files.exists() else {}
        return {
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "pgid": os.getpgrp(),
            "sid": os.getsid(0),
            "descriptors": descriptors,
            "threads": names,
        }

    @command
    def environment(self, args: Args) -> str | None:
        """Return the environment variable ``name``."""
        return os.environ.get(args["name"])

    @command
    def read_stdin(self, args: Args) -> str:
        """Return what a program that reads ``sys.stdin`` finds there."""
        return sys.stdin.read()

    @command
    def emit(self, args: Args) -> list[bool]:
        """Tell of an event of kind ``event`` with ``data``, ``count`` times; return which were told."""
        count = int(args.get("count", 1))
        return [self.context.emit(args["event"], args.get("data", {})) for _ in range(count)]

    @command
    def log(self, args: Args) -> None:
        """Log ``message`` at ``level``, ``count`` times, on a ``thread`` of its own if that is true."""

        def write() -> None:
            for _ in range(int(args.get("count", 1))):
                logging.getLogger("echo").log(
                    getattr(logging, args.get("level", "INFO")), args["message"], *args.get("arguments", ())
                )

        if args.get("thread"):
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
        else:
            write()

    @command
    def add_secret(self, args: Args) -> None:
        """Take ``value`` for a secret."""
        self.context.secrets.add(args["value"])

    # --- waiting -------------------------------------------------------------------------------------

    @command
    def sleep(self, args: Args) -> Args:
        """Sleep for ``seconds``, in a way that can be interrupted; return the args."""
        time.sleep(float(args["seconds"]))
        return args

    @command
    def sleep_in_c(self, args: Args) -> Args:
        """Sleep for whole ``seconds`` in the C library, without the interpreter's lock; return the args."""
        deadline = time.monotonic() + float(args["seconds"])
        while (left := deadline - time.monotonic()) > 0:
            _LIBC.sleep(max(1, round(left)))  # a signal ends it early
        return args

    @command
    def hang_in_c(self, args: Args) -> None:
        """Wait for ever in the C library, where no signal interrupts: lock a mutex twice."""
        mutex = ctypes.create_string_buffer(256)  # zeroed is unlocked; larger than any platform's
        _LIBC.pthread_mutex_init(mutex, None)
        _LIBC.pthread_mutex_lock(mutex)
        _LIBC.pthread_mutex_lock(mutex)

    @command
    def hold_gil(self, args: Args) -> Args:
        """Sleep for whole ``seconds`` with the interpreter's lock held: every thread stands still.

        Says ``holding`` on stderr when it begins.
        """
        # Blocked here, signals go to another thread and do not end the sleep.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            _LIBC_WITH_GIL.write(2, b"holding\n", 8)
            _LIBC_WITH_GIL.sleep(int(args["seconds"]))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return args

    @command
    def spin(self, args: Args) -> Args:
        """Compute in Python for ``seconds``; return the args."""
        deadline = time.monotonic() + float(args["seconds"])
        while time.monotonic() < deadline:
            pass
        return args

    @command
    def swallow(self, args: Args) -> Args:
        """Sleep for ``seconds``, swallow an interrupt, and return ``{swallowed}``."""
        try:
            time.sleep(float(args["seconds"]))
        except KeyboardInterrupt:
            return {"swallowed": True}
        return {"swallowed": False}

    @command
    def translate(self, args: Args) -> None:
        """Sleep for ``seconds``, and raise an error of its own when interrupted."""
        try:
            time.sleep(float(args["seconds"]))
        except KeyboardInterrupt as error:
            raise RuntimeError("stopped on the way") from error

    @command
    def shielded(self, args: Args) -> Args:
        """Announce an event and sleep for ``seconds`` where cancellation waits."""
        with self.context.shield():
            self.context.emit("progress", {"shielded": True})
            time.sleep(float(args["seconds"]))
            self.context.emit("progress", {"shielded": False})
        return args

    @command
    def announce_and_sleep(self, args: Args) -> Args:
        """Tell of a ``progress`` event, then sleep for ``seconds``; return the args."""
        self.context.emit("progress", {"sleeping": True})
        return self.sleep(args)

    # --- processes, signals and streams --------------------------------------------------------------

    @command
    def block_signals(self, args: Args) -> Args:
        """Ignore SIGINT and SIGTERM, or the ``signals`` given by name, from now on."""
        for name in args.get("signals", ["SIGINT", "SIGTERM"]):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        return args

    @command
    def print_python(self, args: Args) -> None:
        """Print ``text`` with Python."""
        print(args["text"], end=args.get("end", "\n"))

    @command
    def print_c(self, args: Args) -> None:
        """Print ``text`` with the C library, on its buffered ``stdout``."""
        _LIBC.puts(str(args["text"]).encode())
        _LIBC.fflush(None)

    @command
    def print_fd(self, args: Args) -> None:
        """Write ``text`` to descriptor 1."""
        os.write(1, str(args["text"]).encode())

    @command
    def spawn_grandchild(self, args: Args) -> Args:
        """Start a process that prints ``text`` and sleeps for ``seconds`` (60); return ``{pid}``.

        It ignores SIGTERM if ``stubborn`` is true.
        """
        trap = "trap '' TERM; " if args.get("stubborn") else ""
        script = f'{trap}printf %s "$1"; echo ready >&2; exec sleep "$2"'
        words = ["/bin/sh", "-c", script, "sh", str(args.get("text", "")), str(args.get("seconds", 60))]
        self._grandchildren.append(subprocess.Popen(words))
        return {"pid": self._grandchildren[-1].pid}

    @command
    def fork(self, args: Args) -> Args:
        """Fork a child that sleeps for ``seconds`` without starting another program; return ``{pid}``.

        It logs ``text`` first, if there is one, and ends with ``status``.
        """
        pid = os.fork()
        if pid == 0:
            if "text" in args:
                logging.getLogger("echo").info("%s", args["text"])
            time.sleep(float(args["seconds"]))
            os._exit(int(args.get("status", 0)))
        return {"pid": pid}

    @command
    def wait_child(self, args: Args) -> int:
        """Wait for the child ``pid``; return its exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(int(args["pid"]), 0)[1])

    @command
    def flood_stderr(self, args: Args) -> None:
        """Write ``bytes`` bytes to stderr, in lines."""
        line = "e" * 79 + "\n"
        for _ in range(int(args["bytes"]) // len(line) + 1):
            sys.stderr.write(line)

    @command
    def write_file(self, args: Args) -> None:
        """Write ``bytes`` bytes to a file without a name in ``folder``."""
        with tempfile.TemporaryFile(dir=args["folder"]) as file:
            file.write(bytes(int(args["bytes"])))

    @command
    def hold_memory(self, args: Args) -> None:
        """Allocate ``bytes`` bytes, touch them, and keep them."""
        self._held.append(bytearray(int(args["bytes"])))

    # --- failing -------------------------------------------------------------------------------------

    @command
    def raise_error(self, args: Args) -> None:
        """Raise the built-in exception ``type`` (``RuntimeError``) with ``message`` and ``facts``."""
        error = getattr(builtins, args.get("type", "RuntimeError"))(args.get("message", "as asked"))
        error.told_facts = args.get("facts", {})
        for name, value in args.get("attributes", {}).items():
            setattr(error, name, value)
        raise error

    @command
    def cancel_itself(self, args: Args) -> None:
        """Raise the cancellation of an event loop, which is no ``Exception``."""
        import asyncio

        raise asyncio.CancelledError("by itself")

    @command
    def raise_unprintable(self, args: Args) -> None:
        """Raise an exception whose text cannot be had."""

        class UnprintableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        raise UnprintableError

    @command
    def exit(self, args: Args) -> None:
        """End the process at once with status ``code`` (1)."""
        os._exit(int(args.get("code", 1)))

    @command
    def crash(self, args: Args) -> None:
        """End the process by the signal of the name ``signal`` (``SIGKILL``)."""
        os.kill(os.getpid(), getattr(signal, args.get("signal", "SIGKILL")))
