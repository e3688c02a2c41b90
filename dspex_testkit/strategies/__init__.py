"""Hypothesis strategies for what a pool meets: legal values only, and their edges.

Nothing else of the test kit imports Hypothesis when it is imported. Each strategy is held against the real decoder,
parser or validator by a test, so what it draws is what the product takes; ``invalid_settings`` and the plans with
faults are wrong on purpose, and say how.
"""

from __future__ import annotations

from dspex_testkit.strategies.plans import SILENT_STEPS, fault_plans, plans, steps
from dspex_testkit.strategies.programs import (
    definitions,
    inputs_for,
    program_ids,
    session_ids,
    session_records,
    signature_objects,
    signature_texts,
    signatures,
    values_of,
)
from dspex_testkit.strategies.settings import (
    Invalid,
    invalid_settings,
    pool_configs,
    pool_options,
    pool_settings,
    simulated_settings,
)
from dspex_testkit.strategies.values import json_objects, json_values, seconds, texts
from dspex_testkit.strategies.wire import (
    cuts,
    encoded,
    error_infos,
    events,
    failures,
    frames,
    payloads,
    pieces,
    replies,
    requests,
    streams,
    successes,
)

__all__ = [
    "SILENT_STEPS",
    "Invalid",
    "cuts",
    "definitions",
    "encoded",
    "error_infos",
    "events",
    "failures",
    "fault_plans",
    "frames",
    "inputs_for",
    "invalid_settings",
    "json_objects",
    "json_values",
    "payloads",
    "pieces",
    "plans",
    "pool_configs",
    "pool_options",
    "pool_settings",
    "program_ids",
    "replies",
    "requests",
    "seconds",
    "session_ids",
    "session_records",
    "signature_objects",
    "signature_texts",
    "signatures",
    "simulated_settings",
    "steps",
    "streams",
    "successes",
    "texts",
    "values_of",
]
