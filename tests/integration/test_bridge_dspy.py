"""The DSPy bridge in a real process: programs, sessions, language models, cancellation, secrets."""

from __future__ import annotations

import importlib.util
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.bridge_process import BridgeProcess, running_bridge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dspex_testkit.lm.server import LMServer

pytestmark = pytest.mark.integration

HANDLER = "dspex_pool.bridge.dspy_handler:DspyHandler"
PROGRAMS = "dspex_testkit.children.dspy_programs"
TEXT = "Paris is the capital of France. Rome is the capital of Italy."
QUESTION = "What is the capital of Italy?"
INPUTS = {"context": TEXT, "question": QUESTION}
SIGNATURE = "context, question -> answer"
# Long enough to be masked, and nowhere else in what a worker says.
KEY = "sk-test-4711-do-not-tell"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for the worker, so that what it writes there is seen."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[BridgeProcess]:
    """A worker that all tests of this module may use; none may break it."""
    env = {"HOME": str(folder), "DSPY_CACHEDIR": str(folder / "cache"), "TEST_API_KEY": KEY}
    with running_bridge("--allow", PROGRAMS, handler=HANDLER, env=env) as bridge:
        yield bridge


@pytest.fixture
def bridge(shared: BridgeProcess) -> Iterator[BridgeProcess]:
    """The shared worker, empty, with the embedded model for all sessions."""
    shared.ask("reset_state")
    shared.ask("configure_lm", engine="extractive")
    shared.events.clear()
    yield shared
    assert shared.ask("ping")["status"] == "ok"


def create(bridge: BridgeProcess, program_id: str = "p", session_id: str = "s", **args: Any) -> Any:
    """Create a program, by the usual signature unless ``args`` say otherwise."""
    how = args or {"signature": SIGNATURE}
    return bridge.ask("create_program", id=program_id, session_id=session_id, **how)


def execute(bridge: BridgeProcess, program_id: str = "p", session_id: str = "s", **args: Any) -> Any:
    """Run a program on the usual inputs unless ``args`` say otherwise."""
    return bridge.ask(
        "execute_program", program_id=program_id, session_id=session_id, **{"inputs": INPUTS, **args}
    )


def refused_run(
    bridge: BridgeProcess, program_id: str = "p", session_id: str = "s", **args: Any
) -> dict[str, Any]:
    """Run a program that fails; return the facts."""
    args = {"inputs": INPUTS, **args}
    return bridge.refused("execute_program", program_id=program_id, session_id=session_id, **args)


# --- programs ----------------------------------------------------------------------------------------------


def test_program_is_created_run_described_listed_and_deleted(bridge: BridgeProcess) -> None:
    """The whole life of a program, in the shapes of the protocol."""
    assert create(bridge) == {
        "program_id": "p",
        "status": "created",
        "signature": SIGNATURE,
        "program_type": "predict",
    }
    run = execute(bridge)
    assert run["program_id"] == "p"
    assert run["outputs"] == {"answer": "Rome is the capital of Italy."}
    assert 0 < run["execution_time"] < 10
    info = bridge.ask("get_program_info", program_id="p", session_id="s")
    assert set(info) == {"program_id", "signature", "created_at", "execution_count", "last_executed"}
    assert info["execution_count"] == 1
    assert info["created_at"] <= info["last_executed"]
    listed = bridge.ask("list_programs", session_id="s")
    assert listed["total_count"] == 1
    assert set(listed["programs"][0]) == {
        "id", "program_type", "created_at", "execution_count", "last_executed"
    }  # fmt: skip
    assert bridge.ask("delete_program", program_id="p", session_id="s") == {
        "program_id": "p",
        "status": "deleted",
    }
    error = refused_run(bridge)
    assert error["error"] == "Program not found: p"
    assert error["type"] == "ProgramNotFound"


def test_typed_signature_reaches_the_model_and_types_its_outputs(bridge: BridgeProcess) -> None:
    """Descriptions and types are DSPy's, not ignored (R31)."""
    signature = {
        "name": "Answering",
        "description": "Answer from the context.",
        "inputs": [
            {"name": "context", "type": "str", "description": "what is known"},
            {"name": "question", "type": "string"},
        ],
        "outputs": [{"name": "answer", "type": "str"}, {"name": "year", "type": "int | None"}],
    }
    assert create(bridge, signature=signature, program_type="chain_of_thought")["signature"] == signature
    outputs = execute(bridge)["outputs"]
    assert list(outputs) == ["reasoning", "answer", "year"]
    assert outputs["year"] is None
    state = bridge.ask("dump_program", program_id="p", session_id="s")["state"]
    assert state["predict"]["signature"]["instructions"] == "Answer from the context."
    assert "what is known" in json.dumps(state)


def test_usage_is_told_and_a_cost_that_is_not_known_has_a_reason(bridge: BridgeProcess) -> None:
    """Never a made-up price; and the same usage beside the result."""
    create(bridge)
    request_id = bridge.send("execute_program", {"program_id": "p", "session_id": "s", "inputs": INPUTS})
    reply = bridge.answer()
    assert reply["id"] == request_id
    result = reply["result"]
    assert result["usage"]["dspex/extractive"]["total_tokens"] > 0
    assert result["cost"] is None
    assert result["cost_reason"]
    assert reply["usage"] == result["usage"]


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"context": TEXT}, "misses the input 'question'"),
        (INPUTS | {"contxt": TEXT}, "has no input 'contxt'"),
        ({}, "misses the input 'context'"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(
    bridge: BridgeProcess, inputs: dict[str, Any], problem: str
) -> None:
    """No invented answers (R30)."""
    create(bridge)
    error = refused_run(bridge, inputs=inputs)
    assert error["type"] == "InvalidArgument"
    assert problem in error["error"]
    assert bridge.ask("get_program_info", program_id="p", session_id="s")["execution_count"] == 0


@pytest.mark.parametrize(
    ("command", "args", "problem"),
    [
        ("create_program", {"session_id": "s"}, "id is required"),
        ("create_program", {"session_id": "s", "id": "p"}, "signature is required"),
        (
            "create_program",
            {"session_id": "s", "id": "p", "signature": "q -> a", "state": []},
            "state must be",
        ),
        (
            "create_program",
            {"session_id": "s", "id": "p", "signature": "q -> fields"},
            "cannot be used with DSPy",
        ),
        ("create_program", {"id": "p", "signature": "q -> a"}, "session_id is required in pool-worker mode"),
        ("execute_program", {"session_id": "s"}, "program_id is required"),
        ("execute_program", {"session_id": "s", "program_id": "known"}, "inputs is required"),
        ("load_program", {"session_id": "s", "program_id": "p"}, "definition is required"),
        ("list_programs", {}, "session_id is required in pool-worker mode"),
        ("cleanup_session", {}, "session_id is required in pool-worker mode"),
        ("configure_lm", {}, "model is required"),
    ],
)
def test_missing_or_wrong_argument_is_named(
    bridge: BridgeProcess, command: str, args: dict[str, Any], problem: str
) -> None:
    """Every command says what it misses (R32)."""
    create(bridge, "known")
    error = bridge.refused(command, **args)
    assert error["type"] == "InvalidArgument"
    assert problem in error["error"]
    assert bridge.ask("get_stats")["programs_count"] == 1


def test_second_program_of_an_id_is_refused_but_may_be_loaded_over(bridge: BridgeProcess) -> None:
    """Creating is for new programs; loading replaces."""
    create(bridge)
    error = bridge.refused("create_program", id="p", session_id="s", signature=SIGNATURE)
    assert error["error"] == "Program with ID 'p' already exists."
    assert error["type"] == "ProgramExists"
    definition = {"signature": "context -> summary"}
    told = bridge.ask("load_program", program_id="p", session_id="s", definition=definition)
    assert told == {"program_id": "p", "status": "loaded"}
    assert list(execute(bridge, inputs={"context": TEXT})["outputs"]) == ["summary"]


def test_program_moves_to_another_session_as_json(bridge: BridgeProcess) -> None:
    """Definition and state are all that there is of a program."""
    create(bridge, signature=SIGNATURE, program_type="chain_of_thought")
    dump = bridge.ask("dump_program", program_id="p", session_id="s")
    dump["state"]["predict"]["signature"]["instructions"] = "Changed."
    dump["state"]["predict"]["demos"] = [{"context": "c", "question": "q", "reasoning": "r", "answer": "a"}]
    bridge.ask(
        "load_program", program_id="q", session_id="t", definition=dump["definition"], state=dump["state"]
    )
    again = bridge.ask("dump_program", program_id="q", session_id="t")
    assert again["state"] == dump["state"]
    assert (
        again["definition"]
        == dump["definition"]
        == {"signature": SIGNATURE, "program_type": "chain_of_thought"}
    )
    assert execute(bridge, "q", "t")["outputs"]["answer"] == "Rome is the capital of Italy."


def test_state_of_another_program_is_refused(bridge: BridgeProcess) -> None:
    """And leaves no half-made program behind."""
    error = bridge.refused("create_program", id="p", session_id="s", signature=SIGNATURE, state={"x": {}})
    assert error["type"] == "InvalidArgument"
    assert "state does not fit the program" in error["error"]
    assert bridge.ask("get_stats")["programs_count"] == 0


@pytest.mark.parametrize("tool", ["word_count", "awaited_word_count"])
def test_react_program_calls_its_tools(bridge: BridgeProcess, tool: str) -> None:
    """Tools come by name, from the allow-list.

    One that is a coroutine function, as those of MCP are, was taken, and each call of it failed: the model was told
    to await it, and answered without.
    """
    bridge.ask("configure_lm", model="script/react", engine=f"{PROGRAMS}:ReactEngine", session_id="s")
    create(
        bridge,
        signature="question -> answer",
        program_type="react",
        tools=[f"{PROGRAMS}:{tool}"],
        max_iters=4,
    )
    result = execute(bridge, inputs={"question": "How many words are in 'a b c'?"})
    assert result["outputs"]["answer"] == "3"
    assert result["outputs"]["trajectory"]["observation_0"] == 3
    assert result["usage"]["script/react"]["total_tokens"] == 36


@pytest.mark.skipif(
    importlib.util.find_spec("deno") is not None or shutil.which("deno") is not None,
    reason="the sandbox is here",
)
def test_program_of_thought_without_its_sandbox_is_refused(bridge: BridgeProcess) -> None:
    """A clear error at once, instead of a strange one at the first run."""
    error = bridge.refused(
        "create_program", id="p", session_id="s", signature="q -> a", program_type="program_of_thought"
    )
    assert "Deno" in error["error"]


# --- factories ---------------------------------------------------------------------------------------------


def test_factory_program_runs_without_a_model(bridge: BridgeProcess) -> None:
    """Not every program asks a model; its cost is known to be nothing."""
    assert create(bridge, factory=f"{PROGRAMS}:shouter")["program_type"] == "factory"
    result = execute(bridge, inputs={"text": "hello"})
    assert result["outputs"] == {"loud": "HELLO"}
    assert result["usage"] == {}
    assert result["cost"] == 0


@pytest.mark.parametrize("inputs", [{}, {"text": "x", "more": "y"}])
def test_inputs_of_a_factory_program_are_checked_against_its_forward(
    bridge: BridgeProcess, inputs: dict[str, Any]
) -> None:
    """Where no signature is given, the parameters are what is known."""
    create(bridge, factory=f"{PROGRAMS}:shouter")
    error = refused_run(bridge, inputs=inputs)
    assert error["type"] == "InvalidArgument"
    assert "cannot take these inputs" in error["error"]


@pytest.mark.parametrize(
    ("args", "wire_type", "problem"),
    [
        ({"factory": "os:getcwd"}, "InvalidArgument", "not on the allow-list"),
        ({"factory": f"{PROGRAMS}:no_module"}, "InvalidArgument", "returned a object, not a dspy.Module"),
        ({"factory": f"{PROGRAMS}:idle"}, "InvalidArgument", "a Idle, which has no forward and no aforward"),
        ({"factory": f"{PROGRAMS}:NO_FUNCTION"}, "InvalidArgument", "is no function"),
        ({"factory": f"{PROGRAMS}:nowhere"}, "InvalidArgument", "cannot be imported"),
        ({"factory": f"{PROGRAMS}:failing"}, "LookupError", "no such blueprint"),
        (
            {"signature": "q -> a", "program_type": "react", "tools": ["os:getcwd"]},
            "InvalidArgument",
            "not on the allow-list",
        ),
        (
            {"signature": "q -> a", "program_type": "react", "tools": [f"{PROGRAMS}:NO_FUNCTION"]},
            "InvalidArgument",
            "is no function",
        ),
    ],
)
def test_names_reach_only_what_the_worker_allows(
    bridge: BridgeProcess, args: dict[str, Any], wire_type: str, problem: str
) -> None:
    """And a factory that fails fails its command alone."""
    error = bridge.refused("create_program", id="p", session_id="s", **args)
    assert error["type"] == wire_type
    assert problem in error["error"]


def test_program_may_have_a_model_of_its_own() -> None:
    """Then none needs to be configured; what it costs is not known here."""
    with running_bridge("--allow", PROGRAMS, handler=HANDLER) as fresh:
        create(fresh, factory=f"{PROGRAMS}:thinker")
        result = execute(fresh)
        assert result["outputs"]["answer"] == "Rome is the capital of Italy."
        assert result["cost"] is None
        assert "the program's own model dspex/extractive" in result["cost_reason"]
        create(fresh, "q")
        assert "no language model is configured" in refused_run(fresh, "q")["error"]


def test_usage_in_threads_is_counted(bridge: BridgeProcess) -> None:
    """The calls of a batch used no tokens and cost nothing, as if there had been none."""
    create(bridge, "one", factory=f"{PROGRAMS}:thinker")
    create(bridge, "two", factory=f"{PROGRAMS}:parallel")
    one, two = execute(bridge, "one"), execute(bridge, "two")
    assert two["outputs"]["answers"] == [one["outputs"]] * 2
    model = "dspex/extractive"
    assert two["usage"][model]["total_tokens"] == 2 * one["usage"][model]["total_tokens"] > 0
    assert two["cost"] is None


def test_program_may_take_the_best_of_several_answers(bridge: BridgeProcess) -> None:
    """``BestOfN`` and ``Refine`` write to DSPy's trace, and failed after the last answer where there was none."""
    create(bridge, "one", factory=f"{PROGRAMS}:thinker")
    create(bridge, "best", factory=f"{PROGRAMS}:chooser")
    one, best = execute(bridge, "one"), execute(bridge, "best")
    assert best["outputs"] == one["outputs"]
    model = "dspex/extractive"
    assert best["usage"][model]["total_tokens"] == 2 * one["usage"][model]["total_tokens"] > 0


def test_settings_of_a_program_are_its_own(bridge: BridgeProcess) -> None:
    """What one session's program configured held for the programs of all sessions of that worker."""
    for session_id, factory in (("a", "configured"), ("b", "settings"), ("c", "configured")):
        create(bridge, session_id=session_id, factory=f"{PROGRAMS}:{factory}")
    told: dict[str, Any] = {"num_threads": 8, "of_its_own": None, "callbacks": []}
    assert execute(bridge, session_id="a", inputs={"more": 77})["outputs"]["max_errors"] == 31
    assert execute(bridge, session_id="b", inputs={})["outputs"] == {"max_errors": 10, **told}
    assert execute(bridge, session_id="c", inputs={})["outputs"] == {"max_errors": 31, **told}
    # As in one process, a run is followed by the next in the settings that it left.
    kept = execute(bridge, session_id="a", inputs={})["outputs"]
    assert (kept["num_threads"], kept["of_its_own"]) == (77, 77)


# --- sessions ----------------------------------------------------------------------------------------------


def test_sessions_are_apart_and_cleaned_alone(bridge: BridgeProcess) -> None:
    """A tenant sees, runs and cleans only its own programs (R25)."""
    create(bridge, "p", "a")
    create(bridge, "q", "a")
    create(bridge, "p", "b")
    assert refused_run(bridge, "q", "b")["type"] == "ProgramNotFound"
    assert bridge.ask("ping")["current_session"] == "b"
    assert bridge.ask("cleanup_session", session_id="a") == {
        "status": "cleaned",
        "session_id": "a",
        "programs_removed": 2,
    }
    assert bridge.ask("list_programs", session_id="a") == {"programs": [], "total_count": 0}
    assert bridge.ask("list_programs", session_id="b")["total_count"] == 1


def test_cleanup_and_reset_forget_all_sessions(bridge: BridgeProcess) -> None:
    """Reset also forgets the counts."""
    create(bridge, "p", "a")
    create(bridge, "p", "b")
    assert bridge.ask("cleanup") == {"status": "cleaned", "programs_removed": 2}
    create(bridge, "p", "a")
    bridge.refused("no_such_command")
    told = bridge.ask("reset_state")
    assert told["status"] == "reset"
    assert told["programs_cleared"] == 1
    assert told["commands_reset"] > 4
    assert told["errors_reset"] == 1
    assert bridge.ask("get_stats")["command_count"] == 1


def test_language_model_of_a_session_is_its_own(bridge: BridgeProcess) -> None:
    """Sessions without one use the worker's; the end of the session ends its model (R21)."""
    limited = {"model": "script/limited", "engine": f"{PROGRAMS}:RateLimitedEngine"}
    bridge.ask("configure_lm", **limited, session_id="a")
    create(bridge, "p", "a")
    create(bridge, "p", "b")
    assert refused_run(bridge, "p", "a")["type"] == "LMRateLimitError"
    assert execute(bridge, "p", "b")["outputs"]
    bridge.ask("cleanup_session", session_id="a")
    create(bridge, "p", "a")
    assert execute(bridge, "p", "a")["outputs"]


def test_standalone_worker_ignores_sessions() -> None:
    """Programs are global, and nobody needs to name a session."""
    with running_bridge("--mode", "standalone", handler=HANDLER) as bridge:
        bridge.ask("create_program", id="p", signature=SIGNATURE, session_id="a")
        assert bridge.ask("configure_lm", model="dspex/extractive", session_id="b")["status"] == "configured"
        assert bridge.ask("execute_program", program_id="p", inputs=INPUTS)["outputs"]
        assert "current_session" not in bridge.ask("ping")
        assert bridge.ask("cleanup_session", session_id="c")["programs_removed"] == 1
        assert bridge.refused("execute_program", program_id="p", inputs=INPUTS)["type"] == "ProgramNotFound"
        assert bridge.ask("shutdown")["sessions_cleaned"] == 0
        assert bridge.wait() == 0


def test_shutdown_tells_how_many_sessions_went() -> None:
    """A version 1 client is served, too, and sees no usage."""
    with running_bridge(handler=HANDLER, handshake=False) as bridge:
        bridge.handshake(protocol=1)
        bridge.ask("configure_lm", engine="extractive", session_id="a")
        create(bridge, "p", "a")
        assert set(execute(bridge, "p", "a")) == {"program_id", "outputs", "execution_time"}
        create(bridge, "p", "b")
        assert bridge.ask("shutdown")["sessions_cleaned"] == 2
        assert bridge.wait() == 0


# --- language models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({"model": "openai/gpt-5", "temperature": 0.3}, "reasoning models require"),
        ({"model": "openai/"}, "no model id"),
        ({"model": "a/b", "engine": "os:getcwd"}, "not on the allow-list"),
        ({"model": "a/b", "engine": f"{PROGRAMS}:BrokenEngine"}, "no such machine"),
        ({"model": "a/b", "engine": f"{PROGRAMS}:word_count"}, "cannot be configured"),
        ({"model": "a/b", "api_key_env": "NO_SUCH_VARIABLE"}, "not set in the worker's environment"),
    ],
)
def test_model_that_cannot_be_configured_is_a_failure(
    bridge: BridgeProcess, args: dict[str, Any], problem: str
) -> None:
    """Never a success with an error in it (R32)."""
    error = bridge.refused("configure_lm", **args)
    assert error["type"] == "InvalidArgument"
    assert problem in error["error"]


def test_options_of_a_run_are_checked(bridge: BridgeProcess) -> None:
    """An option that has no effect is refused, not ignored."""
    create(bridge)
    assert execute(bridge, options={"temperature": 0.1, "max_tokens": 50})["outputs"]
    assert "known are temperature, max_tokens" in refused_run(bridge, options={"speed": 9})["error"]
    assert "temperature must be" in refused_run(bridge, options={"temperature": "hot"})["error"]


def test_options_are_refused_where_they_would_change_nothing(bridge: BridgeProcess) -> None:
    """A program with models of its own alone ran, at its own temperature, as if it had been asked with another."""
    create(bridge, factory=f"{PROGRAMS}:thinker")
    assert "own model" in refused_run(bridge, options={"temperature": 0.1})["error"]
    assert execute(bridge, options={})["outputs"]
    create(bridge, "borrower", factory=f"{PROGRAMS}:borrower")
    for _ in range(2):
        assert execute(bridge, "borrower", options={"temperature": 0.1})["outputs"]
    with running_bridge("--allow", PROGRAMS, handler=HANDLER) as fresh:
        create(fresh, factory=f"{PROGRAMS}:shouter")
        refusal = refused_run(fresh, inputs={"text": "hi"}, options={"max_tokens": 5})
        assert refusal["type"] == "InvalidArgument"


def test_providers_refusal_travels_with_code_status_and_advice(bridge: BridgeProcess) -> None:
    """What DSPy knows about an error reaches whoever decides on another try."""
    bridge.ask("configure_lm", model="script/limited", engine=f"{PROGRAMS}:RateLimitedEngine")
    create(bridge)
    error = refused_run(bridge)
    assert error["type"] == "LMRateLimitError"
    assert error["code"] == "rate_limit"
    assert error["status"] == 429
    assert error["retry_after_s"] == 0.01
    assert error["retryable"] is True
    assert "slow down" in error["error"]


def test_http_model_is_asked_with_its_key_settings_and_price(
    bridge: BridgeProcess, lm_server: LMServer
) -> None:
    """The key comes by the name of a variable; options change one run; the cost is known and told."""
    bridge.ask(
        "configure_lm",
        model="openai/gpt-4o-mini",
        api_base=lm_server.api_base,
        api_key_env="TEST_API_KEY",
        temperature=0.2,
    )
    create(bridge)
    lm_server.script.reply({"answer": "Rome"}, input_tokens=1000, output_tokens=100, times=2)
    first, second = execute(bridge), execute(bridge, options={"temperature": 0.9})
    assert first["outputs"] == second["outputs"] == {"answer": "Rome"}
    assert first["usage"]["openai/gpt-4o-mini"]["total_tokens"] == 1100
    assert 0 < first["cost"] < 0.01
    assert first["cost_reason"] is None
    # Asked twice, although the question was the same: no cache is shared between tenants.
    assert [request.settings["temperature"] for request in lm_server.script.received] == [0.2, 0.9]
    assert {request.api_key for request in lm_server.script.received} == {KEY}


@pytest.mark.parametrize("factory", ["asynchronous", "coroutine"])
def test_calls_in_an_event_loop_are_priced_too(
    bridge: BridgeProcess, lm_server: LMServer, factory: str
) -> None:
    """A program may ask its model however it likes; one that had an ``aforward`` alone could not be run."""
    bridge.ask(
        "configure_lm", model="openai/gpt-4o-mini", api_base=lm_server.api_base, api_key_env="TEST_API_KEY"
    )
    lm_server.script.reply({"answer": "Rome"})
    create(bridge, factory=f"{PROGRAMS}:{factory}")
    result = execute(bridge)
    assert result["outputs"] == {"answer": "Rome"}
    assert result["cost"] > 0


def test_call_outside_of_a_run_is_entered_nowhere() -> None:
    """A factory may ask a model before there is a ledger."""
    from dspex_pool.bridge import programs
    from dspex_pool.bridge.lm import read_settings

    settings = read_settings({"model": "script/react", "engine": f"{PROGRAMS}:ReactEngine"}, {})
    model = programs.build_lm(settings, [PROGRAMS])
    assert "count" in model("How many?")[0]
    assert model.history == []


def test_program_of_thought_is_made_where_its_sandbox_is() -> None:
    """DSPy needs the sandbox only when the program runs."""
    from dspex_pool.bridge import programs
    from dspex_pool.bridge.definitions import Definition
    from dspex_pool.bridge.signatures import parse_signature

    definition = Definition(program_type="program_of_thought", spec=parse_signature("q -> a"), max_iters=2)
    with pytest.warns(DeprecationWarning, match="ProgramOfThought"):
        module = programs.build_module(definition, (), {})
    assert module.max_iters == 2


def test_key_is_never_told_back(bridge: BridgeProcess, lm_server: LMServer) -> None:
    """Not in answers, failures, logs, dumps or on stderr; whoever repeats it (R49, R91)."""
    wrong = "sk-wrong-0815-do-not-tell"
    lm_server.script.fail(401, message=f"Incorrect API key provided: {wrong}", times=1)
    replies = [
        bridge.ask(
            "configure_lm",
            model="openai/gpt-4o-mini",
            api_base=lm_server.api_base,
            api_key=wrong,
            session_id="s",
        ),
        create(bridge),
        refused_run(bridge),
        bridge.ask("dump_program", program_id="p", session_id="s"),
        bridge.ask("get_program_info", program_id="p", session_id="s"),
        bridge.ask("ping"),
        bridge.ask("get_stats"),
    ]
    refusal = replies[2]
    assert refusal["type"] == "LMAuthError"
    assert refusal["status"] == 401
    assert refusal["retryable"] is False
    said = json.dumps([replies, bridge.events]) + bridge.stderr()
    assert "[secret]" in refusal["error"]
    assert wrong not in said
    assert KEY not in said


def test_key_of_the_environment_is_never_told_either(bridge: BridgeProcess, lm_server: LMServer) -> None:
    """DSPy takes it where no other was given, so nobody had named it to the worker; failures repeated it in full."""
    who = "ann:pass-2342-do-not-tell"
    lm_server.script.fail(401, message=f"Incorrect API key provided: {KEY}, by {who}", times=1)
    for api_base in (lm_server.api_base.replace("://", f"://{who}@"), lm_server.api_base):
        bridge.ask("configure_lm", model="openai/gpt-4o-mini", api_base=api_base, api_key="any")
    create(bridge)
    failure = refused_run(bridge)
    assert "provided: [secret], by [secret]" in failure["error"]
    told = json.dumps([failure, bridge.events]) + bridge.stderr()
    assert KEY not in told
    assert "pass-2342" not in told


def test_key_that_is_no_text_is_refused_untold(bridge: BridgeProcess) -> None:
    """The refusal repeated a key of digits that had lost its quotes on the way."""
    error = bridge.refused("configure_lm", model="openai/gpt-4o-mini", api_key=471108154711)
    assert error["type"] == "InvalidArgument"
    assert "471108154711" not in json.dumps(error)


def test_nothing_is_written_to_the_home_of_the_worker(bridge: BridgeProcess, folder: Path) -> None:
    """No disk cache: its keys ignore endpoint and key, so tenants would share answers."""
    create(bridge)
    execute(bridge)
    assert list(folder.iterdir()) == []


# --- logs and cancellation ---------------------------------------------------------------------------------


def test_logs_of_programs_and_of_dspy_reach_the_client(bridge: BridgeProcess) -> None:
    """With worker, session and request; nothing is printed a second time."""
    create(bridge, factory=f"{PROGRAMS}:shouter")
    before = bridge.stderr()
    request_id = bridge.send(
        "execute_program", {"program_id": "p", "session_id": "s", "inputs": {"text": "hi"}}
    )
    bridge.answer()
    (event,) = bridge.events
    assert event["id"] == request_id
    assert event["data"]["message"] == "shouting 2 characters"
    assert event["data"]["session_id"] == "s"
    assert event["data"]["worker_id"] == "w-1"
    assert bridge.stderr() == before


def test_running_program_is_cancelled_and_the_next_one_runs(bridge: BridgeProcess) -> None:
    """The session keeps its programs."""
    create(bridge, factory=f"{PROGRAMS}:patient")
    bridge.send("execute_program", {"program_id": "p", "session_id": "s", "inputs": {"seconds": 600}})
    assert bridge.announced()["data"]["message"] == "sleeping"
    bridge.interrupt()
    assert bridge.answer()["error_info"]["type"] == "Cancelled"
    assert execute(bridge, inputs={"seconds": 0})["outputs"] == {"slept": 0}


def test_running_coroutine_is_cancelled_and_the_next_one_runs(bridge: BridgeProcess) -> None:
    """The event loop that waits for it ends with it."""
    create(bridge, factory=f"{PROGRAMS}:coroutine")
    bridge.send(
        "execute_program", {"program_id": "p", "session_id": "s", "inputs": {**INPUTS, "seconds": 600}}
    )
    assert bridge.announced()["data"]["message"] == "sleeping"
    bridge.interrupt()
    assert bridge.answer()["error_info"]["type"] == "Cancelled"
    assert refused_run(bridge, inputs={})["type"] == "InvalidArgument"
    # The embedded model refused to be awaited.
    assert execute(bridge)["outputs"] == {"answer": "Rome is the capital of Italy."}


def test_cancellation_waits_for_the_import_of_dspy() -> None:
    """An import that was cut short would leave a worker that fails in strange ways for ever."""
    with running_bridge(handler=HANDLER) as bridge:
        bridge.send("create_program", {"id": "p", "session_id": "s", "signature": SIGNATURE})
        while not bridge.has_said(within=0.02):
            bridge.interrupt()
        reply = bridge.answer()
        assert reply["success"] or reply["error_info"]["type"] == "Cancelled"
        bridge.ask("configure_lm", engine="extractive")
        if not reply["success"]:
            create(bridge)
        assert execute(bridge)["outputs"]


def test_worker_without_dspy_serves_what_needs_none_and_says_so(tmp_path: Path) -> None:
    """The handshake works, programs fail with the reason, and the worker lives on."""
    (tmp_path / "dspy.py").write_text("raise ImportError('no dspy today')")
    with running_bridge(handler=HANDLER, env={"PYTHONPATH": str(tmp_path)}) as bridge:
        error = bridge.refused("create_program", id="p", session_id="s", signature=SIGNATURE)
        assert error["type"] == "DspyUnavailableError"
        assert "no dspy today" in error["error"]
        assert bridge.ask("list_programs", session_id="s")["total_count"] == 0
