"""The worker of the raw limit: blocking reads and writes of length-prefixed JSON, and nothing else."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import msgspec

__all__ = ["read_frame", "write_frame"]

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


def write_frame(descriptor: int, payload: bytes) -> None:
    """Write one frame. Blocks. A long one is not copied behind its header."""
    header = struct.pack(">I", len(payload))
    if len(payload) < _USUAL_BYTES:
        os.write(descriptor, header + payload)
    else:
        os.writev(descriptor, (header, payload))


def _main() -> None:
    # The parent's folder, so that this file can be run by its path and starts without a package.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from benchmarks.tasks import TASKS

    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    while payload := read_frame(0):
        request = decode(payload)
        result = TASKS[request["command"]](request["args"]["value"])
        answer = encode({"id": request["id"], "success": True, "result": result, "timestamp": 0.0})
        write_frame(1, answer)


if __name__ == "__main__":
    _main()
