"""Workers that are broken on purpose, each with the clauses that name its fault."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from dspex_testkit.children import faulty
from dspex_testkit.conform.profile import ECHO_PROFILE
from dspex_testkit.conform.run import conform

if TYPE_CHECKING:
    from dspex_testkit.conform.run import Findings

__all__ = ["BLAMED", "MORE_BLAMED", "faulty_command", "findings_of"]

#: For each fault exactly the clauses that a worker with it breaks. The first is the one that names it. One of each
#: subject by day.
BLAMED: dict[str, str] = {
    "whole_seconds": "",
    "banner": "F01",
    "no_status": "H02 H01 H05",
    "ids_of_32_bits": "I02",
    "version_2_to_all": "M06",
    "accepts_nan": "E06",
    "prints_to_stdout": "O03",
    "traceback_without_reader": "X10",
    "idle_sigint_kills": "G05",
    "oversize_answer": "L06 L07 L08",
    "events_to_all": "V02 V01",
}
#: More of them, which are tried at night.
MORE_BLAMED: dict[str, str] = {
    "none": "",
    "little_endian": "F02",
    "length_counts_itself": "F03",
    "answers_a_list": "F04",
    "byte_order_mark": "F06",
    "answers_twice": "I05",
    "any_id_goes": "I07 I08 I09 I10 I11 I12",
    "deaf_to_eof_while_busy": "X04 X05",
    "slow_to_terminate": "G01 G03",
    "uncancellable": "G07 G08 G09 G10",
    "no_frame_limit": "L01 L02 L03 L04",
    "drops_second_frame": "F09 F10 C01 C02 C03 C04 C05",
    "no_timestamp": "M02",
    "heartbeat": "O02 V01 V02",
    "stays_after_shutdown": "X08 O04",
    "unnamed_unknown": "E16",
    "silent": "F00",
    "refuses_handshake": "F05",
    "ascii_only": "F15",
    "no_capabilities": "H09",
    "wrong_pid": "H07",
    "ids_as_text": "I01 I02 I03 I04 I06 H03",
    "dies_of_bad_json": "E01 E02 E03 E05 E06 E18 C03",
    "args_optional": "E09",
    "timestamp_optional": "E11",
    "unknown_kills": "E15 E16 E17 C03",
    "sends_nan": "E21",
    "empty_error": "M03",
    "untyped_error_info": "E20 G09",
    "leaves_with_1": "X02 X03 X04 X05",
    "stays_after_eof": "X01 X02 X03 X04 X05 X06 L05 O05",
    "ignores_sigterm": "G01 G02 G03 G04 O06",
    "sigterm_kills": "G02 G04",
    "sigint_kills": "G07 G08 G09 G10",
    "cancelled_untyped": "G09",
    "cancelled_succeeds": "G08 G09",
    "leaves_with_0_at_garbage": "L02 L03",
    "silent_about_torn_frame": "L05",
    "one_size": "L07",
    "events_without_data": "V04",
}
# Nothing that should happen takes a tenth of this; what does not happen costs all of it.
_PROFILE = replace(ECHO_PROFILE, timeout=4.0)


def faulty_command(fault: str) -> list[str]:
    """Return what starts a worker with a fault; without site packages it starts in half the time."""
    return [sys.executable, "-I", "-S", faulty.__file__, fault]


def findings_of(fault: str) -> Findings:
    """Hold a worker with a fault to all clauses."""
    return conform(faulty_command(fault), _PROFILE)
