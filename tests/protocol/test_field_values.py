"""Field values: each type gets what the text holds, or stays unfilled with a reason."""

from __future__ import annotations

from typing import Any

from dspex_pool.bridge.extraction import extract
from dspex_pool.bridge.field_values import OutputField, Unfilled, fill
from tests.cases import case

LAKE = (
    "The lake is 1,640 metres deep and was mapped in 1902. It holds three hundred kinds of fish. "
    "In winter the surface falls to -2.5 degrees. Boats do not cross the lake in winter. "
    "Otters live on twenty-one islands."
)
DEPTH = "How many metres deep is the lake?"


def filled(type_: str, question: str = DEPTH, *, name: str = "value", choices: tuple[str, ...] = ()) -> Any:
    return fill(OutputField(name, type_, choices), extract(LAKE, question))


def test_typed_field_gets_what_the_sentence_holds() -> None:
    """Numbers, truth values, choices, lists and unions are read from the text."""
    cases: list[tuple[str, str, Any]] = [
        ("int", DEPTH, 1640),
        ("float", DEPTH, 1640.0),
        ("int", "In which year was the lake mapped?", 1902),
        ("int", "How many kinds of fish does the lake hold?", 300),
        ("int", "On how many islands do otters live?", 21),
        ("float", "To how many degrees does the surface fall in winter?", -2.5),
        ("bool", "Is the lake deep?", True),
        ("bool", "Do boats cross the lake in winter?", False),
        ("bool", "Do boats never cross the lake in winter?", True),
        ("list[int]", DEPTH, [1640]),
        ("List[float]", DEPTH, [1640.0]),
        ("Literal['winter', 'summer']", "When do boats not cross the lake?", "winter"),
        ("Literal[1902, 5]", "In which year was the lake mapped?", 1902),
        ("Literal['yes', 'no']", "Do boats cross the lake in winter?", "no"),
        ("Literal[True, False]", "Is the lake deep?", True),
        ("Union[int, NoneType]", DEPTH, 1640),
        ("Optional[int]", "Do boats cross?", None),
        ("Optional[int]", "Who is queen?", None),
        ("int | None", DEPTH, 1640),
        ("int | str", "Do boats cross?", "Boats do not cross the lake in winter."),
        ("NoneType", DEPTH, None),
        ("list[str]", "Who is queen?", []),
    ]
    for type_, question, value in cases:
        with case(type_, question):
            result = filled(type_, question)
            assert result == value
            assert type(result) is type(value)


def test_text_field_gets_the_sentence() -> None:
    """Text is the chosen sentence, as it stands."""
    sentence = "The lake is 1,640 metres deep and was mapped in 1902."
    for type_ in ["str", "Any", "list", "list[str]", "Optional[str]"]:
        assert filled(type_) == ([sentence] if type_.startswith("list") else sentence), type_


def test_field_named_like_an_explanation_gets_one() -> None:
    """``reasoning`` says how the sentence was chosen."""
    assert filled("str", name="reasoning").startswith("Sentence 1 of 5 matches 3 of 3")


def test_confidence_is_the_overlap() -> None:
    """A confidence is measured, and nothing when there is no answer."""
    assert filled("float", name="confidence") == 1.0
    assert filled("float", "Who is queen?", name="confidence") == 0.0


def test_listed_choices_come_before_the_type() -> None:
    """An enumeration's type is a name that says nothing; its values are listed."""
    assert filled("Season", "When do boats not cross the lake?", choices=("summer", "winter")) == "winter"


def test_agent_finishes_without_a_tool() -> None:
    """The engine picks no tools: it says ``finish`` with no arguments."""
    assert filled("Literal['search', 'finish']", name="next_tool_name") == "finish"
    assert filled("dict[str, Any]", name="next_tool_args") == {}


def test_field_without_an_honest_value_stays_unfilled() -> None:
    """No number, choice or truth value is made up; the reason says what was missing."""
    cases: list[tuple[str, str, str]] = [
        ("int", "Do boats cross?", "the chosen sentence holds none: Boats do not cross"),
        ("float", "Who is queen?", "must be a number, and no sentence fits"),
        ("int", "Is the lake 1640 metres deep, mapped in 1902?", "must be a whole number"),
        ("list[int]", "Do boats cross?", "must be a whole number"),
        ("bool", "Is the lake salty?", "truth value"),
        ("bool", "Who is queen?", "truth value"),
        ("Literal['x', 'y']", DEPTH, "must be one of x, y"),
        ("Literal['yes', 'maybe']", DEPTH, "must be one of yes, maybe"),
        ("Literal['no']", "Is the lake deep?", "no choice for what was found"),
        ("Literal['yes', 'no']", "Is the lake salty?", "truth value"),
        ("Literal[Season.x]", DEPTH, "cannot be read"),
        ("dict", DEPTH, "cannot be made out of a sentence"),
        ("Person", DEPTH, "cannot be made out of a sentence"),
        ("Union[int, Person]", "Do boats cross?", "cannot be made out of a sentence"),
        ("Union[()]", DEPTH, "empty union"),
        ("list[", DEPTH, "cannot be read: list["),
    ]
    for type_, question, reason in cases:
        with case(type_, question):
            result = filled(type_, question)
            assert isinstance(result, Unfilled)
            assert reason in result.reason


def test_number_is_read_as_people_write_it() -> None:
    """Scales, words, signs and years are told apart, and the number nearest to the question's words wins."""
    cases: list[tuple[str, int]] = [
        ("The price is 3.8 million crowns.", 3_800_000),
        ("The price is one of the two highest.", 2),
        ("The price is two million.", 2_000_000),
        ("The eight-legged price.", 8),
        ("The price is \u221240.", -40),
        ("The price was 12 in 1950.", 12),
        ("In 1950 the price was 12.", 12),
        ("From 7 shops, the price of 12 is from one.", 12),
    ]
    for sentence, number in cases:
        assert fill(OutputField("price", "int"), extract(sentence, "What is the price?")) == number, sentence


def test_long_number_is_given_digit_by_digit_or_not_at_all() -> None:
    """It went through a float, which changed its last digits, and failed for one longer than any float."""
    question = "What is the serial number?"
    serial = extract("The serial number is 12345678901234567890.", question)
    assert fill(OutputField("value", "int"), serial) == 12345678901234567890
    assert fill(OutputField("value", "float"), serial) == float(12345678901234567890)
    data = extract(f"The serial number is {'9' * 5000}.", question)
    for type_ in ("int", "float"):
        assert isinstance(fill(OutputField("value", type_), data), Unfilled)
