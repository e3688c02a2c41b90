"""PROGRAM is understood in its three forms, and whatever is none of them is refused with a reason."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.cli.problems import CliError
from dspex_pool.cli.program import (
    LmChoice,
    ProgramChoice,
    UnfitRowError,
    choose_lm,
    choose_program,
)
from dspex_pool.cli.rows import Row
from tests.cases import case

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def saved(tmp_path: Path, content: Any) -> str:
    """Write a JSON file and return its path."""
    path = tmp_path / "program.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def inputs(program: ProgramChoice) -> list[str]:
    """Return the names of a program's inputs."""
    assert program.spec is not None
    return [field.name for field in program.spec.inputs]


def test_signature_is_a_program() -> None:
    """The kind of module is predict unless another is named."""
    program = choose_program("context, question -> answer")
    assert program.definition == {"signature": "context, question -> answer", "program_type": "predict"}
    assert inputs(program) == ["context", "question"]
    assert choose_program("a -> b", module="react").definition["program_type"] == "react"


def test_text_that_is_no_signature_is_refused() -> None:
    """Before a worker starts; the message says what is wrong and shows how one looks."""
    for signature in ["-> b", "a ->", "a b -> c", "a: strr -> c", "1 -> c", "a -> b -> c"]:
        with case(signature):
            with pytest.raises(CliError, match=r"PROGRAM: signature .*; a signature is such as"):
                choose_program(signature)


def test_tools_are_part_of_a_react_program() -> None:
    """And of no other."""
    program = choose_program("a -> b", module="react", tools=["m:f"])
    assert program.definition["tools"] == ["m:f"]
    assert program.needs_allow
    assert not choose_program("a -> b").needs_allow
    for module in (None, "predict"):
        with pytest.raises(CliError, match="--tool is for --module react"):
            choose_program("a -> b", module=module, tools=["m:f"])


def test_unknown_module_kind_names_the_known_ones() -> None:
    """Nobody has to look them up."""
    with pytest.raises(CliError, match=r"'predikt' is unknown: use predict, chain_of_thought, react"):
        choose_program("a -> b", module="predikt")


def test_factory_is_a_program_whose_inputs_are_its_own_affair() -> None:
    """A row's other fields all go to it."""
    program = choose_program("shop.bots:build")
    assert program.definition == {"factory": "shop.bots:build"}
    row = Row(1, "a", {"id": "a", "q": 1, "tenant": "x", "expected": 2})
    assert program.needs_allow
    assert program.inputs_of(row, without=frozenset({"id", "tenant", "expected"})) == {"q": 1}


def test_saved_program_brings_definition_and_state(tmp_path: Path) -> None:
    """The file that dump_program gives is a program, with its signature as text or as fields."""
    fields = {"inputs": [{"name": "q"}], "outputs": [{"name": "a"}]}
    for signature in ("q -> a", fields):
        path = saved(
            tmp_path, {"program_id": "p", "definition": {"signature": signature}, "state": {"demos": []}}
        )
        program = choose_program(path)
        assert inputs(program) == ["q"]
        assert program.state == {"demos": []}
        assert program.definition == {"signature": signature}


def test_saved_factory_is_a_program(tmp_path: Path) -> None:
    """A definition may name a factory; its inputs are not known."""
    path = saved(tmp_path, {"definition": {"factory": "m:f"}})
    assert choose_program(path).spec is None
    assert choose_program(path).state is None


def test_state_file_alone_needs_its_signature(tmp_path: Path) -> None:
    """What DSPy's save writes is a state; the signature comes from the option."""
    path = saved(tmp_path, {"demos": [], "signature": {}})
    assert choose_program(path, signature="q -> a", module="react").state == {"demos": [], "signature": {}}
    with pytest.raises(CliError, match="give its signature with --signature"):
        choose_program(path)


def test_state_option_is_the_state_of_signature_and_factory(tmp_path: Path) -> None:
    """Both forms may start with something learned."""
    path = saved(tmp_path, {"demos": []})
    assert choose_program("q -> a", state=path).state == {"demos": []}
    assert choose_program("m:f", state=path).state == {"demos": []}


def test_options_that_contradict_the_program_are_refused(tmp_path: Path) -> None:
    """An option without effect would be a surprise later."""
    cases: list[tuple[str, dict[str, str], str]] = [
        ("a -> b", {"signature": "a -> b"}, "PROGRAM is a signature already"),
        ("m:f", {"module": "predict"}, "do not go with the factory 'm:f'"),
        ("m:f", {"signature": "a -> b"}, "do not go with the factory 'm:f'"),
        ("FILE", {"module": "predict"}, "which holds its own definition"),
        ("FILE", {"state": "x.json"}, "has a state of its own"),
        ("what is this", {}, "is no signature"),
        ("missing.json", {}, "cannot read 'missing.json': No such file"),
    ]
    for program, options, text in cases:
        with case(program, options):
            path = saved(tmp_path, {"definition": {"signature": "q -> a"}})
            with pytest.raises(CliError, match=text):
                choose_program(path if program == "FILE" else program, **options)


def test_saved_program_that_is_none_is_refused(tmp_path: Path) -> None:
    """File and place are named."""
    cases: list[tuple[str, str]] = [
        ('{"definition": }', "line 1, column 16: not valid JSON"),
        ("[1]", "a JSON object is wanted"),
        ('{"definition": [1]}', "are JSON objects"),
        ('{"definition": {}, "state": 3}', "are JSON objects"),
        ('{"definition": {}}', "neither a signature nor a factory"),
        ('{"definition": {"signature": {"inputs": [3]}}}', "an entry in 'inputs' that is no object"),
    ]
    for content, text in cases:
        with case(content):
            with pytest.raises(CliError, match=text):
                choose_program(saved(tmp_path, content))


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """A pickle is no JSON."""
    path = tmp_path / "program.json"
    path.write_bytes(b"\x80\x04\x95")
    with pytest.raises(CliError, match="not JSON in UTF-8"):
        choose_program(str(path))


def test_missing_input_names_row_field_and_what_is_wanted() -> None:
    """The message is enough to find the row and to mend it."""
    program = choose_program("context, question -> answer")
    with pytest.raises(UnfitRowError) as caught:
        program.inputs_of(Row(7, "q-7", {"question": "?"}))
    assert str(caught.value) == (
        "row 'q-7' (line 7): program 'context, question -> answer' misses the input 'context'; "
        "its inputs are context, question"
    )


def test_input_of_another_type_names_row_and_field() -> None:
    """It is found here, without asking a worker; an input that may be null may be left out."""
    program = choose_program("k: int, note: str | None -> y")
    assert program.inputs_of(Row(1, 1, {"k": 3})) == {"k": 3}
    with pytest.raises(UnfitRowError, match=r"row 2 \(line 2\): .* got an input 'k' that"):
        program.inputs_of(Row(2, 2, {"k": "3"}))


def test_cell_becomes_what_the_signature_wants() -> None:
    """A table knows texts alone; a cell that is no such value is refused."""
    cases: list[tuple[str, str, object]] = [
        ("3", "int", 3),
        ("3", "str", "3"),
        ("true", "bool", True),
        ('["a"]', "list[str]", ["a"]),
        ("0.5", "float", 0.5),
    ]
    for cell, kind, value in cases:
        with case(cell, kind):
            program = choose_program(f"x: {kind} -> y")
            assert program.inputs_of(Row(1, 1, {"x": cell}, is_text=True)) == {"x": value}
            if kind != "str":
                with pytest.raises(UnfitRowError, match="got an input 'x'"):
                    program.inputs_of(Row(1, 1, {"x": "soon"}, is_text=True))


def test_cell_of_an_optional_or_chosen_text_stays_a_text() -> None:
    """The cell 2024 was refused as the number that nobody wanted, and an empty one where null was allowed."""
    cases: list[tuple[str, str, object]] = [
        ("2024", "str | None", "2024"),
        ('"so to say"', "str | None", '"so to say"'),
        ("null", "str | None", None),
        ("", "str | None", None),
        ("", "str", ""),
        ("", "int | None", None),
        ("1", "Literal['1', '2']", "1"),
        ("1", "Literal[1, 2]", 1),
        ("True", "bool", True),
        ("False", "Literal['True', 'False']", "False"),
    ]
    for cell, kind, value in cases:
        with case(cell, kind):
            program = choose_program(f"x: {kind} -> y")
            assert program.inputs_of(Row(1, 1, {"x": cell}, is_text=True)) == {"x": value}


def test_number_that_json_cannot_carry_names_row_and_field() -> None:
    """Only inputs count: NaN in another field is nobody's problem."""
    program = choose_program("x -> y")
    assert program.inputs_of(Row(1, 1, {"x": 1, "other": float("nan")})) == {"x": 1}
    with pytest.raises(UnfitRowError, match=r"row 4 \(line 4\): x\[1\] is nan"):
        program.inputs_of(Row(4, 4, {"x": [0, float("nan")]}))


def test_digest_of_a_program_changes_with_definition_and_state() -> None:
    """A journal is refused if the program learned something since."""
    programs = [
        ProgramChoice("a", {"signature": "a -> b"}),
        ProgramChoice("a", {"signature": "a -> c"}),
        ProgramChoice("a", {"signature": "a -> b"}, {"demos": []}),
    ]
    assert len({program.digest() for program in programs}) == 3
    assert programs[0].digest() == ProgramChoice("other label", {"signature": "a -> b"}).digest()


def test_embedded_engine_is_the_default_model() -> None:
    """No network and no key, and the same if it is named."""
    assert choose_lm(None) == choose_lm("dspex/extractive")
    assert choose_lm(None).settings == {"model": "dspex/extractive", "engine": "extractive"}
    assert choose_lm(None).label == "dspex/extractive"


def test_model_takes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key travels by the name of its variable and is no part of the fingerprint."""
    monkeypatch.setenv("MY_KEY", "secret")
    lm = choose_lm("openai/gpt-4o-mini", api_key_env="MY_KEY", api_base="http://127.0.0.1:1", temperature=0.0)
    assert lm.settings == {
        "model": "openai/gpt-4o-mini",
        "api_key_env": "MY_KEY",
        "api_base": "http://127.0.0.1:1",
        "temperature": 0.0,
    }
    assert lm.digest() == LmChoice({**lm.settings, "api_key_env": "OTHER"}).digest()
    assert lm.digest() != choose_lm("openai/gpt-4o-mini", max_tokens=9).digest()


def test_key_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better one error now than one from the provider for each row."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(CliError, match="--api-key-env NO_SUCH_KEY: this environment variable is not set"):
        choose_lm("openai/gpt-4o-mini", api_key_env="NO_SUCH_KEY")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": math.nan}, "temperature must be a number of 0 or more, not the number nan"),
        ({"temperature": math.inf}, "temperature must be a number of 0 or more, not the number inf"),
        ({"temperature": -1.0}, r"temperature must be a number of 0 or more, not the number -1\.0"),
        ({"max_tokens": 0}, "max_tokens must be an integer of 1 or more"),
        ({"api_base": ""}, "api_base must be a non-empty string"),
        ({"model": ""}, "model must be a non-empty string"),
    ],
)
def test_setting_that_no_worker_takes_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    """It was refused by the first worker only, when the pool had started and DSPy was imported."""
    with pytest.raises(CliError, match=message):
        choose_lm(**{"model": "openai/gpt-4o-mini", **options})


def test_embedded_engine_refuses_options_of_a_model() -> None:
    """Nobody believes to have set a temperature that nothing reads."""
    with pytest.raises(
        CliError, match=r"--temperature, --max-tokens: the embedded engine has no such option"
    ):
        choose_lm(None, temperature=1.0, max_tokens=3)
