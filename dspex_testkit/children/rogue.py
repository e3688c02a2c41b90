"""A handler that breaks the protocol and its promises, which no honest worker does; see ``FOUL_PLAY``.

Start it as ``python -m dspex_pool.bridge --handler dspex_testkit.children.rogue:RogueHandler``.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any

from dspex_pool.bridge.handler import command
from dspex_testkit.children.echo import EchoHandler

__all__ = ["FOUL_PLAY", "RogueHandler"]

#: The commands that cost a worker, each with arguments that are enough. Durations are in seconds.
FOUL_PLAY: dict[str, dict[str, Any]] = {
    "close_answers": {"seconds": 60},
    "write_garbage": {"bytes": 100, "seed": 0},
    "cut_answer": {},
    "answer_twice": {},
    "leave_deaf": {"seconds": 60},
}

Args = dict[str, Any]


class RogueHandler(EchoHandler):
    """Serves what ``EchoHandler`` does, and foul play."""

    @command
    def note(self, args: Args) -> Args:
        """Append ``nonce`` as a line to the file ``path``, sleep for ``seconds``; return the args and ``pid``."""
        # One write to a file opened for appending: lines of several processes do not mix.
        with open(args["path"], "ab", buffering=0) as file:  # noqa: PTH123 - unbuffered, and opened for each note
            file.write(f"{args['nonce']}\n".encode())
        time.sleep(float(args.get("seconds", 0)))
        return {**args, "pid": os.getpid()}

    @command
    def close_answers(self, args: Args) -> None:
        """Close the descriptor of the answers, and go on for ``seconds``."""
        os.close(self._answers())
        time.sleep(float(args["seconds"]))

    @command
    def write_garbage(self, args: Args) -> None:
        """Write ``bytes`` bytes drawn from ``seed`` where frames belong."""
        os.write(self._answers(), random.Random(args["seed"]).randbytes(int(args["bytes"])))

    @command
    def cut_answer(self, args: Args) -> None:
        """Begin a frame and end the process in the middle of it."""
        os.write(self._answers(), (1000).to_bytes(4, "big") + b'{"id": ')
        os._exit(1)

    @command
    def answer_twice(self, args: Args) -> Args:
        """Answer with the args, and again as soon as that is done."""
        answers, frame = self._answers(), b'{"id": 0, "success": true, "result": "again", "timestamp": 0}'
        self._when_answered(lambda: os.write(answers, len(frame).to_bytes(4, "big") + frame))
        return args

    @command
    def leave_soon(self, args: Args) -> Args:
        """Answer with the args; end the process after ``seconds``, before, during or after the answer."""
        timer = threading.Timer(float(args["seconds"]), os._exit, (0,))
        timer.daemon = True
        timer.start()
        return args

    @command
    def leave_after_answer(self, args: Args) -> Args:
        """Answer with the args, and end the process as soon as that is done."""
        self._when_answered(lambda: os._exit(0))
        return args

    @command
    def leave_deaf(self, args: Args) -> None:
        """Ignore SIGINT and SIGTERM, and hold the interpreter's lock for ``seconds``: only SIGKILL helps."""
        self.block_signals({})
        self.hold_gil(args)

    def _answers(self) -> int:
        # What writes the frames keeps its descriptor to itself, for good reasons.
        descriptor: int = getattr(self.context.emit, "__self__")._fd  # noqa: B009 - a callable need not have it
        return descriptor

    def _when_answered(self, act: Any) -> None:
        """Call ``act`` on another thread once the running command is answered."""
        outlet: Any = getattr(self.context.emit, "__self__")  # noqa: B009 - as above

        def wait() -> None:
            while outlet._running is not None:
                time.sleep(0)
            with outlet._lock:  # the answer is being written, or was
                act()

        threading.Thread(target=wait, daemon=True).start()
