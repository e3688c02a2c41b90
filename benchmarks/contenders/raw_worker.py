"""The worker of the raw limit: blocking reads and writes of length-prefixed JSON, and nothing else."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import msgspec

__all__ = ["read_frame"]

# More than a usual frame; a longer one is read into a block of its size.
_USUAL_BYTES = 1 << 16


def read_frame(descriptor: int) -> bytes | memoryview:
    """Read one frame and return its payload; empty at the end of the stream. Blocks."""
    first = os.read(descriptor, _USUAL_BYTES)
    if not first:
        return b""
    size = struct.unpack_from(">I", first)[0] + 4
    if len(first) == size:
        return first[4:]
    block = memoryview(bytearray(size))
    block[: len(first)] = first
    have = len(first)
    while have < size:
        have += os.readv(descriptor, (block[have:],))
    return block[4:]


def _main() -> None:
    # The parent's folder, so that this file can be run by its path and starts without a package.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from benchmarks.tasks import TASKS

    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    while payload := read_frame(0):
        request = decode(payload)
        result = TASKS[request["command"]](request["args"]["value"])
        answer = encode({"id": request["id"], "success": True, "result": result, "timestamp": 0.0})
        os.write(1, struct.pack(">I", len(answer)) + answer)


if __name__ == "__main__":
    _main()
