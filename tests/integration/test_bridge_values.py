"""What programs take and return, and what their dumps tell, as JSON has it: the DSPy bridge in a real process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.bridge_process import BridgeProcess, running_bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

PROGRAMS = "dspex_testkit.children.dspy_programs"
OF_SESSION = {"program_id": "p", "session_id": "s"}
INPUTS = {"context": "Ann is here.", "question": "Who is here?"}


@pytest.fixture(scope="module")
def shared() -> Iterator[BridgeProcess]:
    """A worker that all tests of this module may use; none may break it."""
    with running_bridge("--allow", PROGRAMS, handler="dspex_pool.bridge.dspy_handler:DspyHandler") as bridge:
        bridge.ask("configure_lm", engine="extractive")
        yield bridge


@pytest.fixture
def bridge(shared: BridgeProcess) -> BridgeProcess:
    """The shared worker, without programs."""
    shared.ask("reset_state")
    return shared


def create(bridge: BridgeProcess, factory: str) -> None:
    """Create a program by one of the test kit's factories."""
    bridge.ask("create_program", id="p", session_id="s", factory=f"{PROGRAMS}:{factory}")


def test_pictures_and_turns_of_a_conversation_are_shown_to_the_model(bridge: BridgeProcess) -> None:
    """DSPy knows both by type, which JSON has not.

    Of a picture the model was shown its address in a text, and a history ended the run in ``'dict' object has no
    attribute 'messages'``.
    """
    create(bridge, "seer")
    turn = {"images": [], "question": "q", "answer": "a"}
    shown = [
        bridge.ask(
            "execute_program",
            **OF_SESSION,
            inputs={
                "images": [{"url": "http://127.0.0.1/x.png"}] * count,
                "history": {"messages": [turn] * count},
                "question": "and now?",
            },
        )["outputs"]["answer"]
        for count in (0, 1, 2)
    ]
    assert shown == ["1 and 0", "3 and 1", "5 and 2"]


@pytest.mark.parametrize(
    "wrong",
    [{"history": {"turns": []}}, {"history": "hello"}, {"images": ["/etc/hostname"]}, {"images": [{}]}],
)
def test_input_that_does_not_fit_a_type_of_dspy_is_refused_by_its_name(
    bridge: BridgeProcess, wrong: dict[str, Any]
) -> None:
    """What is wrong is in the inputs, and told as that. No file is read, whatever is named."""
    create(bridge, "seer")
    inputs = {"question": "and now?", "images": [], "history": {"messages": []}} | wrong
    error = bridge.refused("execute_program", **OF_SESSION, inputs=inputs)
    assert error["type"] == "InvalidArgument"
    assert f"input {next(iter(wrong))!r} does not fit its type" in error["message"]


@pytest.mark.parametrize("factory", ["thinker", "chooser"])
@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"question": "q"}, "misses the input 'context'"),
        (INPUTS | {"config": {"api_base": "http://127.0.0.1:1"}}, "'config'"),
        (INPUTS | {"demos": [{"context": "c", "question": "q", "answer": "a"}]}, "'demos'"),
        (INPUTS | {"max_iters": 10**9}, "'max_iters'"),
    ],
)
def test_inputs_of_dspys_own_modules_are_data_and_all_there(
    bridge: BridgeProcess, factory: str, inputs: dict[str, Any], problem: str
) -> None:
    """They take any input by name: what was missing was not asked for, and paid; ``config`` is no data.

    A row with a ``config`` had the session's key sent to an address of its own.
    """
    create(bridge, factory)
    error = bridge.refused("execute_program", **OF_SESSION, inputs=inputs)
    assert error["type"] == "InvalidArgument"
    assert problem in error["error"]


def test_inputs_of_other_types_are_sent_as_they_are(bridge: BridgeProcess) -> None:
    """DSPy only warns of those that do not fit; what may be null need not be there."""
    create(bridge, "easygoing")
    inputs = {"question": "Who is here?", "context": "Ann is here.", "max_iters": "five", "names": "none"}
    assert bridge.ask("execute_program", **OF_SESSION, inputs=inputs)["outputs"] == {"answer": "Ann is here."}


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("object", {"it": 1}),
        ("typed", {"it": ["red", "2026-02-03", "2026-02-03T04:05:00"]}),
        ("record", {"it": [{"a": [1, 2], "image": {"url": "http://127.0.0.1/x.png"}}]}),
        ("parsed", {"it": ["1.10", "00000000-0000-0000-0000-000000000005", [3], "Ann", "PT5S"]}),
        ("keys", {"it": {"1": "a", "red": "b", "2026-02-03": "c"}}),
    ],
)
def test_records_in_outputs_travel_as_objects(
    bridge: BridgeProcess, kind: str, outputs: dict[str, Any]
) -> None:
    """Examples, pydantic's records and DSPy's own types; and what travelled in such records only.

    That is enums, dates, decimal numbers, UUIDs, sets and the keys of ``dict[int, str]``: a program whose signature
    has an output of such a type asked its model, and failed.
    """
    create(bridge, "teller")
    told = bridge.ask("execute_program", **OF_SESSION, inputs={"kind": kind})["outputs"]
    if kind == "record":
        image = told["it"][0].pop("image")
        assert "http://127.0.0.1/x.png" in json.dumps(image)
        outputs["it"][0].pop("image")
    assert told == outputs


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("anything", "result.outputs.it[0] is of type object"),
        ("same keys", "a key of result.outputs.it is"),
        ("text", "returned a str"),
    ],
)
def test_outputs_that_cannot_travel_are_a_failure_with_the_place(
    bridge: BridgeProcess, kind: str, problem: str
) -> None:
    """Never "no answer" (R51, R90)."""
    create(bridge, "teller")
    assert problem in bridge.refused("execute_program", **OF_SESSION, inputs={"kind": kind})["error"]


def test_trajectory_tells_what_the_model_was_shown(bridge: BridgeProcess) -> None:
    """A tool of ReAct may return any object; its program failed with all answers of the model paid for.

    DSPy shows the model the text of what JSON cannot carry.
    """
    create(bridge, "teller")
    told = bridge.ask("execute_program", **OF_SESSION, inputs={"kind": "told"})["outputs"]["trajectory"]
    assert told["observation_0"] == "[<class 'object'>, nan, b'\\xff']"
    assert told["observation_1"] == {"1": "red"}


def test_dump_holds_no_secret_of_the_model_of_a_program(bridge: BridgeProcess) -> None:
    """DSPy leaves out ``api_key`` alone: headers, tokens and passwords were dumped."""
    create(bridge, "secretive")
    dump = bridge.ask("dump_program", **OF_SESSION)
    assert "hush" not in json.dumps(dump)
    lm = dump["state"]["predict"]["lm"]
    assert (lm["model"], lm["max_tokens"]) == ("openai/m", 77)
    assert (lm["api_base"], lm["extra_body"]) == ("http://127.0.0.1:1/v1#x", {"top_k": 3, "user": {}})
    bridge.ask(
        "load_program", program_id="q", session_id="t", **{k: dump[k] for k in ("definition", "state")}
    )


def test_model_of_a_session_is_no_part_of_a_dump(bridge: BridgeProcess) -> None:
    """A program that had kept it could be dumped, and its dump not be loaded: the class is the bridge's own."""
    create(bridge, "borrower")
    inputs = {"context": "Rome is the capital of Italy.", "question": "What is the capital of Italy?"}
    outputs = bridge.ask("execute_program", **OF_SESSION, inputs=inputs)["outputs"]
    dump = bridge.ask("dump_program", **OF_SESSION)
    assert dump["state"]["predict"]["lm"] is None
    bridge.ask("load_program", **OF_SESSION, definition=dump["definition"], state=dump["state"])
    assert bridge.ask("execute_program", **OF_SESSION, inputs=inputs)["outputs"] == outputs
