"""The extractive engine under real DSPy: its adapters write the prompts and parse the answers."""

from __future__ import annotations

import asyncio
import enum
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from dspex_pool.bridge.awaited_engine import AwaitedEngine
from dspex_pool.bridge.extractive import MODEL, ExtractiveEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NILE = (
    "The Nile flows north through eleven countries. It is about 6,650 kilometres long. "
    "Its delta lies in Egypt. Ships do not pass the cataracts."
)
LENGTH = "How many kilometres long is the Nile?"


class Country(enum.Enum):
    """Countries with a delta."""

    AT_THE_NILE = "Egypt"
    AT_THE_GANGES = "India"


@pytest.fixture(scope="module")
def dspy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """DSPy, imported when the first test runs, with its cache in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSPY_CACHEDIR", str(tmp_path_factory.mktemp("cache")))
        return pytest.importorskip("dspy", reason="needs the extra dspy")


@pytest.fixture(params=["ChatAdapter", "JSONAdapter"])
def lm(dspy: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The engine as the language model of the context, once with each adapter."""
    model = dspy.LM(MODEL, engine=ExtractiveEngine(), cache=False)
    adapter = getattr(dspy, request.param)()
    with dspy.context(lm=model, adapter=adapter, track_usage=True, disable_history=False):
        yield model


def test_predict_answers_with_a_sentence_of_the_context(dspy: Any, lm: Any) -> None:
    """The plainest program works, and one call of the model is enough."""
    result = dspy.Predict("context, question -> answer")(context=NILE, question="Where does the delta lie?")
    assert result.answer == "Its delta lies in Egypt."
    assert len(lm.history) == 1


def test_chain_of_thought_tells_how_the_sentence_was_chosen(dspy: Any, lm: Any) -> None:
    """The reasoning is true of the engine."""
    result = dspy.ChainOfThought("context, question -> answer")(context=NILE, question=LENGTH)
    assert result.answer == "It is about 6,650 kilometres long."
    assert result.reasoning.startswith("Sentence 2 of 4 matches 3 of 3 content words of the question")


def test_usage_counts_words(dspy: Any, lm: Any) -> None:
    """DSPy's usage tracking sees what was read and what was written."""
    result = dspy.Predict("context, question -> answer")(context=NILE, question=LENGTH)
    usage = result.get_lm_usage()[MODEL]
    assert usage["prompt_tokens"] > len(NILE.split())
    assert usage["completion_tokens"] >= len(result.answer.split())
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_typed_fields_are_parsed(dspy: Any, lm: Any) -> None:
    """DSPy reads back a value of each type that the engine can take from a sentence."""

    class Facts(dspy.Signature):  # type: ignore[misc] # dspy's types are not known to the checker
        """Answer."""

        context: str = dspy.InputField()
        question: str = dspy.InputField()
        answer: str = dspy.OutputField(desc="one sentence (short): if known")
        length: int = dspy.OutputField()
        exact: float = dspy.OutputField()
        confidence: float = dspy.OutputField()
        number: int | None = dspy.OutputField()
        proofs: list[str] = dspy.OutputField()
        unit: Literal["miles", "kilometres"] = dspy.OutputField()

    class Place(dspy.Signature):  # type: ignore[misc] # dspy's types are not known to the checker
        """Answer."""

        context: str = dspy.InputField()
        question: str = dspy.InputField()
        where: Country = dspy.OutputField()
        year: int | None = dspy.OutputField()
        note: str | None = dspy.OutputField()

    facts = dspy.Predict(Facts)(context=NILE, question=LENGTH)
    assert (facts.length, facts.exact, facts.number, facts.unit) == (6650, 6650.0, 6650, "kilometres")
    assert facts.proofs == [facts.answer]
    assert 0.5 < facts.confidence <= 1
    place = dspy.Predict(Place)(context=NILE, question="Where does the delta lie?")
    assert (place.where, place.year, place.note) == (Country.AT_THE_NILE, None, "Its delta lies in Egypt.")


@pytest.mark.parametrize(
    ("question", "truth"), [("Does the Nile flow north?", True), ("Do ships pass the cataracts?", False)]
)
def test_truth_is_read_from_the_text(dspy: Any, lm: Any, question: str, truth: bool) -> None:
    """What a sentence states is true, and what it denies is not."""
    program = dspy.Predict("context, question -> truth: bool, word: Literal['yes', 'no']")
    result = program(context=NILE, question=question)
    assert (result.truth, result.word) == (truth, "yes" if truth else "no")


def test_nothing_known_is_said_and_left_out(dspy: Any, lm: Any) -> None:
    """Without a text there is no answer, and optional fields are ``None`` in each form."""
    program = dspy.Predict("context, question -> answer, year: Optional[int], note: Optional[str]")
    result = program(context="", question="Who dug the canal?")
    assert result.answer == "I do not know: there is no text to answer from."
    assert (result.year, result.note) == (None, None)


@pytest.mark.parametrize(
    ("outputs", "field"),
    [("year: int", "year"), ("answer, table: dict", "table"), ("kind: Literal['a','b']", "kind")],
)
def test_field_without_a_value_fails_once_and_clearly(dspy: Any, lm: Any, outputs: str, field: str) -> None:
    """The error names the field, and neither DSPy nor its adapter tries again."""
    calls: list[object] = []
    complete = lm.engine.complete

    def counted(request: object) -> object:
        calls.append(request)
        return complete(request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm.engine, "complete", counted)
        with pytest.raises(dspy.LMUnsupportedFeatureError, match=f"cannot fill the field '{field}'"):
            dspy.Predict(f"context, question -> {outputs}")(context=NILE, question="Where is the delta?")
    assert len(calls) == 1


def test_examples_in_the_prompt_are_not_taken_for_the_text(dspy: Any, lm: Any) -> None:
    """Demonstrations are other questions; only the last one is answered."""
    program = dspy.Predict("context, question -> answer")
    program.demos = [
        dspy.Example(context="The delta of the Po lies in Italy.", question="Where?", answer="In Italy.")
    ]
    assert program(context=NILE, question="Where does the delta lie?").answer == "Its delta lies in Egypt."


def test_list_of_passages_is_read(dspy: Any, lm: Any) -> None:
    """Passages are found in lists, typed or not."""
    for inputs in ("passages: list[str], question", "passages, question"):
        result = dspy.Predict(f"{inputs} -> answer")(
            passages=["Cats purr.", "Dogs bark"], question="Who barks?"
        )
        assert result.answer == "Dogs bark"


def test_react_finishes_and_extracts(dspy: Any, lm: Any) -> None:
    """An agent over this engine uses no tool, and answers from its inputs."""

    def search(query: str) -> str:
        """Search."""
        raise AssertionError(f"the engine chose a tool: {query}")

    agent = dspy.ReAct("context, question -> answer", tools=[search], max_iters=3)
    result = agent(context=NILE, question="Where does the delta lie?")
    assert result.answer == "Its delta lies in Egypt."
    assert result.trajectory["tool_name_0"] == "finish"


def test_program_is_saved_and_loaded_with_the_engine(dspy: Any, tmp_path: Path) -> None:
    """A program's JSON may hold the engine, which has no state."""
    program = dspy.Predict("context, question -> answer")
    program.set_lm(dspy.LM(MODEL, engine=ExtractiveEngine(), cache=False))
    program.save(tmp_path / "program.json")
    loaded = dspy.Predict("context, question -> answer")
    loaded.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
    assert loaded(context=NILE, question="Where does the delta lie?").answer == "Its delta lies in Egypt."


def test_awaited_engine_is_saved_and_loaded_with_the_plain_one(dspy: Any, tmp_path: Path) -> None:
    """DSPy refuses to save a model one of whose engines cannot be saved."""
    program = dspy.Predict("context, question -> answer")
    engine = ExtractiveEngine()
    program.set_lm(dspy.LM(MODEL, engine=engine, async_engine=AwaitedEngine(engine), cache=False))
    program.save(tmp_path / "program.json")
    loaded = dspy.Predict("context, question -> answer")
    loaded.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
    told = asyncio.run(loaded.acall(context=NILE, question="Where does the delta lie?"))
    assert told.answer == "Its delta lies in Egypt."


def test_awaited_engine_streams_what_the_plain_one_does(dspy: Any) -> None:
    """Event by event."""
    asked = dspy.lm15.Request(model=MODEL, messages=(dspy.lm15.Message.user("It rains. What does it do?"),))

    async def streamed() -> list[Any]:
        engine = AwaitedEngine(ExtractiveEngine())
        events = [event async for event in engine.stream(asked)]
        await engine.aclose()
        return events

    assert asyncio.run(streamed()) == list(ExtractiveEngine().stream(asked))


def test_prompt_without_adapter_is_answered(dspy: Any, lm: Any) -> None:
    """The model can be called with text."""
    assert lm("Cats purr. Dogs bark. Which animals bark?") == ["Dogs bark."]


def test_threads_share_one_engine(dspy: Any, lm: Any) -> None:
    """The engine has no state that calls could disturb."""
    answers: list[str] = []

    def ask(number: int) -> None:
        answers.extend(lm(f"Item {number} is here. Which item is here?"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == [f"Item {number} is here." for number in range(8)]


class TestRequests:
    """Requests that no adapter of DSPy writes."""

    def test_stream_ends_with_the_whole_answer(self, dspy: Any) -> None:
        """A stream has a start, the text and an end with the usage."""
        lm15 = dspy.lm15
        request = lm15.Request(model=MODEL, messages=(lm15.Message.user("Dogs bark. Who barks?"),))
        events = list(ExtractiveEngine().stream(request))
        assert (events[0].type, events[-1].type) == ("start", "end")
        assert "".join(event.delta.text for event in events[1:-1]) == "Dogs bark."
        ExtractiveEngine().close()

    def test_system_message_in_parts_is_read(self, dspy: Any) -> None:
        """A system message may come in pieces."""
        lm15 = dspy.lm15
        parts = (lm15.TextPart("Be "), lm15.TextPart("brief."))
        request = lm15.Request(model=MODEL, messages=(lm15.Message.user("Dogs bark."),), system=parts)
        assert ExtractiveEngine().complete(request).usage.input_tokens == 4

    def test_native_tools_are_refused(self, dspy: Any) -> None:
        """Tools that would never be called are not accepted in silence."""
        lm15 = dspy.lm15
        request = lm15.Request(
            model=MODEL, messages=(lm15.Message.user("Hi."),), tools=(lm15.FunctionTool(name="search"),)
        )
        with pytest.raises(lm15.UnsupportedFeatureError, match="calls no tools"):
            ExtractiveEngine().complete(request)

    def test_images_are_refused(self, dspy: Any) -> None:
        """What cannot be read is not passed over."""
        lm15 = dspy.lm15
        image = lm15.ImagePart(url="data:image/png;base64,AAAA", media_type="image/png")
        for message in (lm15.Message.user([lm15.TextPart("See:"), image]), lm15.Message.assistant("Hi.")):
            with pytest.raises(lm15.UnsupportedFeatureError, match="reads text alone"):
                ExtractiveEngine().complete(lm15.Request(model=MODEL, messages=(message,)))


OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"network: {args}")
socket.socket.connect = socket.getaddrinfo = refuse
from dspex_pool.bridge.awaited_engine import AwaitedEngine
from dspex_pool.bridge.extractive import MODEL, ExtractiveEngine
assert "dspy" not in sys.modules
import dspy
with dspy.context(lm=dspy.LM(MODEL, engine=ExtractiveEngine(), cache=False)):
    print(dspy.ChainOfThought("context, question -> answer")(context="Dogs bark.", question="Who barks?").answer)
assert not {"litellm", "openai", "trio"} & set(sys.modules)
"""


def test_engine_needs_no_network_and_no_provider(tmp_path: Path) -> None:
    """A call opens no connection and loads no client, and the module does not load DSPy."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DSPY_CACHEDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "Dogs bark.\n"), done.stderr
