"""Make a value of a field's type out of what was extracted from a text, or say why there is none.

Types are read from the Python expression that DSPy writes into its prompts, such as ``int``, ``list[str]``,
``Literal['yes', 'no']`` or ``Union[int, NoneType]``. Nothing is invented: a number, a choice or a truth value
comes from the text, or the field stays unfilled.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.words import stem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dspex_pool.bridge.extraction import Extraction

__all__ = ["OutputField", "Unfilled", "fill"]

#: Names of text fields that ask how the answer was found, not for the answer.
EXPLANATION_NAMES = frozenset(
    {"explanation", "justification", "next_thought", "rationale", "reason", "reasoning", "thought"}
)
#: Names of number fields that ask how well the answer fits; they get the overlap, from 0 to 1.
CONFIDENCE_NAMES = frozenset({"certainty", "confidence"})

_NUMBER = re.compile(
    r"(?:(?<![\w.,])(?P<sign>[-\u2212])?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"|\b(?!one of\b)(?P<word>[a-z]+(?:-[a-z]+)?)\b)"
    r"(?:[ -](?P<scale>hundred|thousand|million|billion|trillion)\b)?",
    re.I,
)
# More than any float holds, scaled: what is longer is data, not a number.
_MOST_DIGITS = 290
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNITS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
"""
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {
    **{word: value for value, word in enumerate(_UNITS.split())},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), start=3)},
}
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|without|cannot)\b|n['\u2019]t\b", re.I)
_AFFIRMATIVE = frozenset({"yes", "true"})
_DENIALS = frozenset({"no", "false"})


@dataclass(frozen=True, slots=True)
class OutputField:
    """A field that a prompt asks for."""

    #: Name of the field.
    name: str
    #: Its type as a Python expression; ``str`` when the prompt names none.
    type: str = "str"
    #: The values it may have, when the prompt lists them apart from the type (enumerations).
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unfilled:
    """There is no honest value for a field."""

    #: Why, as the end of a sentence that begins with the field's name.
    reason: str


def fill(field: OutputField, extraction: Extraction) -> Any:
    """Return a JSON value for ``field``, or ``Unfilled``.

    Text fields get the chosen sentence; those named like an explanation (``reasoning``) get how it was chosen;
    a number named ``confidence`` gets its overlap. In an agent's turn no tool is picked but ``finish``.
    """
    if field.choices:
        return _choice(field.choices, extraction)
    try:
        expression = ast.parse(field.type, mode="eval").body
    except SyntaxError:
        return Unfilled(f"has a type that cannot be read: {field.type}")
    return _fill_type(expression, field, extraction)


def _fill_type(expression: ast.expr, field: OutputField, extraction: Extraction) -> Any:
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.BitOr):
        return _first_filled([expression.left, expression.right], field, extraction)
    if isinstance(expression, ast.Constant) and expression.value is None:
        return None
    base = expression.value if isinstance(expression, ast.Subscript) else expression
    name = ast.unparse(base).rpartition(".")[2]
    make = _MAKERS.get(name)
    if make is None:
        return Unfilled(f"has the type {field.type}, which cannot be made out of a sentence")
    return make(_arguments(expression), field, extraction)


def _arguments(expression: ast.expr) -> Sequence[ast.expr]:
    if not isinstance(expression, ast.Subscript):
        return []
    inner = expression.slice
    return inner.elts if isinstance(inner, ast.Tuple) else [inner]


# --- one function a type: (type arguments, field, extraction) -> value or Unfilled -----------------------


def _text(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    return extraction.explanation if field.name in EXPLANATION_NAMES else extraction.answer


def _integer(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    whole = [number for number in _numbers(extraction) if number == int(number)]
    return int(whole[0]) if whole else Unfilled(_none_in("whole number", extraction))


def _float(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    if field.name in CONFIDENCE_NAMES:
        return round(extraction.best.overlap, 3) if extraction.best else 0.0
    numbers = _numbers(extraction)
    return float(numbers[0]) if numbers else Unfilled(_none_in("number", extraction))


def _truth(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    """Affirm what a sentence states in all the question's words; deny it when one of the two is negated."""
    best = extraction.best
    if best is None or not extraction.words or len(best.shared) < len(extraction.words):
        return Unfilled("is a truth value, and no sentence holds all the words of the question")
    return bool(_NEGATION.search(best.sentence)) == bool(_NEGATION.search(extraction.question))


def _nothing(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    return None


def _list(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    """Fill a list with the one item that is known; a list of nothing when nothing is known."""
    if extraction.best is None:
        return []
    item = _fill_type(arguments[0], field, extraction) if arguments else extraction.answer
    return item if isinstance(item, Unfilled) else [item]


def _mapping(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    if field.name == "next_tool_args":
        return {}
    return Unfilled(f"has the type {field.type}, which cannot be made out of a sentence")


def _literal(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    try:
        choices = [ast.literal_eval(argument) for argument in arguments]
    except ValueError:
        return Unfilled(f"has a type that cannot be read: {field.type}")
    if field.name == "next_tool_name" and "finish" in choices:
        return "finish"
    return _choice(choices, extraction)


def _first_filled(arguments: Sequence[ast.expr], field: OutputField, extraction: Extraction) -> Any:
    """Fill a union with its first type that has a value; ``None`` only when no other has, or none is known."""
    optional = [argument for argument in arguments if ast.unparse(argument) in ("None", "NoneType")]
    if optional and extraction.best is None:
        return None
    result: Any = Unfilled("has an empty union as its type")
    for argument in [*(one for one in arguments if one not in optional), *optional]:
        result = _fill_type(argument, field, extraction)
        if not isinstance(result, Unfilled):
            break
    return result


_MAKERS: dict[str, Callable[[Sequence[ast.expr], OutputField, Extraction], Any]] = {
    "Any": _text,
    "Dict": _mapping,
    "List": _list,
    "Literal": _literal,
    "NoneType": _nothing,
    "Optional": lambda arguments, field, found: _first_filled([*arguments, ast.Constant(None)], field, found),
    "Union": _first_filled,
    "bool": _truth,
    "dict": _mapping,
    "float": _float,
    "int": _integer,
    "list": _list,
    "str": _text,
}


# --- what sentences hold -----------------------------------------------------------------------------------


def _choice(choices: Sequence[Any], extraction: Extraction) -> Any:
    """Pick the one choice that the best sentence names, or else the next sentence that shares words."""
    by_name = {str(choice).casefold(): choice for choice in choices}
    if by_name.keys() <= _AFFIRMATIVE | _DENIALS:
        return _yes_or_no(by_name, extraction)
    for candidate in extraction.ranked:
        named = [name for name in by_name if _names(candidate.sentence, name)]
        if candidate.overlap > 0 and len(named) == 1:
            return by_name[named[0]]
    listed = ", ".join(str(choice) for choice in choices)
    return Unfilled(
        f"must be one of {listed}, and no sentence that fits the question names exactly one of them"
    )


def _yes_or_no(by_name: dict[str, Any], extraction: Extraction) -> Any:
    truth = _truth([], OutputField("answer"), extraction)
    if isinstance(truth, Unfilled):
        return truth
    wanted = by_name.keys() & (_AFFIRMATIVE if truth else _DENIALS)
    return by_name[wanted.pop()] if wanted else Unfilled("has no choice for what was found")


def _names(sentence: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sentence.casefold()) is not None


@dataclass(frozen=True, slots=True)
class _Number:
    #: Whole where it is written so: a float would change the last digits of a long one.
    value: int | float
    start: int
    is_year: bool


def _numbers(extraction: Extraction) -> list[int | float]:
    """Return the numbers of the chosen sentence, the likeliest first.

    A number that the question holds already is none. Years come first when a date is asked for and last
    otherwise; then the number nearest to a word of the question wins.
    """
    best = extraction.best
    if best is None:
        return []
    known = {number.value for number in _find_numbers(extraction.question)}
    places = _places(best.sentence, {stem(word) for word in extraction.words})
    asks_date = best.kind == "a date"
    found = [number for number in _find_numbers(best.sentence) if number.value not in known]
    found.sort(key=lambda n: (n.is_year != asks_date, min((abs(n.start - at) for at in places), default=0)))
    return [number.value for number in found]


def _find_numbers(text: str) -> list[_Number]:
    return [number for match in _NUMBER.finditer(text) if (number := _number(match)) is not None]


def _number(match: re.Match[str]) -> _Number | None:
    scale = _SCALES.get((match["scale"] or "").lower(), 1)
    if match["word"] is not None:
        value = _spelled(match["word"].lower().split("-"))
        return None if value is None else _Number(value * scale, match.start(), is_year=False)
    digits = match["digits"].replace(",", "")
    if len(digits) > _MOST_DIGITS:
        return None
    size = (float(digits) if "." in digits else int(digits)) * scale
    plain_year = match.group().isdigit() and 1000 <= size < 2100
    return _Number(-size if match["sign"] else size, match.start(), is_year=plain_year)


def _spelled(parts: Sequence[str]) -> int | None:
    """Read ``twenty-one`` as 21 and ``eight-legged`` as 8."""
    values = [_NUMBER_WORDS.get(part) for part in parts]
    return values[0] + sum(value or 0 for value in values[1:]) if values[0] is not None else None


def _places(sentence: str, stems: set[str]) -> list[int]:
    return [match.start() for match in re.finditer(r"[^\W\d_]+", sentence) if stem(match.group()) in stems]


def _none_in(what: str, extraction: Extraction) -> str:
    if extraction.best is None:
        return f"must be a {what}, and no sentence fits the question"
    return f"must be a {what}, and the chosen sentence holds none: {extraction.best.sentence}"
