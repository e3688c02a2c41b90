"""The command table of the DSPy bridge over canned programs."""

from __future__ import annotations

from typing import Any

import pytest

from dspex_pool.protocol.messages import Request
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.plan import CommandFailedError, Exit, Plan, Reply
from tests.cases import case

QUESTION = {"signature": "question -> answer", "session_id": "s"}


@pytest.fixture
def bridge() -> CannedBridge:
    bridge = CannedBridge(worker_id="w-1", clock=iter(range(1000)).__next__)
    bridge.run("create_program", {"id": "p", **QUESTION})
    return bridge


def refused(bridge: CannedBridge, command: str, args: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(CommandFailedError) as info:
        bridge.run(command, args)
    return info.value.type, info.value.message


def test_ping_of_version_2_tells_versions_and_capabilities(bridge: CannedBridge) -> None:
    """A client that offers version 2 hears of it, others do not; both hear of the current session."""
    newer = bridge.run("ping", {"protocol": 2})
    assert newer["protocol"] == 2
    assert newer["versions"]["bridge"] == "canned"
    assert isinstance(newer["pid"], int)
    older = bridge.run("ping", {})
    assert "protocol" not in older
    assert (older["worker_id"], older["current_session"], older["mode"]) == ("w-1", "s", "pool-worker")


def test_standalone_ping_tells_no_worker() -> None:
    """Worker and session belong to the mode pool-worker."""
    assert "worker_id" not in CannedBridge(mode="standalone").run("ping", {})


def test_standalone_programs_are_global() -> None:
    """In mode standalone a session id is ignored and none is needed."""
    bridge = CannedBridge(mode="standalone")
    bridge.run("create_program", {"id": "p", "signature": "a -> b", "session_id": "one"})
    assert bridge.run("list_programs", {})["total_count"] == 1


def test_pool_worker_needs_the_session(bridge: CannedBridge) -> None:
    """Commands that touch programs say what is missing, in the protocol's words."""
    cases: list[str] = [
        "create_program",
        "execute_program",
        "list_programs",
        "get_program_info",
        "delete_program",
        "cleanup_session",
    ]
    expected = ("InvalidArgument", "session_id is required in pool-worker mode")
    for command in cases:
        with case(command):
            assert refused(bridge, command, {"id": "p", "program_id": "p"}) == expected


def test_errors_have_the_words_of_the_protocol(bridge: CannedBridge) -> None:
    """Texts that a version 1 client may look for are literal."""
    assert refused(bridge, "levitate", {}) == ("UnknownCommand", "Unknown command: levitate")
    again = refused(bridge, "create_program", {"id": "p", **QUESTION})
    assert again == ("ProgramExists", "Program with ID 'p' already exists.")
    missing = refused(bridge, "execute_program", {"program_id": "q", "session_id": "s", "inputs": {}})
    assert missing == ("ProgramNotFound", "Program not found: q")


def test_wrong_argument_is_named(bridge: CannedBridge) -> None:
    """Every refusal of an argument is an ``InvalidArgument`` that names it."""
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("create_program", {"signature": "a -> b"}, "id"),
        ("create_program", {"id": "x"}, "signature"),
        ("create_program", {"id": "x", "signature": "a"}, "->"),
        ("create_program", {"id": "x", "signature": "a -> b", "program_type": "magic"}, "magic"),
        ("create_program", {"id": "x", "factory": "os:system"}, "os:system"),
        ("execute_program", {"program_id": "p"}, "inputs"),
        ("execute_program", {"program_id": "p", "inputs": {}}, "question"),
        ("execute_program", {"program_id": "p", "inputs": {"question": 1, "why": 2}}, "why"),
        ("load_program", {"program_id": "x"}, "definition"),
        ("configure_lm", {}, "model"),
        ("configure_lm", {"model": "m", "api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
    ]
    for command, args, word in cases:
        with case(command, args):
            kind, message = refused(bridge, command, {"session_id": "s", **args})
            assert kind == "InvalidArgument"
            assert word in message


def test_outputs_have_the_types_of_the_signature(bridge: CannedBridge) -> None:
    """What is not canned gets a value of its type; strings show the first input."""
    signature = "q, k: int -> a, n: int, x: float, ok: bool, l: list[str], d: dict, c: Literal['red', 'blue']"
    bridge.run("create_program", {"id": "t", "signature": signature, "session_id": "s"})
    args = {"program_id": "t", "session_id": "s", "inputs": {"q": "seed", "k": 3}}
    outputs = bridge.run("execute_program", args)["outputs"]
    assert outputs == {"a": "a: seed", "n": 0, "x": 0.0, "ok": False, "l": [], "d": {}, "c": "red"}


def test_model_is_configured_for_all_or_for_a_session(bridge: CannedBridge) -> None:
    """The provider comes from the model's name unless it is given."""
    assert bridge.run("configure_lm", {"model": "openai/x", "session_id": "s"})["provider"] == "openai"
    assert bridge.run("configure_lm", {"model": "x", "provider": "me"})["provider"] == "me"


def test_counters_are_reset_and_programs_cleaned(bridge: CannedBridge) -> None:
    """Stats count commands and errors; cleanup and reset tell what they removed."""
    refused(bridge, "levitate", {})
    stats = bridge.run("get_stats", {})
    assert (stats["programs_count"], stats["command_count"], stats["error_count"]) == (1, 3, 1)
    assert bridge.run("cleanup", {})["programs_removed"] == 1
    reset = bridge.run("reset_state", {})
    assert (reset["programs_cleared"], reset["commands_reset"], reset["errors_reset"]) == (0, 5, 1)
    assert bridge.run("get_stats", {})["command_count"] == 1


def plan(bridge: CannedBridge, command: str) -> Plan:
    return bridge.plan(Request(1, command, {}, "2026-01-01T00:00:00Z"))


def test_shutdown_answers_and_then_ends_the_worker(bridge: CannedBridge) -> None:
    """The answer comes first, then the exit with status 0."""
    reply, end = plan(bridge, "shutdown").steps
    assert isinstance(reply, Reply)
    assert reply.result["sessions_cleaned"] == 1
    assert isinstance(end, Exit)
    assert end.status.code == 0


def test_further_commands_may_be_added() -> None:
    """A command of the test's own gives a result or a plan."""
    bridge = CannedBridge(commands={"echo": lambda args: args, "hang": lambda args: Plan().stall()})
    assert plan(bridge, "echo").steps == [Reply({})]
    assert plan(bridge, "hang").steps == Plan().stall().steps
