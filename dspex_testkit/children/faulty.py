"""A small worker of version 2 that keeps the protocol, except for the one fault that it is told to have.

It is a program of its own, with the standard library alone, so that it starts in a few milliseconds::

    python -I -S faulty.py [FAULT]

It serves the commands of ``ECHO_PROFILE``: ``echo``, ``sleep``, ``raise_error``, ``print_fd``, ``big``, ``nan`` and
``emit``. The faults are listed in ``FAULTS``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time

# Not from ``typing``: its import would take as long as everything else that this program does at the start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

LIMIT = 65_536

#: Every fault by name, with what the worker does then.
FAULTS = {
    "none": "nothing wrong",
    "whole_seconds": "nothing wrong: gives timestamps in whole seconds, so that answers may be alike",
    "silent": "never answers",
    "banner": "prints a line on stdout when it starts",
    "little_endian": "writes lengths with the least significant byte first",
    "length_counts_itself": "adds the four bytes of the length to the length",
    "answers_a_list": "sends answers as a list in a list",
    "refuses_handshake": "fails the first ping",
    "byte_order_mark": "begins every payload with a byte order mark",
    "drops_second_frame": "loses what one read brings behind a frame",
    "ascii_only": "loses letters that are not ASCII",
    "no_status": "answers pings without a status",
    "no_capabilities": "keeps its capabilities to itself",
    "wrong_pid": "tells the process id of somebody else",
    "ids_of_32_bits": "cuts ids to 32 bits",
    "ids_as_text": "answers under the id as a text",
    "answers_twice": "sends every answer of a command twice",
    "any_id_goes": "serves requests whatever their id is",
    "dies_of_bad_json": "ends with a traceback when it reads what is no JSON",
    "accepts_nan": "takes NaN and Infinity for JSON",
    "args_optional": "serves requests without args",
    "timestamp_optional": "serves requests without a timestamp",
    "unnamed_unknown": "does not name the unknown command in its failure",
    "unknown_kills": "ends when it is asked for an unknown command",
    "sends_nan": "sends NaN",
    "no_timestamp": "leaves the timestamp out of a success",
    "empty_error": "fails with an empty text",
    "version_2_to_all": "tells duration_s to clients of version 1",
    "untyped_error_info": "leaves the type out of error_info",
    "prints_to_stdout": "lets what commands print get between the frames",
    "heartbeat": "says something on its own after every answer",
    "deaf_to_eof_while_busy": "does not notice the end of stdin while a command runs",
    "leaves_with_1": "leaves with status 1 when stdin ends",
    "stays_after_eof": "stays when stdin ends",
    "stays_after_shutdown": "answers shutdown and stays",
    "traceback_without_reader": "ends with a traceback when nobody reads",
    "ignores_sigterm": "ignores SIGTERM",
    "slow_to_terminate": "takes three seconds to leave after SIGTERM",
    "sigterm_kills": "leaves SIGTERM to the system, which ends it by signal",
    "idle_sigint_kills": "ends when SIGINT comes while it is idle",
    "sigint_kills": "ends when SIGINT comes while a command runs",
    "uncancellable": "ignores SIGINT while a command runs",
    "cancelled_untyped": "answers a cancelled command without the type Cancelled",
    "cancelled_succeeds": "answers a cancelled command by a success",
    "no_frame_limit": "waits for frames of any length",
    "leaves_with_0_at_garbage": "leaves with status 0 at what is no frame",
    "silent_about_torn_frame": "does not say that a frame was torn",
    "oversize_answer": "sends answers over the limit",
    "one_size": "tells only the limit when an answer is too long",
    "events_to_all": "sends events that nobody asked for",
    "events_without_data": "sends events without their data",
}


class StopError(Exception):
    """SIGINT came while a command ran."""


class Worker:
    """One worker with a fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.buffer = b""
        self.version = 1
        self.wanted: Any = ()
        self.is_running = False
        #: Becomes readable when a signal comes.
        self.wakeup, self.on_signal = os.pipe()

    # --- bytes ---------------------------------------------------------------------------------------

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for something on stdin, or for a signal; tell whether something is there."""
        ready = select.select([0, self.wakeup], [], [], seconds)[0]
        if self.wakeup in ready:
            os.read(self.wakeup, 512)
        return 0 in ready

    def read_more(self) -> None:
        """Read what comes next; leave at the end of stdin."""
        # Not in the read itself: a signal a moment before it would be heeded when it has ended.
        while not self.wait():
            pass
        data = os.read(0, 1 << 16)
        if not data:
            self.leave_at_eof()
        self.buffer += data

    def leave_at_eof(self) -> NoReturn:
        if self.fault == "stays_after_eof":
            time.sleep(30)
        if self.buffer and self.fault != "silent_about_torn_frame":
            size = 4 + int.from_bytes(self.buffer[:4], "big") if len(self.buffer) >= 4 else 4
            if len(self.buffer) < size:
                os.write(2, b"stdin ended inside a frame: %d bytes are missing\n" % (size - len(self.buffer)))
        os._exit(1 if self.fault == "leaves_with_1" else 0)

    def next_payload(self) -> bytes:
        """Wait for the next frame; return its payload."""
        while True:
            size = int.from_bytes(self.buffer[:4], "big")
            if len(self.buffer) >= 4 and size > LIMIT and self.fault != "no_frame_limit":
                os.write(2, b"no frame: %r\n" % self.buffer[:60])
                os._exit(0 if self.fault == "leaves_with_0_at_garbage" else 65)
            if len(self.buffer) >= 4 + size and len(self.buffer) >= 4:
                payload, self.buffer = self.buffer[4 : 4 + size], self.buffer[4 + size :]
                if self.fault == "drops_second_frame":
                    self.buffer = b""
                return payload
            self.read_more()

    def write(self, message: Any) -> None:
        """Send one message."""
        payload = json.dumps(message, ensure_ascii=self.fault == "ascii_only").encode()
        if self.fault == "byte_order_mark":
            payload = b"\xef\xbb\xbf" + payload
        size = len(payload) + (4 if self.fault == "length_counts_itself" else 0)
        header = size.to_bytes(4, "big")
        self.write_bytes((header[::-1] if self.fault == "little_endian" else header) + payload)

    def write_bytes(self, data: bytes) -> None:
        if self.fault == "silent":
            return
        try:
            while data:
                data = data[os.write(1, data) :]
        except BrokenPipeError:
            if self.fault == "traceback_without_reader":
                raise
            os._exit(0)

    # --- answers -------------------------------------------------------------------------------------

    def answer(self, number: Any, fields: dict[str, Any]) -> None:
        """Answer a request, unless it does not fit."""
        if self.fault == "ids_of_32_bits" and number is not None:
            number &= 0xFFFFFFFF
        if self.fault == "ids_as_text" and number is not None:
            number = str(number)
        message = {"id": number, **fields, "timestamp": self.now()}
        if self.fault == "no_timestamp" and fields["success"]:
            del message["timestamp"]
        if self.fault == "answers_a_list":
            self.write([[message]])
            return
        for _ in range(2 if self.fault == "answers_twice" and fields["success"] else 1):
            self.write(message)
        if self.fault == "heartbeat":
            self.write({"id": None, "event": "log", "data": {"alive": True}})

    def now(self) -> float:
        return int(time.time()) if self.fault == "whole_seconds" else time.time()

    def succeed(self, number: int, result: Any) -> None:
        """Answer with a result."""
        fields: dict[str, Any] = {"success": True, "result": result}
        if self.version == 2 or self.fault == "version_2_to_all":
            fields["duration_s"] = 0.0
        try:
            size = len(json.dumps(fields, allow_nan=self.fault == "sends_nan")) + 80
        except ValueError as error:
            self.fail(number, str(error), "NotJson")
            return
        if size > LIMIT and self.fault != "oversize_answer":
            said = "too long" if self.fault == "one_size" else f"{size} bytes"
            self.fail(number, f"the answer is {said}, a frame holds {LIMIT}", "TooLong")
        else:
            self.answer(number, fields)

    def fail(self, number: int | None, error: str, kind: str) -> None:
        """Answer with a failure."""
        fields: dict[str, Any] = {"success": False, "error": "" if self.fault == "empty_error" else error}
        if self.version == 2:
            fields["error_info"] = {"type": kind, "message": error}
            if self.fault == "untyped_error_info":
                del fields["error_info"]["type"]
        self.answer(number, fields)

    # --- requests ------------------------------------------------------------------------------------

    def serve(self) -> NoReturn:
        """Serve until stdin ends."""
        while True:
            payload = self.next_payload()
            request, number, problem = self.understood(payload)
            if problem:
                self.fail(number, f"Invalid request: {problem}", "InvalidRequest")
            else:
                self.run(number, request["command"], request.get("args", {}))

    def understood(self, payload: bytes) -> tuple[Any, Any, str | None]:
        """Return a request, its id, and what is wrong with it."""
        try:
            request = json.loads(payload.decode(), parse_constant=self.constant)
        except (ValueError, RecursionError) as error:
            if self.fault == "dies_of_bad_json":
                raise
            return None, None, str(error)
        if not isinstance(request, dict):
            return None, None, "no object"
        number = request.get("id")
        if self.fault != "any_id_goes" and (type(number) is not int or number < 0):
            return None, None, "no usable id"
        return request, number, self.objection(request)

    def constant(self, word: str) -> int:
        if self.fault == "accepts_nan":
            return 0
        raise ValueError(word)

    def objection(self, request: dict[str, Any]) -> str | None:
        optional = {"args_optional": "args", "timestamp_optional": "timestamp"}.get(self.fault)
        for name, kind in {"command": str, "args": dict, "timestamp": str}.items():
            if name not in request and name == optional:
                continue
            if not isinstance(request.get(name), kind):
                return f"{name} is {request.get(name)!r}"
        return None

    def run(self, number: int, command: str, args: dict[str, Any]) -> None:
        """Run one command and answer it."""
        served = getattr(self, f"do_{command}", None)
        if served is None:
            if self.fault == "unknown_kills":
                os._exit(1)
            named = "" if self.fault == "unnamed_unknown" else f": {command}"
            self.fail(number, f"Unknown command{named}", "UnknownCommand")
            return
        try:
            self.is_running = True
            result = served(number, args)
            self.is_running = False
        except StopError:
            kind = "Error" if self.fault == "cancelled_untyped" else "Cancelled"
            if self.fault == "cancelled_succeeds":
                self.succeed(number, None)
            else:
                self.fail(number, "The command was cancelled.", kind)
        except Exception as error:
            self.is_running = False
            self.fail(number, str(error), type(error).__name__)
        else:
            self.succeed(number, result)
            if command == "shutdown" and self.fault != "stays_after_shutdown":
                os._exit(0)

    def do_ping(self, number: int, args: dict[str, Any]) -> Any:
        if args.get("initialization"):
            if self.fault == "refuses_handshake":
                raise RuntimeError("not today")
            self.version = 2 if args.get("protocol") == 2 else 1
            self.wanted = args.get("events", ())
        told: dict[str, Any] = {} if self.fault == "no_status" else {"status": "ok"}
        if self.version == 2:
            pid = 1 if self.fault == "wrong_pid" else os.getpid()
            versions = {"python": ".".join(map(str, sys.version_info[:3]))}
            told |= {"protocol": 2, "pid": pid, "versions": versions, "capabilities": ["cancel"]}
            if self.fault == "no_capabilities":
                del told["capabilities"]
        return told

    def do_shutdown(self, number: int, args: dict[str, Any]) -> Any:
        return {"status": "shutting_down"}

    def do_echo(self, number: int, args: dict[str, Any]) -> Any:
        if self.fault == "ascii_only":
            return json.loads(json.dumps(args, ensure_ascii=False).encode("ascii", "replace"))
        return args

    def do_sleep(self, number: int, args: dict[str, Any]) -> Any:
        end = time.monotonic() + args["seconds"]
        while (left := end - time.monotonic()) > 0:
            if self.fault == "deaf_to_eof_while_busy":
                time.sleep(left)
            elif self.wait(left):
                self.read_more()
        return args

    def do_raise_error(self, number: int, args: dict[str, Any]) -> Any:
        raise RuntimeError("as asked")

    def do_print_fd(self, number: int, args: dict[str, Any]) -> Any:
        os.write(1 if self.fault == "prints_to_stdout" else 2, b"printed\n")

    def do_big(self, number: int, args: dict[str, Any]) -> Any:
        return "x" * args["bytes"]

    def do_nan(self, number: int, args: dict[str, Any]) -> Any:
        return float("nan")

    def do_emit(self, number: int, args: dict[str, Any]) -> Any:
        if args["event"] in self.wanted or self.fault == "events_to_all":
            event = {"id": number, "event": args["event"], "data": args["data"]}
            if self.fault == "events_without_data":
                del event["data"]
            self.write(event)

    # --- signals -------------------------------------------------------------------------------------

    def install(self) -> None:
        """Take over the signals."""
        os.set_blocking(self.on_signal, False)
        signal.set_wakeup_fd(self.on_signal, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, self.on_sigint)
        if self.fault == "ignores_sigterm":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif self.fault != "sigterm_kills":
            signal.signal(signal.SIGTERM, self.on_sigterm)

    def on_sigterm(self, number: int, frame: object) -> None:
        if self.fault == "slow_to_terminate":
            time.sleep(3)
        os._exit(0)

    def on_sigint(self, number: int, frame: object) -> None:
        if self.fault == ("sigint_kills" if self.is_running else "idle_sigint_kills"):
            os._exit(1)
        if self.is_running and self.fault != "uncancellable":
            self.is_running = False
            raise StopError


def main() -> None:
    """Be a worker with the fault that the command line names."""
    fault = sys.argv[1] if len(sys.argv) > 1 else "none"
    if fault not in FAULTS:
        sys.exit(f"there is no fault {fault!r}, only {', '.join(FAULTS)}")
    worker = Worker(fault)
    worker.install()
    if fault == "banner":
        os.write(1, b"Worker 1.0 is ready\n")
    worker.serve()


if __name__ == "__main__":
    main()
