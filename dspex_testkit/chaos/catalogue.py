"""The catalogue: every fault that there is, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Union

import msgspec

from dspex_testkit.chaos.faults.bandwidth import Bandwidth
from dspex_testkit.chaos.faults.clock_jump import ClockJump
from dspex_testkit.chaos.faults.closed_stdin import ClosedStdin
from dspex_testkit.chaos.faults.closed_stdout import ClosedStdout
from dspex_testkit.chaos.faults.coalesce import Coalesce
from dspex_testkit.chaos.faults.corrupt import Corrupt
from dspex_testkit.chaos.faults.corrupt_request import CorruptRequest
from dspex_testkit.chaos.faults.cpu_starvation import CpuStarvation
from dspex_testkit.chaos.faults.descriptor_exhaustion import DescriptorExhaustion
from dspex_testkit.chaos.faults.disk_full import DiskFull
from dspex_testkit.chaos.faults.drop import Drop
from dspex_testkit.chaos.faults.duplicate import Duplicate
from dspex_testkit.chaos.faults.duplicate_request import DuplicateRequest
from dspex_testkit.chaos.faults.exit_after_reply import ExitAfterReply
from dspex_testkit.chaos.faults.exit_with import ExitWith
from dspex_testkit.chaos.faults.fail_handshake import FailHandshake
from dspex_testkit.chaos.faults.fail_start import FailStart
from dspex_testkit.chaos.faults.file_too_large import FileTooLarge
from dspex_testkit.chaos.faults.garbage import Garbage
from dspex_testkit.chaos.faults.grandchild import Grandchild
from dspex_testkit.chaos.faults.half_close import HalfClose
from dspex_testkit.chaos.faults.hang import Hang
from dspex_testkit.chaos.faults.hang_start import HangStart
from dspex_testkit.chaos.faults.ignore_interrupts import IgnoreInterrupts
from dspex_testkit.chaos.faults.ignore_sigterm import IgnoreSigterm
from dspex_testkit.chaos.faults.jitter import Jitter
from dspex_testkit.chaos.faults.kill import Kill
from dspex_testkit.chaos.faults.kill_group import KillGroup
from dspex_testkit.chaos.faults.late_reply import LateReply
from dspex_testkit.chaos.faults.late_request import LateRequest
from dspex_testkit.chaos.faults.latency import Latency
from dspex_testkit.chaos.faults.lm_cut_stream import LmCutStream
from dspex_testkit.chaos.faults.lm_down import LmDown
from dspex_testkit.chaos.faults.lm_failing import LmFailing
from dspex_testkit.chaos.faults.lm_nonsense import LmNonsense
from dspex_testkit.chaos.faults.lm_rate_limited import LmRateLimited
from dspex_testkit.chaos.faults.lm_slow import LmSlow
from dspex_testkit.chaos.faults.lost_tail import LostTail
from dspex_testkit.chaos.faults.memory_exhaustion import MemoryExhaustion
from dspex_testkit.chaos.faults.memory_leak import MemoryLeak
from dspex_testkit.chaos.faults.misspeak import Misspeak
from dspex_testkit.chaos.faults.negative_length import NegativeLength
from dspex_testkit.chaos.faults.oversize import Oversize
from dspex_testkit.chaos.faults.reorder import Reorder
from dspex_testkit.chaos.faults.slice_ import Slice
from dspex_testkit.chaos.faults.slow_start import SlowStart
from dspex_testkit.chaos.faults.stderr_flood import StderrFlood
from dspex_testkit.chaos.faults.stdout_text import StdoutText
from dspex_testkit.chaos.faults.stop import Stop
from dspex_testkit.chaos.faults.terminate import Terminate
from dspex_testkit.chaos.faults.truncate import Truncate
from dspex_testkit.chaos.faults.wrong_id import WrongId
from dspex_testkit.chaos.faults.wrong_length import WrongLength
from dspex_testkit.chaos.faults.zero_length import ZeroLength

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_testkit.chaos.fault import Fault

__all__ = [
    "CATALOGUE",
    "UNITS",
    "Bandwidth",
    "ClockJump",
    "ClosedStdin",
    "ClosedStdout",
    "Coalesce",
    "Corrupt",
    "CorruptRequest",
    "CpuStarvation",
    "DescriptorExhaustion",
    "DiskFull",
    "Drop",
    "Duplicate",
    "DuplicateRequest",
    "ExitAfterReply",
    "ExitWith",
    "FailHandshake",
    "FailStart",
    "FileTooLarge",
    "Garbage",
    "Grandchild",
    "HalfClose",
    "Hang",
    "HangStart",
    "IgnoreInterrupts",
    "IgnoreSigterm",
    "Jitter",
    "Kill",
    "KillGroup",
    "LateReply",
    "LateRequest",
    "Latency",
    "LmCutStream",
    "LmDown",
    "LmFailing",
    "LmNonsense",
    "LmRateLimited",
    "LmSlow",
    "LostTail",
    "MemoryExhaustion",
    "MemoryLeak",
    "Misspeak",
    "NegativeLength",
    "Oversize",
    "Reorder",
    "Slice",
    "SlowStart",
    "StderrFlood",
    "StdoutText",
    "Stop",
    "Terminate",
    "Truncate",
    "WrongId",
    "WrongLength",
    "ZeroLength",
    "decode",
    "encode",
    "table",
]

#: Every fault, in the order of the table.
CATALOGUE: Final[tuple[type[Fault], ...]] = (
    Kill,
    KillGroup,
    Terminate,
    ExitWith,
    ExitAfterReply,
    Stop,
    Hang,
    IgnoreSigterm,
    IgnoreInterrupts,
    Grandchild,
    SlowStart,
    FailStart,
    HangStart,
    FailHandshake,
    Latency,
    Jitter,
    Bandwidth,
    Slice,
    Coalesce,
    LateReply,
    LateRequest,
    Truncate,
    LostTail,
    Drop,
    Corrupt,
    CorruptRequest,
    Duplicate,
    DuplicateRequest,
    Reorder,
    WrongId,
    Oversize,
    NegativeLength,
    ZeroLength,
    WrongLength,
    Garbage,
    StdoutText,
    HalfClose,
    ClosedStdin,
    ClosedStdout,
    Misspeak,
    StderrFlood,
    MemoryExhaustion,
    MemoryLeak,
    DescriptorExhaustion,
    FileTooLarge,
    DiskFull,
    CpuStarvation,
    ClockJump,
    LmSlow,
    LmRateLimited,
    LmDown,
    LmFailing,
    LmNonsense,
    LmCutStream,
)

#: What settings are counted in, by their names, which mean the same in all faults; the others are plain numbers.
UNITS: Final[Mapping[str, str]] = {
    "seconds": "s",
    "retry_after": "s",
    "size": "B",
    "bytes_per_second": "B/s",
    "bits": "bit",
}


def encode(fault: Fault) -> bytes:
    """Return a fault as JSON: its settings, and its name as ``type``."""
    return msgspec.json.encode(fault)


def decode(data: bytes) -> Fault:
    """Return the fault that ``encode`` wrote.

    Raises:
        msgspec.ValidationError: There is no such fault, or it has other settings.
    """
    kinds: Any = Union[CATALOGUE]  # noqa: UP007 - of as many as there are
    fault: Fault = msgspec.json.decode(data, type=kinds)
    return fault


def table() -> str:
    """Return the catalogue as a table in Markdown."""
    rows = [
        "| Fault | What happens | Settings | Where | Proof |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*rows, *(_row(kind) for kind in CATALOGUE)])


def _row(kind: type[Fault]) -> str:
    what = (kind.__doc__ or "").splitlines()[0].rstrip(".")
    settings = ", ".join(f"`{name}`{_unit(name)}" for name in kind.__struct_fields__)
    return f"| `{kind.__name__}` | {what} | {settings} | {', '.join(kind.where)} | {kind.proof} |"


def _unit(name: str) -> str:
    return f" ({UNITS[name]})" if name in UNITS else ""
